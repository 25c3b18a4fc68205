"""The requests that are made without botocore, beside what boto3 sends for the same call: the same line, the same
headers, the same signature."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from s3fsx.s3.body import Body
from s3fsx.s3.client import ClientMaker
from s3fsx.s3.http import Answer, Plain
from s3fsx.s3.lean import LeanClient, learn
from s3fsx.s3.options import S3Options
from s3fsx.s3.sign import Keys, authorization
from s3fsx.s3.wire import Exchange, Unfit, Wire
from s3fsx.store.objects import Payload

BUCKET = "backups"
KEYS: dict[str, Any] = {"access_key": "AKID", "secret_key": "testsecret"}
PLACES = {
    "path": S3Options(BUCKET, "http://127.0.0.1:9000", **KEYS),
    "path below a directory": S3Options(BUCKET, "https://store.test/s3", region="eu-1", **KEYS),
    "default port": S3Options(BUCKET, "https://store.test:443", **KEYS),
    "IPv6": S3Options(BUCKET, "http://[::1]:9000", **KEYS),
    "virtual": S3Options(BUCKET, "https://store.test", addressing="virtual", **KEYS),
    "Amazon": S3Options(BUCKET, region="eu-central-1", **KEYS),
    "Amazon, oldest region": S3Options(BUCKET, **KEYS),
    "Amazon, path": S3Options(BUCKET, region="eu-central-1", addressing="path", **KEYS),
    "a session": S3Options(BUCKET, "http://127.0.0.1:9000", session_token="to/ken+1==", **KEYS),
}
# What botocore adds to itself (the MD5 of a body before 1.36, where what arrived is verified anyway), or http.client to
# what it is given.
NOT_S3 = {
    "content-md5",
    "user-agent",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "accept-encoding",
    "host",
    "x-amz-date",
}


@dataclass(frozen=True)
class Sent:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Both:
    """One client, which sends nothing, and keeps what boto3 would have sent and what is sent without it."""

    def __init__(self, options: S3Options, name: str) -> None:
        self.client: LeanClient = ClientMaker(options)(name)
        self.boto3: list[Sent] = []
        self.lean: list[Sent] = []
        self.client._client._endpoint.http_session.send = self._instead
        self.client._make_wire = self._wire

    def _instead(self, request: Any) -> AWSResponse:
        headers = {k.lower(): v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()}
        url = urlsplit(request.url)
        body = request.body.read() if hasattr(request.body, "read") else request.body or b""
        self.boto3.append(Sent(request.method, f"{url.path}?{url.query}" if url.query else url.path, headers, body))
        headers["host"] = url.netloc
        return AWSResponse(request.url, 200, {"content-length": "0"}, Nothing())

    def _wire(self, url: str) -> Wire:
        sent = self.lean

        class Recorder(Wire):
            def __init__(self) -> None:
                self.redirects = False

            def ask(self, method: str, head: bytes, blocks: Any) -> Exchange:
                first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
                verb, target, version = first.split(" ")
                assert (verb, version) == (method, "HTTP/1.1")
                headers = dict(line.split(": ", 1) for line in lines)
                sent.append(Sent(method, target, headers, b"".join(blocks)))
                exchange = Exchange(None, None)
                exchange.plain = Plain(204 if method == "DELETE" else 200, {}, 0)
                exchange.answer = Answer(None, 1, None)  # type: ignore[arg-type]
                return exchange

        return Recorder()

    def call(self, name: str, **params: Any) -> tuple[Sent, Sent]:
        """What boto3 and what we send."""
        bodies = {"Body": params["Body"]} if "Body" in params else {}
        for target in (self.client._client, self.client):
            if bodies:
                params["Body"] = Body(Payload.of(bodies["Body"]))
            getattr(target, name)(Bucket=BUCKET, **params)
        return self.boto3[-1], self.lean[-1]


class Nothing:
    def stream(self, _: int = 0) -> list[bytes]:
        return []

    def read(self, _: int | None = None) -> bytes:
        return b""


def query(sent: Sent) -> list[str]:
    """botocore orders it when it signs, and not in the line."""
    return sorted(sent.target.partition("?")[2].split("&"))


def without(headers: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in NOT_S3 and name not in names}


def compare(options: S3Options, theirs: Sent, ours: Sent) -> None:
    assert (ours.method, ours.body) == (theirs.method, theirs.body)
    assert ours.target.partition("?")[0] == theirs.target.partition("?")[0]
    assert query(ours) == query(theirs)
    assert without(ours.headers, "authorization") == without(theirs.headers, "authorization")
    assert ours.headers["host"] in (theirs.headers["host"], theirs.headers["host"].removesuffix(":443"))
    # The same signature, of the headers that boto3 has signed and at its time.
    claimed = theirs.headers["authorization"]
    signed = claimed.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: theirs.headers.get(name, "") for name in signed} | {"host": ours.headers["host"]}
    keys = Keys("AKID", "testsecret")
    path, _, _ = theirs.target.partition("?")
    assert authorization(keys, options.region, theirs.method, path, "&".join(query(theirs)), headers) == claimed
    # And ours is over all that matters.
    ours_signed = ours.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert set(ours_signed) == set(ours.headers) - {"authorization", "user-agent", "accept-encoding", "content-length"}


@pytest.fixture(scope="module")
def both() -> dict[tuple[str, str], Both]:
    return {}


def of(both: dict[tuple[str, str], Both], place: str, name: str = "signed") -> Both:
    if (place, name) not in both:
        both[place, name] = Both(PLACES[place], name)
    return both[place, name]


@pytest.mark.parametrize("place", PLACES)
def test_every_operation_everywhere(both: dict[tuple[str, str], Both], place: str) -> None:
    options = PLACES[place]
    for name in ("signed", "unsigned") if place == "path" else ("signed",):
        here = of(both, place, name)
        calls: dict[str, dict[str, Any]] = {
            "get_object": {"Key": "dump/a b", "Range": "bytes=5-9", "IfMatch": '"e"'},
            "head_object": {"Key": "x"},
            "put_object": {
                "Key": "ü/+%20",
                "Body": b"body" * 100_000,
                "Metadata": {"mode": "33188", "s3fsx-write": "a  b".replace("  ", " ")},
                "ChecksumCRC32": "AAAAAA==",
                "StorageClass": "STANDARD_IA",
                "ServerSideEncryption": "aws:kms",
                "SSEKMSKeyId": "arn:aws:kms:eu-1:1:key/2",
            },
            "upload_part": {"Key": "k", "UploadId": "2~a/b+c==", "PartNumber": 17, "Body": b"part"},
            "delete_object": {"Key": "k"},
            "list_objects_v2": {
                "Prefix": "dump/ü b",
                "MaxKeys": 1000,
                "EncodingType": "url",
                "Delimiter": "/",
                "ContinuationToken": "a+b/c=",
            },
        }
        for method, params in calls.items():
            if method == "list_objects_v2":
                here.client._learnt()
                with no_answer():
                    here.call(method, **params)
                compare(options, here.boto3[-1], here.lean[-1])
            else:
                compare(options, *here.call(method, **params))


@contextmanager
def no_answer() -> Iterator[None]:
    """Nothing can be made of one here."""
    with pytest.raises(AttributeError):
        yield


ODD = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | st.text(" %+./~?#&=;:@!$'()*,é", min_size=1)


@settings(max_examples=150)
@given(key=ODD, place=st.sampled_from(sorted(PLACES)))
def test_any_key(both: dict[tuple[str, str], Both], key: str, place: str) -> None:
    theirs, ours = of(both, place).call("get_object", Key=key)
    compare(PLACES[place], theirs, ours)


@settings(max_examples=100)
@given(
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    upload=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
)
def test_any_metadata_and_upload(both: dict[tuple[str, str], Both], value: str, upload: str) -> None:
    here = of(both, "path")
    compare(PLACES["path"], *here.call("put_object", Key="k", Body=b"1", Metadata={"name": value}))
    compare(PLACES["path"], *here.call("upload_part", Key="k", Body=b"1", UploadId=upload, PartNumber=3))


@pytest.mark.parametrize(
    "params",
    [
        {"Key": "k", "Metadata": {"name": " blank"}, "Body": b""},
        {"Key": "k", "Metadata": {"name": "two  blanks"}, "Body": b""},
        {"Key": "k", "SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32, "Body": b""},
        {"Key": "k", "ACL": "private", "Body": b""},
    ],
)
def test_what_is_not_usual_is_left_to_boto3(both: dict[tuple[str, str], Both], params: dict[str, Any]) -> None:
    here = of(both, "default port")
    before = len(here.boto3), len(here.lean)
    here.client.put_object(Bucket=BUCKET, **params)
    assert (len(here.boto3), len(here.lean)) == (before[0] + 1, before[1])


@pytest.mark.parametrize(
    ("url", "said", "words"),
    [
        ("https://b.s3.test/k", "AWS4-ECDSA-P256-SHA256 Credential=a/20260101/s3/aws4_request, S", "another way"),
        ("https://b.s3.test/k", "AWS4-HMAC-SHA256 Credential=a/20260101/r/s3express/aws4_request, S", "another way"),
        ("https://b.s3.test/k", "AWS AKID:signature", "another way"),
        ("https://b.s3.test/k", "", "another way"),
        ("https://b.s3.test/k?x=1", "AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request, S", "another way"),
        ("https://b.s3.test/other", "AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request, S", "another kind"),
    ],
)
def test_another_kind_of_store_is_not_learnt(url: str, said: str, words: str) -> None:
    with pytest.raises(Unfit, match=words):
        learn(url, said, "k")


@pytest.mark.parametrize(
    "options",
    [
        S3Options("backups--use1-az4--x-s3", region="us-east-1", **KEYS),
        S3Options("arn:aws:s3:eu-1:123456789012:accesspoint/name", region="eu-1", **KEYS),
        S3Options(BUCKET, "http://127.0.0.1:9", proxy="http://127.0.0.1:8", **KEYS),
    ],
    ids=["express", "access point", "proxy"],
)
def test_an_unusual_place_is_left_to_boto3_with_one_line(options: S3Options, caplog: pytest.LogCaptureFixture) -> None:
    client: LeanClient = ClientMaker(options)("unsigned")
    with caplog.at_level(logging.INFO, "s3fsx.s3lean"):
        assert client._learnt() is None
        assert client._learnt() is None
    assert [record.levelname for record in caplog.records if "made by boto3" in record.message] == ["INFO"]


def test_a_botocore_that_is_another_one_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    client: LeanClient = ClientMaker(PLACES["path"])("unsigned")
    del client._client._endpoint.http_session._manager
    with caplog.at_level(logging.INFO, "s3fsx.s3lean"):
        assert client._learnt() is None
    assert "another one" in caplog.text
