"""The name of the endpoint does not resolve for a while: an outage like any other, and over as soon as it does."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from s3fsx.errors import BucketMissing, ConnectionFailed, EndpointDown
from s3fsx.s3.options import S3Options
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from tests.s3server import S3Server

pytestmark = [pytest.mark.rgw, pytest.mark.expect_log("is down: .*", optional=True)]

NAME = "store.example.test"


async def test_a_name_that_does_not_resolve_for_a_while(rgw: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real, broken = socket.getaddrinfo, True

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return real(host, *args, **kwargs)
        if broken:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    options = S3Options(
        "any",
        endpoint=f"http://{NAME}:{urlsplit(rgw.endpoint).port}",
        access_key=rgw.access_key,
        secret_key=rgw.secret_key,
        metadata_deadline=60.0,
    )
    async with S3Store(options, Endpoint("it")) as store, trio.open_nursery() as nursery:
        nursery.start_soon(store.endpoint.watch, store.ping)
        with pytest.raises((ConnectionFailed, EndpointDown), match=r"cannot connect|is down"):
            await store.list_page("")
        with trio.fail_after(60):
            await store.endpoint.wait_down()
        broken = False
        for _ in range(600):
            await trio.sleep(0.1)
            if not store.down:
                break
        with pytest.raises(BucketMissing):  # RGW takes a host name that it does not know for a bucket's: an answer
            await store.list_page("")
        assert not store.down
        nursery.cancel_scope.cancel()
