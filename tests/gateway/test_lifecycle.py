"""Lifecycle: what is kept of a rule, and what goes when."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from botocore.exceptions import ClientError

from s3fsx.gateway.directory.provider import DirectoryBackend
from s3fsx.gateway.expiring import expire, keep_expiring
from s3fsx.gateway.lifecycle import doomed, due
from s3fsx.gateway.model import Bucket, Object, Page, Query
from tests.s3server import S3Server

DAY = 86400
NS = 10**9
RULE: dict[str, Any] = {"id": "r", "status": "Enabled", "prefix": "", "tags": [], "old": False}
RULES: list[dict[str, Any]] = [
    {"ID": "a", "Filter": {"Prefix": "x/"}, "Status": "Enabled", "Expiration": {"Days": 3}},
    {"ID": "b", "Prefix": "", "Status": "Disabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
    {
        "ID": "c",
        "Filter": {"And": {"Prefix": "p", "Tags": [{"Key": "k", "Value": "v"}], "ObjectSizeGreaterThan": 10}},
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": 2, "NewerNoncurrentVersions": 3},
    },
    {"ID": "d", "Filter": {"Prefix": ""}, "Status": "Enabled", "Expiration": {"ExpiredObjectDeleteMarker": True}},
    {
        "ID": "e",
        "Filter": {"Prefix": ""},
        "Status": "Enabled",
        "Expiration": {"Date": datetime(2030, 1, 1, tzinfo=UTC)},
    },
]


def test_rules_come_back(gateway: S3Server) -> None:
    bucket = gateway.make_bucket("lifecycle")
    c = gateway.client
    c.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": RULES})
    assert c.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == RULES
    c.delete_bucket_lifecycle(Bucket=bucket)
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        c.get_bucket_lifecycle_configuration(Bucket=bucket)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Expiration": {"Days": 0}}, "InvalidArgument"),
        ({"Status": "enabled"}, "MalformedXML"),
        ({"ID": "x" * 256}, "InvalidArgument"),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, "NotImplemented"),
        ({"Expiration": {"Date": datetime(2030, 1, 1, 1, tzinfo=UTC)}}, "InvalidArgument"),
    ],
)
def test_rules_that_are_refused(gateway: S3Server, change: dict[str, Any], code: str) -> None:
    bucket = gateway.make_bucket("lifecycle")
    with pytest.raises(ClientError) as found:
        gateway.client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [{**RULES[0], **change}]}
        )
    assert found.value.response["Error"]["Code"] == code


def version(day: float, *, latest: bool = False, marker: bool = False, **more: Any) -> Object:
    return Object("key", more.pop("size", 5), "", int(day * DAY * NS), f"v{day}", latest=latest, marker=marker, **more)


def test_days_end_at_midnight() -> None:
    """S3 adds the days and rounds up to the next midnight."""
    current = [version(10.5, latest=True)]
    rules = [{**RULE, "days": 3}]
    assert due(10.5 * DAY, 3) == 14 * DAY
    assert doomed(rules, current, 14 * DAY - 1) == []
    assert doomed(rules, current, 14 * DAY) == current
    assert doomed([{**rules[0], "status": "Disabled"}], current, 99 * DAY) == []
    assert doomed([{**rules[0], "prefix": "other"}], current, 99 * DAY) == []
    assert doomed([{**rules[0], "tags": [["a", "b"]]}], current, 99 * DAY) == []
    assert doomed([{**rules[0], "above": 5}], current, 99 * DAY) == []
    assert doomed([{**rules[0], "below": 6, "above": 4}], current, 99 * DAY) == current


def test_versions_that_are_not_current() -> None:
    stack = [version(20, latest=True), version(10), version(5), version(1)]
    rules = [{**RULE, "noncurrent": 3}]
    assert doomed(rules, stack, 13 * DAY) == [stack[3]]  # since day 5
    assert doomed(rules, stack, 14 * DAY) == [stack[2], stack[3]]
    assert doomed([{**RULE, "noncurrent": 3, "newer": 2}], stack, 99 * DAY) == [stack[3]]


def test_markers_go_when_they_stand_alone() -> None:
    marker = version(20, latest=True, marker=True)
    rules = [{**RULE, "markers": True}]
    assert doomed(rules, [marker], 21 * DAY) == [marker]
    assert doomed(rules, [marker, version(1)], 99 * DAY) == []


@pytest.fixture
def backend(tmp_path: Path) -> DirectoryBackend:
    return DirectoryBackend(str(tmp_path))


def described(key: str, size: int) -> Object:
    return Object(key, size, "e", 0, hold="held" in key)


async def test_what_expires_goes(backend: DirectoryBackend) -> None:
    rules = [{**RULE, "prefix": "old", "days": 1, "abort": 1}]
    await backend.create_bucket(Bucket("bucket", 0, "me", {"lifecycle": rules}))

    async def one() -> AsyncIterator[bytes]:
        yield b"1"

    now = 0.0
    for key in ("old/1", "old/held", "new"):
        finish = functools.partial(described, key)
        made = await backend.put("bucket", key, one(), finish, lambda _: None)
        now = made.modified / NS
        await backend.create_upload("bucket", Object(key, 0, "", 0))
    assert await expire(backend, now + DAY - 1) == 0
    assert await expire(backend, now + 3 * DAY) == 3
    assert [found.key for found in (await backend.list("bucket", Query())).entries] == ["new", "old/held"]
    assert [upload.key for upload in (await backend.list_uploads("bucket", Query())).uploads] == ["new"]


@pytest.mark.expect_log("lifecycle of broken: ")
async def test_one_bucket_that_fails_does_not_keep_the_others(
    backend: DirectoryBackend, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """And the first look is ten minutes after the start."""
    rules = [{**RULE, "abort": 1}]
    for name in ("broken", "bucket"):
        await backend.create_bucket(Bucket(name, 0, "me", {"lifecycle": rules}))
        await backend.create_upload(name, Object("x", 0, "", 0))
    real = backend.list_versions

    async def list_versions(bucket: str, query: Query) -> Page:
        if bucket == "broken":
            raise OSError(5, "Input/output error")
        return await real(bucket, query)

    monkeypatch.setattr(backend, "list_versions", list_versions)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_expiring, backend, lambda: 2.0e9 + 2 * DAY)
        await trio.sleep(590)
        assert len((await backend.list_uploads("bucket", Query())).uploads) == 1
        for _ in range(1000):  # the clock goes on while threads are at work
            if not (await backend.list_uploads("bucket", Query())).uploads:
                break
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len((await backend.list_uploads("broken", Query())).uploads) == 1
    assert (await backend.list_uploads("bucket", Query())).uploads == ()
