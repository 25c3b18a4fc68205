"""The pure parts below S3Store: bodies, error tables, parameters, answers."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx import errors
from s3fsx.errors import BadRange, Changed, ConfigError, ConnectionFailed, NotSupported, Rejected, ServerFault, TooLarge
from s3fsx.s3 import answers
from s3fsx.s3.body import BLOCK, Body, TwoFacedBody, check_crcs, crc32_header, crc32_of_header, md5
from s3fsx.s3.errors import MAX_MESSAGE, from_answer, from_failure, may_want_tls, one_line, seconds_to_wait
from s3fsx.s3.options import S3Options
from s3fsx.s3.params import ParamMaker
from s3fsx.store.objects import Payload, UploadedPart

CHUNKS = st.lists(st.binary(max_size=9) | st.integers(1, 3 * BLOCK).map(bytes), max_size=6)


def payload(chunks: list[bytes]) -> Payload:
    whole = Payload.of(b"".join(chunks))
    return Payload(tuple(chunks), whole.size, whole.grains)


# Bodies.


@given(CHUNKS, st.integers(1, 1 << 20))
def test_a_body_gives_its_bytes_in_bounded_blocks(chunks: list[bytes], amount: int) -> None:
    body, blocks = Body(payload(chunks)), []
    assert len(body) == sum(map(len, chunks))
    for block in iter(lambda: body.read(amount), b""):
        assert 0 < len(block) <= BLOCK
        assert isinstance(block, memoryview)  # nothing is copied
        blocks.append(bytes(block))
        assert body.tell() == sum(map(len, blocks))
    assert b"".join(blocks) == b"".join(chunks)
    assert body.read(amount) == b""


@given(CHUNKS, st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(-100, 3 * BLOCK)), max_size=5))
def test_seeking_a_body(chunks: list[bytes], moves: list[tuple[int, int]]) -> None:
    data, body = b"".join(chunks), Body(payload(chunks))
    position = 0
    for whence, offset in moves:
        position = min(max((0, position, len(data))[whence] + offset, 0), len(data))
        assert body.seek(offset, whence) == body.tell() == position
        block = bytes(body.read(1))
        assert block == data[position : position + len(block)]
        assert block or position == len(data)
        body.seek(position)
    assert body.read() == data[position:]


def test_a_body_can_be_interrupted_between_blocks() -> None:
    calls = 0

    def interrupted() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    body = Body(payload([bytes(10 * BLOCK)]), interrupted)
    with pytest.raises(KeyboardInterrupt):
        body.read()
    assert body.tell() == 2 * BLOCK


def test_a_body_of_two_faces() -> None:
    body = TwoFacedBody(Payload.of(b"signed"), Payload.of(b"sent!!"))
    assert body.read() == b"signed"
    body.seek(0)
    assert body.read() == b"sent!!"


@given(CHUNKS)
def test_checksums(chunks: list[bytes]) -> None:
    good = payload(chunks)
    check_crcs(good, "PUT")
    assert md5(good) == hashlib.md5(b"".join(chunks)).hexdigest()
    assert crc32_of_header(crc32_header(good.crc32)) == good.crc32
    with pytest.raises(errors.Corrupted):
        check_crcs(Payload((*good.chunks, b"x"), good.size, good.grains), "PUT")


def test_checksum_headers() -> None:
    assert crc32_header(0xCBF43926) == "y/Q5Jg=="  # of "123456789"
    assert crc32_of_header(None) is None
    assert crc32_of_header("y/Q5Jg==-2") is None


# Errors.


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", errors.NotFound),
        (404, "404", errors.NotFound),
        (404, "NoSuchBucket", errors.BucketMissing),
        (404, "NoSuchUpload", errors.UploadGone),
        (403, "AccessDenied", errors.AccessDenied),
        (403, "403", errors.AccessDenied),
        (403, "InvalidAccessKeyId", errors.AccessDenied),
        (403, "RequestTimeTooSkewed", errors.AccessDenied),
        (403, "QuotaExceeded", errors.QuotaExceeded),
        (507, "", errors.QuotaExceeded),
        (400, "EntityTooLarge", errors.TooLarge),
        (413, "", errors.TooLarge),
        (412, "PreconditionFailed", errors.Changed),
        (416, "InvalidRange", errors.BadRange),
        (501, "NotImplemented", errors.NotSupported),
        (405, "MethodNotAllowed", errors.NotSupported),
        (503, "SlowDown", errors.Throttled),
        (503, "", errors.Throttled),
        (429, "", errors.Throttled),
        (500, "InternalError", errors.ServerFault),
        (502, "", errors.ServerFault),
        (200, "", errors.ServerFault),
        (200, "SlowDown", errors.Throttled),
        (400, "RequestTimeout", errors.ConnectionFailed),
        (400, "BadDigest", errors.Corrupted),
        (400, "XAmzContentSHA256Mismatch", errors.Corrupted),
        (400, "InvalidPart", errors.Rejected),
        (301, "PermanentRedirect", errors.Rejected),
        (409, "ConditionalRequestConflict", errors.Transient),
        (418, "", errors.Rejected),
    ],
)
def test_answers(status: int, code: str, expected: type) -> None:
    assert type(from_answer("GET k", status, code, "why")) is expected


def test_what_is_locked_is_not_just_denied() -> None:
    text = "Access Denied because object protected by object lock."
    assert type(from_answer("DELETE k", 403, "AccessDenied", text)) is errors.ObjectLocked


def test_texts_are_one_clear_line() -> None:
    assert str(from_answer("GET dump/x", 403, "AccessDenied", "No.")) == "GET dump/x: 403 AccessDenied: No."
    assert "clock" in str(from_answer("LIST", 403, "RequestTimeTooSkewed"))
    assert str(from_answer("HEAD k", 404, "404", "Not Found")) == "HEAD k: 404: Not Found"
    assert str(from_answer("X", 500, "")) == "X: 500"


@given(st.text(max_size=2000))
def test_one_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= MAX_MESSAGE


def test_retry_after() -> None:
    error = from_answer("GET", 503, "SlowDown", "", seconds_to_wait("7"))
    assert isinstance(error, errors.Throttled)
    assert error.retry_after == 7
    assert seconds_to_wait(None) is None
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") is None


@pytest.mark.parametrize(
    ("kinds", "reason", "expected", "words"),
    [
        (["EndpointConnectionError", "ConnectionError"], "[Errno 111] refused", ConnectionFailed, "cannot connect"),
        (
            ["ReadTimeoutError", "HTTPClientError"],
            "HTTPPool(host='h', port=80): Read timed out.",
            ConnectionFailed,
            "h:80",
        ),
        (["SSLError"], "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed", Rejected, "ca_file"),
        (["SSLError"], "[SSL: WRONG_VERSION_NUMBER] wrong version number", Rejected, "http://"),
        (["SSLError"], "EOF occurred in violation of protocol", ConnectionFailed, "TLS"),
        (["ProxyConnectionError", "ConnectionError"], "no route", ConnectionFailed, "proxy"),
        (["NoCredentialsError", "BotoCoreError"], "Unable to locate", errors.AccessDenied, "access_key"),
        (["ProfileNotFound"], "The config profile (x) could not be found", ConfigError, "profile"),
        (["ParamValidationError"], "bad\nvalue", Rejected, "valid"),
        (["ResponseParserError"], "invalid XML", ServerFault, "unreadable"),
        (["IncompleteReadError"], "3 of 5", ConnectionFailed, "short"),
        (["ConnectionResetError", "OSError"], "[Errno 104] reset", ConnectionFailed, "reset"),
        (["KeyError", "LookupError"], "'ETag'", ServerFault, "KeyError: 'ETag'"),
    ],
)
def test_failures(kinds: list[str], reason: str, expected: type, words: str) -> None:
    error = from_failure("GET k", kinds, reason)
    assert type(error) is expected
    assert str(error).startswith("GET k: ")
    assert words in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("kinds", "reason", "line"),
    [
        (
            ["ConnectionClosedError", "HTTPClientError"],
            "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
            "LIST: connection lost: Remote end closed connection without response",
        ),
        (
            ["ConnectionClosedError", "HTTPClientError"],
            "('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))",
            "LIST: connection lost: Connection reset by peer",
        ),
        (
            ["ProxyConnectionError", "ConnectionError"],
            "('Unable to connect to proxy', NewConnectionError(\"AWSHTTPConnection(host='10.0.0.1', port=3128): "
            'Failed to establish a new connection: [Errno 111] Connection refused"))',
            "LIST: the proxy cannot be reached: 10.0.0.1:3128: Connection refused",
        ),
        (  # urllib3 1.26, Debian 12: our own class, made in a function
            ["NewConnectionError", "HTTPError"],
            "<s3fsx.s3.wire.limit_time.<locals>.Connection object at 0x7f4aad0a4e10>: Failed to establish a new "
            "connection: [Errno 111] Connection refused",
            "LIST: cannot connect: Failed to establish a new connection: [Errno 111] Connection refused",
        ),
        (
            ["NoCredentialsError", "BotoCoreError"],
            "Unable to locate credentials",
            "LIST: no credentials found: set access_key and secret_key, or credentials_file",
        ),
    ],
)
def test_failures_without_the_libraries_wrapping(kinds: list[str], reason: str, line: str) -> None:
    assert str(from_failure("LIST", kinds, reason)) == line


@pytest.mark.parametrize(
    ("endpoint", "reason", "expected"),
    [
        ("http://s:443", "connection lost: Remote end closed connection without response", True),
        ("http://s:443", "400: The plain HTTP request was sent to HTTPS port", True),
        ("http://s:443", "cannot connect: s:443: Connection refused", False),
        ("https://s", "connection lost: Remote end closed connection without response", False),
        ("", "connection lost: Connection reset by peer", False),
    ],
)
def test_a_plain_request_to_a_tls_port_is_suspected(endpoint: str, reason: str, expected: bool) -> None:
    assert may_want_tls(endpoint, reason) is expected


# Options and parameters.


def test_secrets_are_not_shown() -> None:
    options = S3Options("b", access_key="AK", secret_key="s3cr3t", session_token="t0k3n", proxy="http://u:pw@p")
    for secret in ["s3cr3t", "t0k3n", "pw"]:
        assert secret not in repr(options)


def test_new_objects_get_their_class_and_encryption() -> None:
    make = ParamMaker(S3Options("b", storage_class="STANDARD_IA", sse="aws:kms", sse_kms_key_id="id"))
    assert make.new_object({"a": "1"}) == {
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "id",
        "Metadata": {"a": "1"},
    }
    assert ParamMaker(S3Options("b")).new_object(None) == {}


def test_completing_names_every_part_in_order() -> None:
    make, parts = ParamMaker(S3Options("b")), [UploadedPart(1, 5, "aa", 0xCBF43926), UploadedPart(3, 5, "bb")]
    entries = make.complete("k", "u", parts, checksums=True)["MultipartUpload"]["Parts"]
    assert entries == [
        {"PartNumber": 1, "ETag": '"aa"', "ChecksumCRC32": "y/Q5Jg=="},
        {"PartNumber": 3, "ETag": '"bb"'},
    ]
    assert "ChecksumCRC32" not in make.complete("k", "u", parts, checksums=False)["MultipartUpload"]["Parts"][0]
    for bad in ([], parts[::-1], [parts[0], parts[0]]):
        with pytest.raises(Rejected):
            make.complete("k", "u", bad, checksums=True)
    with pytest.raises(TooLarge):
        make.part("k", "u", 10_001)


# Answers.


def answer(first: int, last: int, total: int, **more: Any) -> dict[str, Any]:
    given = {"ETag": '"e"', "ContentLength": last - first + 1, "ContentRange": f"bytes {first}-{last}/{total}"}
    return given | more


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(10, 19, 100), None),
        (answer(10, 19, 100, ETag='W/"e"'), None),
        (answer(10, 19, 100, ETag='"other"'), Changed),
        (answer(10, 14, 15), BadRange),
        (answer(0, 9, 100), ServerFault),
        (answer(10, 20, 100), ServerFault),
        (answer(10, 19, 100, ContentLength=9), ConnectionFailed),
        ({"ETag": '"e"', "ContentLength": 100}, NotSupported),
    ],
)
def test_only_the_range_that_was_asked_for_is_read(given: dict[str, Any], expected: type[Exception] | None) -> None:
    if expected is None:
        answers.check_range(given, "GET k", 10, 10, "e")
        return
    with pytest.raises(expected):
        answers.check_range(given, "GET k", 10, 10, "e")


def test_a_whole_object_without_content_range_will_do() -> None:
    answers.check_range({"ContentLength": 10, "ETag": '"e"'}, "GET k", 0, 10, "e")


def test_names_are_decoded_only_where_the_store_says_it_encoded_them() -> None:
    assert answers.decoder({"EncodingType": "url"})("a+b%2Bc%20d%0A%C3%BC") == "a b+c d\nü"
    assert answers.decoder({"EncodingType": "url"})("bad%FF") == "bad\udcff"
    assert answers.decoder({})("a+b%2B") == "a+b%2B"


def test_a_page_without_the_token_it_needs_is_a_fault() -> None:
    with pytest.raises(ServerFault):
        answers.page({"IsTruncated": True})


def test_the_etag_of_an_object_in_parts() -> None:
    one, two = (hashlib.md5(data) for data in (b"one", b"two"))
    parts = [UploadedPart(1, 3, one.hexdigest()), UploadedPart(2, 3, two.hexdigest())]
    assert answers.composite_etag(parts) == hashlib.md5(one.digest() + two.digest()).hexdigest() + "-2"
    assert answers.composite_etag([UploadedPart(1, 3, "not hex")]) == ""


def test_times() -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    meta = {"HTTPHeaders": {"date": "Fri, 20 Nov 2026 12:00:00 GMT"}}
    assert answers.answered_at({"ResponseMetadata": meta}) == at.timestamp()
    info = answers.head("k", {"ContentLength": 1, "LastModified": at, "Metadata": {"Mode": "1"}, "ETag": '"e"'})
    assert (info.modified, info.metadata, info.etag) == (at.timestamp(), {"mode": "1"}, "e")
