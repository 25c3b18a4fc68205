"""HTTP under attack: requests that two readers would understand differently, peers that keep what they were given."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing

from s3fsx.gateway.connection import Limits
from s3fsx.gateway.http import Server
from s3fsx.gateway.messages import FileRange, Request, Response
from tests.gateway.test_http import Listener, exchange, serving, told, until_closed
from tests.gatewayserver import running_gateway

HOST = b" HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"PUT /a" + HOST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /a" + HOST + b"content-length: +4\r\n\r\n",
        b"PUT /a" + HOST + b"content-length: 0x4\r\n\r\n",
        b"PUT /a" + HOST + b"content-length: 4, 5\r\n\r\n",
        b"PUT /a" + HOST + b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"PUT /a" + HOST + b"content-length: " + b"9" * 19 + b"\r\n\r\n",
        b"PUT /a" + HOST + b"content-length : 4\r\n\r\n",
        b"PUT /a" + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n",
        b"PUT /a" + HOST + b"transfer-encoding: xchunked\r\n\r\n",
        b"PUT /a HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /a" + HOST + b"x: \0\r\n\r\n",
        b"GET /a b" + HOST + b"\r\n",
        b"GET /\xc3\xa4" + HOST + b"\r\n",
        b"GET /a HTTP/2.0\r\nhost: x\r\n\r\n",
        b"GET /a" + HOST + b"host: y\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_two_readers_may_understand_differently(
    autojump_clock: trio.testing.MockClock, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused, and nothing behind it is read as a request."""
    async with serving(told) as (_, listener):
        stream = await listener.connect()
        await stream.send_all(head + b"GET /smuggled" + HOST + b"\r\n")
        data = await until_closed(stream)
    assert data.startswith(b"HTTP/1.1 4")
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in data
    assert caplog.records == []


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\nab\r\n0\r\n\r\n",
        b"0x2\r\nab\r\n0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"f" * 40 + b"\r\nab",
        b"2 2\r\nab\r\n",
    ],
)
async def test_chunks_that_are_none(autojump_clock: trio.testing.MockClock, body: bytes) -> None:
    async with serving(told) as (_, listener):
        stream = await listener.connect()
        await stream.send_all(
            b"PUT /a" + HOST + b"transfer-encoding: chunked\r\n\r\n" + body + b"GET /b" + HOST + b"\r\n"
        )
        data = await until_closed(stream)
    assert data.startswith(b"HTTP/1.1 400")
    assert data.count(b"HTTP/1.1 ") == 1


async def test_many_requests_at_once_are_answered_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """More than one piece of what is received holds, with bodies of both kinds."""
    wanted = [b"PUT /%d " % number + b"x" * 1000 for number in range(200)]
    requests = [
        b"PUT /%d" % number
        + HOST
        + (
            b"content-length: 1000\r\n\r\n" + b"x" * 1000
            if number % 2
            else b"transfer-encoding: chunked\r\n\r\n3e8;a=b\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"
        )
        for number in range(200)
    ]
    async with serving(told) as (_, listener):
        stream = await listener.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"".join(requests[:-1]))
            data = b""
            while wanted[-2] not in data:
                data += bytes(await stream.receive_some())
        assert [body in data for body in wanted[:-1]] == [True] * 199
        assert data.count(b"HTTP/1.1 200") == 199
        assert await exchange(stream, requests[-1]) == wanted[-1]


async def test_values_are_told_as_they_came(autojump_clock: trio.testing.MockClock) -> None:
    """``à`` ends with the byte of a space that is none of HTTP's, ``Å`` with that of a line's end."""

    async def echo(request: Request) -> Response:
        return Response(200, [(name, value) for name, value in request.headers if name.startswith("x-")])

    async with serving(echo) as (_, listener):
        stream = await listener.connect()
        await stream.send_all("GET / HTTP/1.1\r\nhost: x\r\nx-a: voilà\r\nx-b: Å\r\nconnection: close\r\n\r\n".encode())
        data = await until_closed(stream)
    assert "x-a: voilà\r\n".encode() in data
    assert "x-b: Å\r\n".encode() in data


async def test_who_asks_nothing_makes_room_for_who_does(autojump_clock: trio.testing.MockClock) -> None:
    """Peers without a key hold all connections; the one that was silent the longest goes first."""
    async with serving(told, connections=3) as (_, listener):
        silent = [await listener.connect() for _ in range(3)]
        assert await exchange(silent[0], b"GET /0" + HOST + b"\r\n") == b"GET /0 "
        await trio.testing.wait_all_tasks_blocked()
        late = await listener.connect()
        began = trio.current_time()
        assert await exchange(late, b"GET /late" + HOST + b"\r\n") == b"GET /late "
        assert trio.current_time() == began
        assert await until_closed(silent[1]) == b""
        assert await exchange(silent[0], b"GET /0" + HOST + b"\r\n") == b"GET /0 "


async def test_no_more_than_so_many_are_accepted(autojump_clock: trio.testing.MockClock) -> None:
    """While all are at work the kernel keeps the rest: each would cost a descriptor."""

    async def slow(request: Request) -> Response:
        await trio.sleep(10)
        return Response(200)

    async with serving(slow, connections=2) as (_, listener):
        for number in range(4):
            stream = await listener.connect()
            await stream.send_all(b"GET /" + HOST + b"connection: close\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            if number == 3:
                assert listener._receive.statistics().current_buffer_used == 1
        began = trio.current_time()
        assert (await until_closed(stream)).startswith(b"HTTP/1.1 200")
        assert 18 < trio.current_time() - began < 22


class FullListener(Listener):
    failures = 3

    async def accept(self) -> trio.abc.HalfCloseableStream:
        if self.failures:
            self.failures -= 1
            raise OSError(24, "Too many open files")
        return await super().accept()


@pytest.mark.expect_log("cannot accept connections: Too many open files")
async def test_a_process_without_descriptors_goes_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server, listener = Server(told, Limits()), FullListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        stream = await listener.connect()
        assert await exchange(stream, b"GET /x" + HOST + b"\r\n") == b"GET /x "
        server.stop()
    assert len(caplog.records) == 1


@pytest.mark.expect_log("could not be sent")
async def test_a_disk_that_fails_is_told(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async def cut(request: Request) -> Response:
        path = tmp_path / "x"
        path.write_bytes(b"1")
        return Response(200, (), FileRange(os.open(path, os.O_RDONLY), 0, 2))

    async with serving(cut) as (_, listener):
        stream = await listener.connect()
        await stream.send_all(b"GET /" + HOST + b"\r\n")
        assert (await until_closed(stream)).endswith(b"\r\n\r\n1")


def test_a_refusal_arrives_before_all_was_sent(tmp_path: Path) -> None:
    """Whoever sends without looking gets the answer, and not a reset."""
    with running_gateway(tmp_path / "buckets") as running:
        split = urlsplit(running.server.endpoint)
        size = 64 << 20
        with socket.create_connection((split.hostname or "", split.port or 0), timeout=30) as peer:
            peer.sendall(b"PUT /bucket/x HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size >> 20):
                peer.sendall(bytes(1 << 20))
            assert peer.recv(100).startswith(b"HTTP/1.1 403")


def test_peers_without_keys_do_not_keep_others_out(tmp_path: Path) -> None:
    """600 connections that say nothing, half a head, or a form that never ends; 512 are served at a time."""
    with running_gateway(tmp_path / "buckets") as running:
        split = urlsplit(running.server.endpoint)
        peers = []
        try:
            for number in range(600):
                peer = socket.create_connection((split.hostname or "", split.port or 0), timeout=30)
                peers.append(peer)
                if number % 2:
                    peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
            began = time.monotonic()
            running.server.client.create_bucket(Bucket="bucket")
            running.server.client.put_object(Bucket="bucket", Key="x", Body=b"1")
            assert time.monotonic() - began < 20
        finally:
            for peer in peers:
                peer.close()


async def test_bodies_that_nobody_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """Of a HEAD, of a GET that is refused, of one that expects 100 without a body: the next request is the next one."""

    async def deaf(request: Request) -> Response:
        return Response(403 if request.method == "GET" else 200, (), b"", 0)

    async with serving(deaf) as (_, listener):
        stream = await listener.connect()
        for method in (b"HEAD", b"GET", b"PUT"):
            for body in (
                b"content-length: 3\r\n\r\nabc",
                b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                b"expect: 100-continue\r\ncontent-length: 0\r\n\r\n",
            ):
                assert await exchange(stream, method + b" /x" + HOST + body) == b""
        await stream.send_all(b"GET /end" + HOST + b"\r\n")
        await stream.send_eof()  # half closed: the answer still comes
        data = await until_closed(stream)
        assert data.startswith(b"HTTP/1.1 403")
        assert data.count(b"HTTP/1.1 ") == 1
