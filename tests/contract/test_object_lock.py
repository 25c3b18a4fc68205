"""Object Lock as the fake, moto and Ceph RGW have it: what s3fsx/protection.py relies on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from s3fsx.errors import NotFound
from s3fsx.s3.probe import probe
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.objects import Capabilities, Payload, Store
from tests.contract.conftest import KINDS, options
from tests.fakestore import FakeStore
from tests.s3server import S3Server

UNTIL = 3600.0


@dataclass(frozen=True)
class Locked:
    """A store on a bucket with Object Lock. server, bucket: None, "" for the fake."""

    store: Store
    server: S3Server | None = None
    bucket: str = ""

    def retain(self, key: str) -> None:
        """For an hour, in the mode that its owner may still lift."""
        if isinstance(self.store, FakeStore):
            self.store.objects[key].retained = time.time() + UNTIL
            return
        assert self.server is not None
        until = datetime.now(UTC) + timedelta(seconds=UNTIL)
        retention = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
        self.server.client.put_object_retention(Bucket=self.bucket, Key=key, Retention=retention)


@pytest.fixture(params=KINDS)
async def locked(request: pytest.FixtureRequest) -> AsyncIterator[Locked]:
    if request.param == "fake":
        yield Locked(FakeStore(capabilities=Capabilities("crc32", object_lock=True)))
        return
    server: S3Server = request.getfixturevalue(request.param)
    bucket = server.make_bucket("locked", object_lock=True)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(S3Store(options(server, bucket), Endpoint()))
        assert (await probe(store, "")).object_lock
        yield Locked(store, server, bucket)


def kind(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["locked"])


async def put(store: Store, key: str) -> None:
    await store.put(key, Payload.of(b"backup"), metadata={"mode": "33188"})


async def test_a_hold_is_set_shown_and_lifted(locked: Locked) -> None:
    await put(locked.store, "x")
    before = await locked.store.head("x")
    assert await locked.store.legal_hold("x") is False
    await locked.store.set_legal_hold("x", True)
    assert await locked.store.legal_hold("x") is True
    await locked.store.set_legal_hold("x", True)
    held = await locked.store.head("x")
    assert replace(held, modified=before.modified) == before  # no new version; RGW and moto touch the time
    await locked.store.set_legal_hold("x", False)
    assert await locked.store.legal_hold("x") is False


async def test_what_is_not_there_has_no_hold(locked: Locked, request: pytest.FixtureRequest) -> None:
    with pytest.raises(NotFound):
        await locked.store.legal_hold("x")
    if kind(request) != "moto":  # answers 500
        with pytest.raises(NotFound):
            await locked.store.set_legal_hold("x", True)
        with pytest.raises(NotFound):
            await locked.store.retained_until("x")
    await put(locked.store, "x")
    await locked.store.delete("x")  # a delete marker
    with pytest.raises(NotFound):
        await locked.store.legal_hold("x")


async def test_by_key_a_held_object_is_hidden_without_an_error(locked: Locked) -> None:
    """Why it must be asked before: neither of these is refused, and what is there afterwards has no hold."""
    for key in ("deleted", "replaced", "copied"):
        await put(locked.store, key)
        await locked.store.set_legal_hold(key, True)
    await locked.store.delete("deleted")
    with pytest.raises(NotFound):
        await locked.store.head("deleted")
    await put(locked.store, "replaced")
    assert await locked.store.legal_hold("replaced") is False
    etag = (await locked.store.head("copied")).etag
    await locked.store.copy("copied", "copied", etag=etag, metadata={"mode": "33152"})
    assert await locked.store.legal_hold("copied") is False


async def test_a_held_version_cannot_be_deleted(locked: Locked) -> None:
    if locked.server is None:
        return  # the fake has no versions; it tells what was hidden instead
    await put(locked.store, "x")
    await locked.store.set_legal_hold("x", True)
    client = locked.server.client
    version = client.head_object(Bucket=locked.bucket, Key="x")["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=locked.bucket, Key="x", VersionId=version)
    await locked.store.set_legal_hold("x", False)
    client.delete_object(Bucket=locked.bucket, Key="x", VersionId=version)


@pytest.mark.parametrize("locked", ["fake", pytest.param("rgw", marks=pytest.mark.rgw)], indirect=True)
async def test_a_retention_is_seen(locked: Locked) -> None:
    """Not on moto, which answers 500 to the question."""
    await put(locked.store, "x")
    assert await locked.store.retained_until("x") == 0
    locked.retain("x")
    assert await locked.store.retained_until("x") == pytest.approx(time.time() + UNTIL, abs=60)


@pytest.mark.parametrize("bucket_on", ["moto", "gateway", pytest.param("rgw", marks=pytest.mark.rgw)], indirect=True)
async def test_a_bucket_without_a_lock(bucket_on: S3Server) -> None:
    async with S3Store(options(bucket_on, bucket_on.make_bucket("plain")), Endpoint()) as store:
        found = await probe(store, "", multipart=False)
        assert not found.object_lock
        assert found.notes == ()
