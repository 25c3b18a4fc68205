"""Signatures and streamed bodies, against botocore's and the examples of Amazon's documentation."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.gateway import sigv4
from s3fsx.gateway.chunked import Decoder
from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.target import parse

KEYS = Credentials("AKID", "secret-secret")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
WORDS = st.text("ab  c+%=", max_size=12)


def asked_of(request: Any, headers: dict[str, str]) -> sigv4.Asked:
    prepared = request.prepare()
    split = urlsplit(prepared.url)
    raw = split.path + (f"?{split.query}" if split.query else "")
    target = parse(raw.encode(), "h:1", ())
    found = [(n.lower(), v.decode("latin-1") if isinstance(v, bytes) else str(v)) for n, v in prepared.headers.items()]
    return sigv4.Asked(request.method, target.path, target.pairs, [*found, ("host", "h:1")])


@given(TEXT, st.dictionaries(TEXT.filter(bool), TEXT, max_size=3), WORDS)
def test_a_header_signature_of_botocore_is_true(key: str, query: dict[str, str], meta: str) -> None:
    url = f"http://h:1/bucket/{quote(key, safe='/~')}"
    request = AWSRequest("PUT", url, params=query, headers={"x-amz-meta-a": meta}, data=b"data")
    S3SigV4Auth(KEYS, "s3", "eu-x").add_auth(request)
    asked = asked_of(request, {})
    claim = sigv4.claim_of(asked)
    assert claim is not None
    sigv4.verify(asked, claim, "secret-secret", "eu-x", time.time())
    for secret, region, shift in (
        ("other-secret", "eu-x", 0),
        ("secret-secret", "us", 0),
        ("secret-secret", "eu-x", 1000),
    ):
        with pytest.raises(S3Error):
            sigv4.verify(asked, claim, secret, region, time.time() + shift)
    for changed in (
        sigv4.Asked("GET", asked.path, asked.query, asked.headers),
        sigv4.Asked("PUT", asked.path + b"x", asked.query, asked.headers),
        sigv4.Asked("PUT", asked.path, [*asked.query, (b"zz", b"")], asked.headers),
        sigv4.Asked("PUT", asked.path, asked.query, [*asked.headers, ("x-amz-acl", "private")]),
    ):
        with pytest.raises(S3Error):
            sigv4.verify(changed, claim, "secret-secret", "eu-x", time.time())


@given(TEXT, TEXT)
def test_a_presigned_url_of_botocore_is_true_until_it_expires(key: str, value: str) -> None:
    request = AWSRequest("GET", f"http://h:1/bucket/{quote(key, safe='/~')}", params={"response-content-type": value})
    S3SigV4QueryAuth(KEYS, "s3", "eu-x", expires=60).add_auth(request)
    asked = asked_of(request, {})
    claim = sigv4.claim_of(asked)
    assert claim is not None
    assert claim.presigned
    sigv4.verify(asked, claim, "secret-secret", "eu-x", time.time())
    with pytest.raises(S3Error, match="expired"):
        sigv4.verify(asked, claim, "secret-secret", "eu-x", time.time() + 62)
    with pytest.raises(S3Error, match="not yet valid"):
        sigv4.verify(asked, claim, "secret-secret", "eu-x", time.time() - 1000)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("AWS4-HMAC-SHA256 nonsense", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0", "AuthorizationHeaderMalformed"),
        ("AWS HAHAHA", "InvalidArgument"),
        ("AWS a:b", "InvalidRequest"),
        ("Bearer x", "InvalidArgument"),
        ("AWS4-ECDSA-P256-SHA256 x", "NotImplemented"),
    ],
)
def test_what_is_no_authorization_is_refused(header: str, code: str) -> None:
    with pytest.raises(S3Error) as found:
        sigv4.claim_of(sigv4.Asked("GET", b"/", (), [("authorization", header), ("host", "h")]))
    assert found.value.code == code


def test_an_empty_authorization_is_anonymous() -> None:
    assert sigv4.claim_of(sigv4.Asked("GET", b"/", (), [("authorization", "")])) is None


# The example of "Transferring Payload in Multiple Chunks": 66 560 times "a" in two chunks.
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SEED = sigv4.Seed(
    sigv4.signing_key(SECRET, "20130524", "us-east-1", "s3"),
    "20130524T000000Z",
    "20130524/us-east-1/s3/aws4_request",
    "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
)
CHUNKS = (
    (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)


def example(last: str = "\r\n") -> bytes:
    return b"".join(
        f"{size:x};chunk-signature={signature}\r\n".encode() + b"a" * size + (b"\r\n" if size else last.encode())
        for size, signature in CHUNKS
    )


def decoded(decoder: Decoder, body: bytes, step: int) -> bytes:
    out = b"".join(piece for at in range(0, len(body), step) for piece in decoder.feed(body[at : at + step]))
    decoder.finish()
    return out


@pytest.mark.parametrize("step", [1, 7, 4096, 100_000])
def test_amazons_example_of_signed_chunks(step: int) -> None:
    assert decoded(Decoder(66560, SEED, trailer=False), example(), step) == b"a" * 66560


@given(st.integers(0, 66700), st.integers(0, 255))
def test_no_byte_of_signed_chunks_can_be_changed(at: int, byte: int) -> None:
    body = bytearray(example())
    changed = body[at % len(body)] != byte
    body[at % len(body)] = byte
    decoder = Decoder(66560, SEED, trailer=False)
    try:
        whole = decoded(decoder, bytes(body), 5000)
    except S3Error:
        assert changed
    else:
        assert whole == b"a" * 66560  # in a line's end, or the case of a digit


@given(st.integers(0, 66800))
def test_a_streamed_body_that_ends_early_is_incomplete(length: int) -> None:
    body = example()[:length]
    if length >= len(example()) - 2:
        return
    with pytest.raises(S3Error):
        decoded(Decoder(66560, SEED, trailer=False), body, 5000)


def test_unsigned_chunks_with_a_trailer() -> None:
    body = b"5\r\nhello\r\n3\r\nyou\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    for step in (1, 3, 100):
        decoder = Decoder(8, None, trailer=True)
        assert decoded(decoder, body, step) == b"helloyou"
        assert decoder.trailers == {"x-amz-checksum-crc32": "AAAAAA=="}


def test_signed_trailers() -> None:
    """By the rules of "Including Trailing Headers"; changed in value or signature they are refused."""
    chunk = sigv4.chunk_signature(SEED, SEED.signature, hashlib.sha256(b"hello").hexdigest())
    last = sigv4.chunk_signature(SEED, chunk, sigv4.EMPTY)
    trailer = sigv4.trailer_signature(SEED, last, [("x-amz-checksum-crc32c", "sOO8/Q==")])
    body = (
        f"5;chunk-signature={chunk}\r\nhello\r\n0;chunk-signature={last}\r\n"
        f"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{trailer}\r\n\r\n"
    ).encode()
    decoder = Decoder(5, SEED, trailer=True)
    assert decoded(decoder, body, 9) == b"hello"
    assert decoder.trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}
    for wrong in (body.replace(b"sOO8", b"sOO9"), re.sub(rb"x-amz-trailer-signature.*\r\n\r\n", b"\r\n", body)):
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            decoded(Decoder(5, SEED, trailer=True), wrong, 9)


@given(st.binary(max_size=60), st.booleans())
def test_no_chunked_nonsense_is_more_than_an_error(body: bytes, trailer: bool) -> None:
    decoder = Decoder(5, None, trailer=trailer)
    with contextlib.suppress(S3Error):
        assert len(decoded(decoder, body, 4)) == 5
