"""The HTTP server by itself: deadlines, connections that are kept, and its end; on memory streams and MockClock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from s3fsx.gateway.connection import Limits
from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.http import Server
from s3fsx.gateway.messages import Answers, Request, Response
from s3fsx.gateway.render import error_response

Stream = trio.abc.HalfCloseableStream


class Listener(trio.abc.Listener[Stream]):
    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Stream](10)

    async def accept(self) -> Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        await self._receive.aclose()

    async def connect(self) -> Stream:
        client, server = trio.testing.memory_stream_pair()
        await self._send.send(server)
        return client


@asynccontextmanager
async def serving(answer: Answers, **limits: Any) -> AsyncIterator[tuple[Server, Listener]]:
    server, listener = Server(answer, Limits(**limits)), Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        yield server, listener
        server.stop()


async def told(request: Request) -> Response:
    """All of the body, or the error that it ends in."""
    body = b""
    try:
        async for piece in request.body:
            body += piece
    except S3Error as error:
        return error_response(error, request.id)
    return Response(200, (), request.method.encode() + b" " + request.target + b" " + body)


async def until_closed(stream: Stream) -> bytes:
    data = b""
    while received := await stream.receive_some():
        data += bytes(received)
    return data


async def exchange(stream: Stream, request: bytes) -> bytes:
    """The body of the answer."""
    await stream.send_all(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += bytes(await stream.receive_some())
    head, _, rest = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(rest) < length:
        rest += bytes(await stream.receive_some())
    return rest


async def test_one_connection_many_requests(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(told) as (_, listener):
        stream = await listener.connect()
        assert await exchange(stream, b"GET /a?b HTTP/1.1\r\nhost: x\r\n\r\n") == b"GET /a?b "
        assert await exchange(stream, b"PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc") == b"PUT /b abc"
        chunked = b"PUT /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        assert await exchange(stream, chunked) == b"PUT /c abc"
        both = b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        await stream.send_all(both)
        data = await until_closed(stream)
        assert data.count(b"HTTP/1.1 200") == 2


async def test_the_body_is_asked_for_when_it_is_wanted(autojump_clock: trio.testing.MockClock) -> None:
    async def refused(request: Request) -> Response:
        return Response(403, (), b"no")

    head = b"PUT /b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
    async with serving(told) as (_, listener):
        stream = await listener.connect()
        await stream.send_all(head)
        assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 100")
        assert await exchange(stream, b"abc") == b"PUT /b abc"
    async with serving(refused) as (_, listener):
        stream = await listener.connect()
        await stream.send_all(head)
        assert (await until_closed(stream)).startswith(b"HTTP/1.1 403 Forbidden\r\n")


@pytest.mark.parametrize("step", [0.9, 61])
async def test_a_slow_body_is_given_up(autojump_clock: trio.testing.MockClock, step: float) -> None:
    """One that is silent for a minute, and one that comes byte by byte."""
    async with serving(told) as (_, listener):
        stream = await listener.connect()
        await stream.send_all(b"PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        began = trio.current_time()

        async def drip() -> None:
            with trio.move_on_after(600):
                while True:
                    await trio.sleep(step)
                    await stream.send_all(b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            data = await until_closed(stream)
            nursery.cancel_scope.cancel()
        assert data.startswith(b"HTTP/1.1 400")
        assert b"RequestTimeout" in data
        assert trio.current_time() - began < 130


@pytest.mark.parametrize(("sent", "limit"), [(b"", 31), (b"GET / HTTP/1.1\r\n", 31)])
async def test_a_head_that_does_not_come(autojump_clock: trio.testing.MockClock, sent: bytes, limit: float) -> None:
    async with serving(told) as (_, listener):
        stream = await listener.connect()
        if sent:
            await stream.send_all(sent)
        began = trio.current_time()
        assert await until_closed(stream) == b""
        assert trio.current_time() - began < limit


async def test_an_answer_that_nobody_reads(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is closed, without a line in the log."""

    async def large(request: Request) -> Response:
        return Response(200, (), bytes(1000))

    async with serving(large) as (_, listener):
        client, server = trio.testing.lockstep_stream_pair()
        await listener._send.send(server)
        await client.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.sleep(100)
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")
    assert caplog.records == []


async def test_white_space_until_it_is_done(autojump_clock: trio.testing.MockClock) -> None:
    def answer(end: bytes | S3Error) -> Answers:
        async def later() -> bytes:
            await trio.sleep(35)
            if isinstance(end, S3Error):
                raise end
            return end

        async def answers(request: Request) -> Response:
            return Response(200, (), later=later)

        return answers

    for end, word in ((b"<Done/>", b"<Done/>"), (S3Error("InvalidPart"), b"<Code>InvalidPart</Code>")):
        async with serving(answer(end)) as (_, listener):
            stream = await listener.connect()
            await stream.send_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            data = await until_closed(stream)
            assert data.startswith(b"HTTP/1.1 200 OK")
            assert data.count(b"1\r\n \r\n") == 3
            assert word in data


async def test_the_end_waits_for_what_is_under_way_but_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async def slow(request: Request) -> Response:
        await trio.sleep(float(request.target[1:]))
        return Response(200)

    server, listener = Server(slow, Limits(grace=30)), Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        idle, short, long = [await listener.connect() for _ in range(3)]
        await short.send_all(b"GET /5 HTTP/1.1\r\nhost: x\r\n\r\n")
        await long.send_all(b"GET /500 HTTP/1.1\r\nhost: x\r\n\r\n")
        await trio.sleep(1)
        began = trio.current_time()
        server.stop()
        assert await until_closed(idle) == b""
        assert trio.current_time() == began
        assert (await until_closed(short)).startswith(b"HTTP/1.1 200")
        assert await until_closed(long) == b""
        assert trio.current_time() - began <= 31
    assert server.stopped.is_set()
