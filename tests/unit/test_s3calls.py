"""Answers about locks that no store at hand gives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s3fsx.errors import NotFound
from s3fsx.s3.calls import legal_hold, retained_until

TARGET = {"Bucket": "b", "Key": "dump/x"}


class Client:
    """Answers every question about a lock with the same document, or refusal."""

    def __init__(self, answer: dict[str, Any] | None = None, code: str = "") -> None:
        self.answer = answer or {}
        self.code = code

    def get_object_legal_hold(self, **params: object) -> dict[str, Any]:
        assert params == TARGET
        if self.code:
            raise ClientError({"Error": {"Code": self.code}}, "GetObject")
        return self.answer

    get_object_retention = get_object_legal_hold


@pytest.mark.parametrize("code", ["NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"])
def test_an_object_without_a_lock(code: str) -> None:
    """Amazon's code and Ceph's; moto answers with an empty document."""
    assert legal_hold(TARGET, Client(code=code)) is False
    assert retained_until(TARGET, Client(code=code)) == 0
    assert legal_hold(TARGET, Client({"LegalHold": {}})) is False


def test_a_delete_marker_is_no_object() -> None:
    """Amazon documents 405 for it."""
    for ask in (legal_hold, retained_until):
        with pytest.raises(NotFound, match="dump/x"):
            ask(TARGET, Client(code="MethodNotAllowed"))


@pytest.mark.parametrize("code", ["NoSuchKey", "AccessDenied", "InvalidRequest", ""])
def test_every_other_refusal_is_no_permission(code: str) -> None:
    """Only the two codes above mean that there is no lock."""
    for ask in (legal_hold, retained_until):
        with pytest.raises(ClientError):
            ask(TARGET, Client(code=code or "Unknown"))


def test_what_is_said() -> None:
    assert legal_hold(TARGET, Client({"LegalHold": {"Status": "ON"}})) is True
    assert legal_hold(TARGET, Client({"LegalHold": {"Status": "OFF"}})) is False
    until = datetime(2027, 1, 1, tzinfo=UTC)
    assert retained_until(TARGET, Client({"Retention": {"RetainUntilDate": until}})) == until.timestamp()
