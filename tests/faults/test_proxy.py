"""The proxy does what its rules say, and nothing else."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.faultkinds import (
    ERROR_DOCUMENT,
    SERVER_ERROR,
    SERVER_ERROR_AFTER,
    SLOW_DOWN_1S,
    CutShort,
    Delay,
    Fault,
    Flip,
    Meanwhile,
    Reset,
    Stall,
)
from tests.faultproxy import FaultProxy, Rule
from tests.s3server import S3Server

BODY = os.urandom(200_000)
SIGNED = "AWS4-HMAC-SHA256 Credential=any/20261120/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@pytest.fixture
def near(open_gateway: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(open_gateway.endpoint, seed=7) as running:
        yield running


class Client:
    """Raw HTTP, because boto3 repairs too much. this server checks no signature."""

    def __init__(self, proxy: FaultProxy, bucket: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=5)
        self.bucket = bucket

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        self.connection.request(method, f"/{self.bucket}/{path}", body, {"Authorization": SIGNED})
        answer = self.connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


@pytest.fixture
def client(near: FaultProxy, open_gateway: S3Server) -> Iterator[Client]:
    raw = Client(near, open_gateway.make_bucket("proxy"))
    yield raw
    raw.connection.close()


def get(client: Client) -> bytes:
    status, _, body = client.ask("GET", "k")
    assert status == 200
    return body


@pytest.fixture
def stored(client: Client, open_gateway: S3Server) -> bytes:
    open_gateway.view(client.bucket).put("k", BODY)
    return BODY


def test_without_rules_nothing_is_changed(near: FaultProxy, open_gateway: S3Server) -> None:
    bucket = open_gateway.make_bucket("proxy")
    through: Any = replace(open_gateway, endpoint=near.endpoint)
    view = through.view(bucket)
    view.put("a b+c", BODY, colour="blue")  # boto3 sends Expect: 100-continue with it
    assert open_gateway.view(bucket).body("a b+c") == view.body("a b+c") == BODY
    assert view.metadata("a b+c") == {"colour": "blue"}
    assert view.keys() == ["a b+c"]
    s3 = through.client
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a b+c"})
    upload = {"Bucket": bucket, "Key": "m", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]}
    etag = s3.upload_part(**upload, PartNumber=1, Body=BODY)["ETag"]
    s3.upload_part_copy(**upload, PartNumber=2, CopySource={"Bucket": bucket, "Key": "copy"})
    s3.list_parts(**upload)
    assert view.uploads() == ["m"]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    other = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=other)
    view.delete("copy")
    s3.head_bucket(Bucket=bucket)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "m"}]})
    assert open_gateway.view(bucket).keys() == ["a b+c"]
    assert near.seen == {
        "PUT": 1,
        "GET": 1,
        "HEAD": 1,
        "LIST": 1,
        "COPY": 1,
        "CREATE UPLOAD": 2,
        "PUT PART": 1,
        "COPY PART": 1,
        "LIST PARTS": 1,
        "LIST UPLOADS": 1,
        "COMPLETE": 1,
        "ABORT": 1,
        "DELETE": 1,
        "HEAD BUCKET": 1,
        "DELETE MANY": 1,
    }
    assert not near.injected
    s3.close()


def test_which_requests_a_rule_is_for(near: FaultProxy, client: Client, stored: bytes) -> None:
    near.add(Rule(SERVER_ERROR, {"GET"}, "^k$", skip=1, times=2))
    assert [client.ask("GET", "k")[0] for _ in range(5)] == [200, 500, 500, 200, 200]
    assert client.ask("GET", "other")[0] == 404
    assert near.injected == {"Refuse": 2}
    near.add(Rule(SERVER_ERROR, {"GET"}, probability=0.5))
    assert 5 < [client.ask("GET", "k")[0] for _ in range(40)].count(500) < 35
    near.clear()
    assert get(client) == stored


def test_refusals_before_and_after_the_effect(near: FaultProxy, client: Client, open_gateway: S3Server) -> None:
    near.add(Rule(SERVER_ERROR, {"PUT"}, "^before"))
    near.add(Rule(SERVER_ERROR_AFTER, {"PUT"}, "^after"))
    assert client.ask("PUT", "before", BODY)[0] == 500
    status, _, text = client.ask("PUT", "after", BODY)
    assert status == 500
    assert b"<Code>InternalError</Code>" in text
    assert open_gateway.view(client.bucket).keys() == ["after"]
    assert open_gateway.view(client.bucket).body("after") == BODY


def test_an_error_document_with_200_and_a_wish_to_wait(near: FaultProxy, client: Client, stored: bytes) -> None:
    with near.fault(Rule(ERROR_DOCUMENT, times=1), Rule(SLOW_DOWN_1S)):
        status, _, text = client.ask("GET", "k")
        assert (status, text[:4]) == (200, b"<?xm")
        status, headers, _ = client.ask("GET", "k")
        assert (status, headers["retry-after"]) == (503, "1")
        assert client.ask("HEAD", "k") == (503, client.ask("HEAD", "k")[1], b"")
    assert get(client) == stored


@pytest.mark.parametrize("at", ["request", "request body", "answer"])
def test_resets(near: FaultProxy, client: Client, open_gateway: S3Server, at: Any) -> None:
    near.add(Rule(Reset(at), times=1))
    with pytest.raises(ConnectionError):
        client.ask("PUT", "k", BODY * 20)
    client.connection.close()
    assert open_gateway.view(client.bucket).keys() == (["k"] if at == "answer" else [])


@pytest.mark.parametrize("fault", [Reset("answer body"), CutShort(honest=True)])
def test_half_an_answer(near: FaultProxy, client: Client, stored: bytes, fault: Fault) -> None:
    near.add(Rule(fault, times=1))
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        get(client)
    client.connection.close()
    assert get(client) == stored


def test_half_an_answer_that_claims_to_be_whole(near: FaultProxy, client: Client, stored: bytes) -> None:
    near.add(Rule(CutShort(honest=False), times=1))
    assert get(client) == stored[: len(stored) // 2]
    assert get(client) == stored


def test_flipped_bits(near: FaultProxy, client: Client, open_gateway: S3Server, stored: bytes) -> None:
    near.add(Rule(Flip("answer"), {"GET"}, times=1))
    got = get(client)
    assert sum(a != b for a, b in zip(got, stored, strict=True)) == 1
    near.add(Rule(Flip("request", at=0.999), {"PUT"}, times=1))
    client.ask("PUT", "f", BODY)
    wrong = open_gateway.view(client.bucket).body("f")
    assert [i for i, (a, b) in enumerate(zip(wrong, BODY, strict=True)) if a != b] == [199_800]


def test_latency_and_somebody_else(near: FaultProxy, client: Client, open_gateway: S3Server, stored: bytes) -> None:
    view = open_gateway.view(client.bucket)
    near.add(Rule(Delay(0.1, Meanwhile(lambda request: view.put(request.key, b"new"))), {"GET"}, times=1))
    begin = time.monotonic()
    assert get(client) == b"new"
    assert time.monotonic() - begin > 0.1


def test_a_stall_lasts_until_the_rule_goes(near: FaultProxy, client: Client, open_gateway: S3Server) -> None:
    rule = near.add(Rule(Stall(effect=True), {"PUT"}))
    client.connection.timeout = 0.5
    with pytest.raises(TimeoutError):
        client.ask("PUT", "k", BODY)
    assert open_gateway.view(client.bucket).body("k") == BODY
    assert client.connection.sock is not None
    near.remove(rule)
    assert client.connection.sock.recv(1) == b""
    client.connection.close()
    assert get(client) == BODY


def test_a_black_hole_takes_nothing_and_gives_it_back(near: FaultProxy, client: Client, stored: bytes) -> None:
    def connect(times: int) -> None:
        with ExitStack() as held:
            for _ in range(times):
                held.enter_context(socket.create_connection((client.connection.host, client.connection.port), 0.3))

    client.connection.timeout = 0.3
    with near.black_hole():
        with pytest.raises(TimeoutError):
            get(client)
        with pytest.raises(TimeoutError):
            connect(5)  # one is accepted, one waits in the backlog
    client.connection.close()
    client.connection.timeout = 5
    assert get(client) == stored
    connect(5)
