"""One exchange on a socket: what is plain is read here, every other answer is left to http.client byte for byte."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.s3.http import MAX_HEAD, REST, Answer, AnswerIO, head_of, parse_head, send

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        yield ours, theirs


def said(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("iso-8859-1")


def test_a_plain_head() -> None:
    plain = parse_head(said('HTTP/1.1 206 Partial Content\nContent-Length: 7\nETag:"a" \nX-Amz-Meta-A:  b c'))
    assert plain is not None
    assert (plain.status, plain.length, plain.reusable) == (206, 7, True)
    assert plain.headers == {"content-length": "7", "etag": '"a"', "x-amz-meta-a": "b c"}
    closing = parse_head(said("HTTP/1.1 204\nConnection: close"))
    assert closing is not None
    assert (closing.length, closing.reusable) == (None, False)


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 103 Early Hints\nContent-Length: 0",
        "HTTP/1.0 200 OK\nContent-Length: 0",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "ICY 200 OK",
        "",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2",
        "HTTP/1.1 200 OK\nContent-Length: -1",
        "HTTP/1.1 200 OK\nContent-Length: 1_000",
        "HTTP/1.1 200 OK\nContent-Length: " + "9" * 60,
        "HTTP/1.1 200 OK\nContent-Length: \xb2",
        "HTTP/1.1 200 OK\nA: b\n folded",
        "HTTP/1.1 200 OK\nno colon",
        "HTTP/1.1 200 OK\nblank : x",
        "HTTP/1.1 200 OK\nA: b\0",
        "HTTP/1.1 200 OK\n" + "\n".join(f"h{n}: x" for n in range(101)),
    ],
)
def test_what_is_not_plain(head: str) -> None:
    assert parse_head(said(head)) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_it(head: bytes) -> None:
    parse_head(head)
    parse_head(b"HTTP/1.1 200 OK\r\n" + head)


@given(
    st.dictionaries(
        st.text("abcdefghij-", min_size=1).map(lambda name: "x" + name),
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f\x85\xa0")).map(str.strip),
        max_size=8,
    )
)
def test_it_sees_what_http_client_sees(headers: dict[str, str]) -> None:
    head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    plain = parse_head(head.encode("iso-8859-1").removesuffix(b"\r\n"))
    assert plain is not None
    theirs = http.client.parse_headers(io.BytesIO(head.encode("iso-8859-1").partition(b"\r\n")[2] + b"\r\n"))
    assert plain.headers == {name.lower(): value.strip() for name, value in theirs.items()}


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "grün\u6f22"])
def test_nothing_comes_into_a_request_that_is_no_header(value: str) -> None:
    with pytest.raises(ValueError, match=r"line break|ascii|codec"):
        head_of("GET", "/k", {"a": value})
    with pytest.raises(ValueError, match=r"line break|ascii|codec"):
        head_of("GET", f"/{value}", {})


def test_a_body_comes_into_one_piece_whatever_the_pieces_on_the_wire(pair: Pair) -> None:
    ours, theirs = pair
    body = bytes(range(256)) * 4096
    whole = said("HTTP/1.1 200 OK\nContent-Length: 1048576\n\n") + body + b"next"

    def trickle() -> None:
        for at in range(0, len(whole), 50_001):
            theirs.sendall(whole[at : at + 50_001])

    thread = threading.Thread(target=trickle)
    thread.start()
    answer = Answer(ours, 30, 30)
    plain = answer.head()
    assert plain is not None
    assert plain.length == len(body)
    assert answer.read(len(body)) == body
    thread.join()
    assert answer.read(4) == b"next"


class Unwanted(Exception):
    pass


@pytest.mark.parametrize(("length", "given_up"), [(REST + (64 << 10), True), (REST, False)])
def test_a_body_that_nobody_wants_is_given_up_while_much_is_left(pair: Pair, length: int, given_up: bool) -> None:
    ours, theirs = pair
    answer = Answer(ours, 30, 30)
    asked = 0

    def interrupted() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Unwanted

    theirs.sendall(said(f"HTTP/1.1 200 OK\nContent-Length: {length}\n\n"))
    assert answer.head() is not None
    if given_up:
        theirs.sendall(bytes(1000))
        with pytest.raises(Unwanted):
            answer.read(length, interrupted)
    else:
        thread = threading.Thread(target=theirs.sendall, args=(bytes(length),))
        thread.start()
        assert answer.read(length, interrupted) == bytes(length)
        thread.join()
        assert not asked


def test_a_short_body_is_short(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(said("HTTP/1.1 200 OK\nContent-Length: 9\n\n") + b"abc")
    theirs.close()
    answer = Answer(ours, 5, 5)
    assert answer.head() is not None
    assert answer.read(9) == b"abc"


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 60_000 + b"\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_what_is_not_plain_is_left_to_http_client(pair: Pair, whole: bytes) -> None:
    ours, theirs = pair

    def tell() -> None:
        theirs.sendall(whole)
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=tell)
    thread.start()
    answer = Answer(ours, 5, 5)
    assert answer.head() is None

    class Begun:
        def makefile(self, _: str) -> io.BufferedReader:
            return io.BufferedReader(AnswerIO(answer))

    response = http.client.HTTPResponse(Begun())  # type: ignore[arg-type]
    response.begin()
    assert (response.status, response.read()) == (200, b"abc")
    thread.join()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
def test_it_ends_however_busy_the_other_side_is(pair: Pair, head: bytes) -> None:
    ours, theirs = pair
    over = threading.Event()

    def drip() -> None:
        theirs.sendall(head)
        while not over.wait(0.05):
            theirs.send(b"x") if head.endswith(b" ") else None

    thread = threading.Thread(target=drip)
    thread.start()
    start = time.monotonic()
    answer = Answer(ours, 0.5, 10)
    with pytest.raises(TimeoutError):
        _ = answer.head(), answer.read(9)
    assert time.monotonic() - start < 5
    over.set()
    thread.join()


def test_silence_ends_it_earlier(pair: Pair) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        Answer(pair[0], 60, 0.2).head()
    assert time.monotonic() - start < 10


def test_a_head_without_end_is_not_kept(pair: Pair) -> None:
    ours, theirs = pair
    theirs.setblocking(False)
    thread = threading.Thread(target=endless, args=(theirs, b"a: b\r\n" * 1000))
    thread.start()
    answer = Answer(ours, 5, 5)
    assert answer.head() is None
    assert len(answer.came) < 2 * MAX_HEAD
    ours.close()
    thread.join()


def endless(sock: socket.socket, piece: bytes) -> None:
    sock.settimeout(5)
    try:
        while True:
            sock.sendall(piece)
    except OSError:
        return


def test_an_answer_before_the_end_of_the_body_is_heard(pair: Pair) -> None:
    """A store that refuses closes before it has read everything."""
    ours, theirs = pair
    refusal = said("HTTP/1.1 403 Forbidden\nContent-Length: 0\n\n")

    def refuse() -> None:
        theirs.recv(1)
        theirs.sendall(refusal)
        theirs.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    send(ours, b"PUT", (bytes(1 << 20) for _ in range(64)))
    answer = Answer(ours, 5, 5).head()
    assert answer is not None
    assert answer.status == 403
    thread.join()


@pytest.mark.parametrize("sizes", [[], [0], [10], [16 << 10], [20 << 10], [10, 1 << 20], [1 << 20, 10]])
def test_what_is_sent_is_head_and_body(pair: Pair, sizes: list[int]) -> None:
    ours, theirs = pair
    blocks = [memoryview(bytes([n]) * size) for n, size in enumerate(sizes)]
    got = bytearray()

    def take() -> None:
        while piece := theirs.recv(65536):
            got.extend(piece)

    thread = threading.Thread(target=take)
    thread.start()
    send(ours, b"HEAD", blocks)
    ours.shutdown(socket.SHUT_WR)
    thread.join()
    assert got == b"HEAD" + b"".join(blocks)
