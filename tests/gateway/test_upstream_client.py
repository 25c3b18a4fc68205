"""Requests to an upstream that ends, hangs, refuses or closes at any place. It is a few lines on a socket here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from s3fsx.errors import ConfigError
from s3fsx.gateway.checksums import named
from s3fsx.gateway.chunked import Decoder
from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.http import Server
from s3fsx.gateway.messages import Request, Response, Stream
from s3fsx.gateway.upstream.client import Ask, Client, CutError, Place, Waits
from s3fsx.gateway.upstream.passing import CHUNK, Framed, headers_of, path_of, query_of, refuse
from s3fsx.s3.sign import UNSIGNED, Keys

Script = Callable[[trio.SocketStream], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def upstream(script: Script, waits: Waits | None = None, most: int = 4) -> AsyncIterator[Client]:
    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await script(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        client = Client(Place("127.0.0.1", port, False), Keys("a", "s"), "us-east-1", None, waits=waits, most=most)
        yield client
        client.close()
        nursery.cancel_scope.cancel()


async def head_of(stream: trio.SocketStream) -> bytes:
    """With what came of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some() or b"\r\n\r\n"
    return data


def saying(*answers: bytes, hang: bool = False) -> Script:
    """These, one for each request of a connection."""

    async def script(stream: trio.SocketStream) -> None:
        for answer in answers:
            await head_of(stream)
            await stream.send_all(answer)
        if hang:
            await trio.sleep_forever()

    return script


async def got(client: Client, ask: Ask | None = None) -> bytes:
    answer = await client.ask(ask or Ask("GET", "/b/k"))
    try:
        return await answer.read(1 << 20)
    finally:
        answer.close()


async def test_an_answer_cut_short_is_no_short_object() -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"1" * 50,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ):
        async with upstream(saying(answer)) as client:
            with pytest.raises(CutError):
                await got(client)


async def test_a_silent_upstream_is_given_up() -> None:
    async with upstream(saying(b"", hang=True), Waits(answer=0.3)) as client:
        with pytest.raises(S3Error, match="no answer in") as found:
            await got(client)
        assert (found.value.code, found.value.status, found.value.headers[0][0]) == (
            "ServiceUnavailable",
            503,
            "Retry-After",
        )
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n1"
    async with upstream(saying(begun, hang=True), Waits(silence=0.3)) as client:
        with pytest.raises(CutError, match="nothing more"):
            await got(client)


async def test_an_upstream_that_reads_nothing_is_given_up() -> None:
    async with upstream(saying(b"HTTP/1.1 100 Continue\r\n\r\n", hang=True), Waits(silence=0.3)) as client:
        with pytest.raises(S3Error, match="reads nothing"):
            await client.ask(Ask("PUT", "/b/k", "", {}, bytes(64 << 20), 64 << 20, UNSIGNED))


async def test_nobody_listens() -> None:
    async with upstream(saying()) as client:
        pass
    with pytest.raises(S3Error, match="no connection"):
        await got(client)


async def test_a_connection_is_used_again_and_one_that_has_ended_is_not() -> None:
    connections = 0
    ended = trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        for _ in range(3):
            await head_of(stream)
            await stream.send_all(OK)
        await stream.aclose()  # without having said so
        ended.set()

    async with upstream(script) as client:
        for number in range(1, 8):
            assert await got(client) == b"ok"
            if not number % 3:
                await ended.wait()
                ended = trio.Event()
        assert connections == 3


async def test_a_connection_that_ends_under_a_request() -> None:
    """It was waiting when the request went: asked again on a new one, but for a POST, which may have been done."""

    async def script(stream: trio.SocketStream) -> None:
        await head_of(stream)
        await stream.send_all(OK)
        await head_of(stream)

    async with upstream(script) as client:
        assert await got(client) == b"ok"
        assert await got(client, Ask("DELETE", "/b/k")) == b"ok"
        with pytest.raises(S3Error, match="closed the connection"):
            await got(client, Ask("POST", "/b/k"))


async def test_connections_are_bounded() -> None:
    async with upstream(saying(OK, OK), Waits(room=0.2), most=1) as client:
        first = await client.ask(Ask("GET", "/b/k"))
        with pytest.raises(S3Error, match="SlowDown"):
            await client.ask(Ask("GET", "/b/k"))
        first.close()
        assert await got(client) == b"ok"


async def test_a_refusal_comes_before_the_body() -> None:
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(4):
            taken += 1
            yield bytes(1 << 20)

    no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    async with upstream(saying(no, hang=True)) as client:
        answer = await client.ask(Ask("PUT", "/b/k", "", {}, pieces(), 4 << 20, UNSIGNED))
        answer.close()
        assert (answer.status, taken) == (403, 0)


async def test_a_wrong_body_never_comes_to_its_end() -> None:
    received = 0
    ended = trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        nonlocal received
        _, _, body = (await head_of(stream)).partition(b"\r\n\r\n")
        received = len(body)
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        while data := await stream.receive_some():
            received += len(data)
        ended.set()

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        raise S3Error("BadDigest")

    async with upstream(script) as client:
        with pytest.raises(S3Error, match="BadDigest"):
            await client.ask(Ask("PUT", "/b/k", "", {}, pieces(), 2 << 20, UNSIGNED))
        await ended.wait()
        assert received == 1 << 20


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_frames_are_what_the_gateway_reads(length: int) -> None:
    framed = Framed(length, named("CRC32"))
    data = bytes(range(256)) * (length // 256 + 1)
    encoded = b"".join(
        bytes(piece) for at in range(0, length, 300_000) for piece in framed.feed(data[:length][at : at + 300_000])
    )
    encoded += framed.end("AAAAAA==")
    assert len(encoded) == framed.length
    decoder = Decoder(length, None, trailer=True)
    assert b"".join(decoder.feed(encoded)) == data[:length]
    assert decoder.finish() == {"x-amz-checksum-crc32": "AAAAAA=="}


def test_only_what_is_known_passes() -> None:
    assert query_of("tagging", {"tagging": "", "acl": "", "versionId": "1", "X-Amz-Signature": "x"}) == (
        "tagging=&versionId=1"
    )
    given = {"content-type": "a", "x-amz-date": "d", "authorization": "s", "x-amz-acl": "private", "x-amz-meta-é": "1"}
    assert headers_of({**given, "content-encoding": "aws-chunked,gzip"}) == {
        "content-type": "a",
        "x-amz-meta-é": "1",
        "content-encoding": "gzip",
    }
    for name, value in (("x-amz-acl", "public-read"), ("x-amz-grant-read", "id=1")):
        with pytest.raises(S3Error, match="NotImplemented"):
            refuse({name: value})
    assert path_of("b", "a/./..b/ü") == "/b/a/./..b/%C3%BC"
    for key in ("../other/x", "a/../../x", ".."):
        with pytest.raises(S3Error, match="InvalidURI"):
            path_of("b", key)


def test_urls_of_upstreams() -> None:
    assert Place.parse("https://s3.example.org").header == "s3.example.org"
    assert Place.parse("http://[::1]:9000/").header == "[::1]:9000"
    for url in ("s3.example.org", "ftp://x", "http://h/path", "http://h:x", "http://key:secret@h"):
        with pytest.raises(ConfigError) as found:
            Place.parse(url)
        assert "secret" not in str(found.value)


async def spoken(pieces: AsyncIterator[bytes], length: int | None) -> tuple[bytes, bool]:
    """What the gateway's server makes of such an answer, and whether it was closed."""
    closed = trio.Event()

    async def answers(request: Request) -> Response:
        return Response(200, (), Stream(pieces, length, closed.set))

    server = Server(answers)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(server.serve, listeners)
        stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b""
            while more := await stream.receive_some():
                data += more
        server.stop()
        await server.stopped.wait()
    return data.partition(b"\r\n\r\n")[2], closed.is_set()


@pytest.mark.parametrize("cut", [False, True])
async def test_streams_as_a_client_sees_them(cut: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"12"
        yield b"345"
        if cut:
            raise CutError("the upstream has ended an answer early")

    assert await spoken(pieces(), None) == (b"2\r\n12\r\n3\r\n345\r\n" + b"0\r\n\r\n" * (not cut), True)
    assert await spoken(pieces(), 5 + cut) == (b"12345", True)
