"""One store fixture for the whole suite: the fake, moto, the gateway, a real Ceph RGW alone and behind the gateway;
each with its own bucket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from s3fsx.s3.lean import LeanClient
from s3fsx.s3.options import S3Options
from s3fsx.s3.probe import probe
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from s3fsx.store.objects import Capabilities, Store
from tests.fakestore import FakeStore
from tests.s3server import S3Server

KINDS = ["fake", "moto", "gateway", *(pytest.param(name, marks=pytest.mark.rgw) for name in ("rgw", "proxied_rgw"))]
# RGW with all requests made by boto3, as where the situation is not a usual one.
BY_BOTO3 = pytest.param("boto3", marks=pytest.mark.rgw)


def options(server: S3Server, bucket: str) -> S3Options:
    return S3Options(
        bucket=bucket,
        endpoint=server.endpoint,
        region=server.region,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )


@dataclass(frozen=True)
class Place:
    """Where a real store's objects are, to look at them from outside."""

    server: S3Server
    bucket: str

    def store(self, capabilities: Capabilities | None = None, **changes: Any) -> S3Store:
        return S3Store(replace(options(self.server, self.bucket), **changes), Endpoint(), capabilities)


@pytest.fixture(params=["moto", "gateway", pytest.param("rgw", marks=pytest.mark.rgw)])
def place(request: pytest.FixtureRequest) -> Place:
    server: S3Server = request.getfixturevalue(request.param)
    return Place(server, server.make_bucket("contract"))


_probed: dict[str, Capabilities] = {}  # per kind of server, for the session


@pytest.fixture(params=[*KINDS, BY_BOTO3])
async def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    if request.param == "fake":
        yield FakeStore()
        return
    if request.param == "boto3":
        monkeypatch.setattr(LeanClient, "_learnt", lambda _: None)
    server: S3Server = request.getfixturevalue("rgw" if request.param == "boto3" else request.param)
    bucket = server.make_bucket("contract")
    async with contextlib.AsyncExitStack() as stack:
        real = await stack.enter_async_context(S3Store(options(server, bucket), Endpoint()))
        if server.name not in _probed:
            _probed[server.name] = await probe(real, "")
        real.capabilities = _probed[server.name]
        yield real
