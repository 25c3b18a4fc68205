"""Uploads by HTML forms, as boto3 presigns them, and what a policy does not allow."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.form import Parser
from tests.s3server import S3Server


@pytest.fixture
def bucket(gateway: S3Server) -> str:
    return gateway.make_bucket("form")


def send(url: str, fields: dict[str, str], data: bytes, name: str = "f.txt") -> requests.Response:
    return requests.post(url, data=fields, files={"file": (name, data)}, timeout=30, allow_redirects=False)


def test_as_boto3_presigns_it(gateway: S3Server, bucket: str) -> None:
    c = gateway.client
    form = c.generate_presigned_post(
        bucket,
        "up/${filename}",
        Fields={"Content-Type": "text/x", "success_action_status": "201", "x-amz-meta-a": "ü"},
        Conditions=[
            ["starts-with", "$Content-Type", "text/"],
            {"success_action_status": "201"},
            ["starts-with", "$x-amz-meta-a", ""],
            ["content-length-range", 2, 1000],
        ],
    )
    answer = send(form["url"], form["fields"], b"data")
    assert (answer.status_code, "<Key>up/f.txt</Key>" in answer.text) == (201, True)
    found = c.get_object(Bucket=bucket, Key="up/f.txt")
    assert (found["Body"].read(), found["ContentType"]) == (b"data", "text/x")
    for data, code in ((b"1", "EntityTooSmall"), (b"1" * 1001, "EntityTooLarge")):
        answer = send(form["url"], form["fields"], data, "other")
        assert (answer.status_code, code in answer.text) == (400, True)
    changed = {**form["fields"], "Content-Type": "image/x"}
    assert send(form["url"], changed, b"data").status_code == 403
    assert send(form["url"], {**form["fields"], "x-amz-meta-b": "1"}, b"data").status_code == 403
    assert send(form["url"], {**form["fields"], "x-ignore-b": "1"}, b"data").status_code == 201
    assert [o["Key"] for o in c.list_objects_v2(Bucket=bucket)["Contents"]] == ["up/f.txt"]


def signed(gateway: S3Server, policy: Any, **fields: str) -> dict[str, str]:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    text = base64.b64encode(json.dumps(policy).encode() if not isinstance(policy, bytes) else policy).decode()
    key = f"AWS4{gateway.secret_key}".encode()
    for step in (stamp[:8], gateway.region, "s3", "aws4_request", text):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{gateway.access_key}/{stamp[:8]}/{gateway.region}/s3/aws4_request",
        "x-amz-date": stamp,
        "policy": text,
        "x-amz-signature": key.hex(),
        **fields,
    }


def test_policies(gateway: S3Server, bucket: str) -> None:
    until = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    free = [["starts-with", f"${name}", ""] for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-date")]
    conditions = [{"bucket": bucket}, ["starts-with", "$key", "foo"], *free]
    good: dict[str, Any] = {"expiration": until, "conditions": conditions}
    url = f"{gateway.endpoint}/{bucket}"

    def attempt(policy: Any, key: str = "foo.txt", **more: str) -> tuple[int, str]:
        answer = send(url, signed(gateway, policy, key=key, **more), b"1")
        return answer.status_code, answer.text.partition("<Code>")[2].partition("</Code>")[0]

    assert attempt(good) == (204, "")
    named = {**good, "conditions": [conditions[0], ["starts-with", "$key", "f.t"], *free]}  # f.txt
    assert attempt(named, key="${filename}") == (204, "")
    assert attempt(good, key="${filename}") == (403, "AccessDenied")
    assert attempt(good, key="bar") == (403, "AccessDenied")
    assert attempt({**good, "expiration": "2020-01-01T00:00:00Z"}) == (403, "AccessDenied")
    assert attempt({**good, "expiration": "never"}) == (400, "InvalidPolicyDocument")
    assert attempt({**good, "expiration": until.replace("T", " ")}) == (400, "InvalidPolicyDocument")
    # A checksum needs no condition: it can only refuse.
    assert attempt(good, **{"x-amz-checksum-crc32": "g9zvtw=="}) == (204, "")
    assert attempt(good, **{"x-amz-checksum-crc32": "AAAAAA=="}) == (400, "BadDigest")
    assert attempt({**good, "conditions": []}) == (400, "InvalidPolicyDocument")
    assert attempt({"expiration": until}) == (400, "InvalidPolicyDocument")
    assert attempt({**good, "conditions": [*conditions, ["content-length-range", 0]]}) == (400, "InvalidPolicyDocument")
    assert attempt(b"nonsense") == (400, "InvalidPolicyDocument")
    assert attempt({**good, "conditions": [*conditions, {"acl": "private"}]}) == (403, "AccessDenied")
    assert attempt(good, **{"x-amz-signature": "0" * 64}) == (403, "SignatureDoesNotMatch")
    assert attempt(good, **{"x-amz-credential": "nobody/x"})[0] in (400, 403)
    redirect = {**good, "conditions": [*conditions, ["eq", "$success_action_redirect", "http://x/y"]]}
    answer = send(url, signed(gateway, redirect, key="foo", success_action_redirect="http://x/y"), b"1")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"http://x/y?bucket={bucket}&key=foo&etag=%22")
    assert requests.post(url, data={"key": "foo"}, files={"file": b"1"}, timeout=30).status_code == 403


def test_a_field_that_no_header_can_carry(gateway: S3Server, bucket: str) -> None:
    """It would be metadata that no GET could tell."""
    for name in ("x-amz-meta-a", "x-amz-meta-a b"):
        form = gateway.client.generate_presigned_post(bucket, "x", Conditions=[["starts-with", f"${name}", ""]])
        answer = send(form["url"], {**form["fields"], name: "1\n2" if name.endswith("a") else "1"}, b"data")
        assert (answer.status_code, "InvalidArgument" in answer.text) == (400, True)


FIELDS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text("ab\r\n-x", max_size=12), max_size=4)


@given(FIELDS, st.binary(max_size=300), st.integers(1, 50))
def test_a_form_in_pieces(fields: dict[str, str], data: bytes, step: int) -> None:
    boundary = "x-y"
    if b"--x-y" in data or any("--x-y" in value for value in fields.values()):
        return
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    body += b'--x-y\r\nContent-Disposition: form-data; name="file"; filename="a/b"\r\nContent-Type: x/y\r\n\r\n'
    body += data + b"\r\n--x-y--\r\n"
    parser = Parser(f"multipart/form-data; boundary={boundary}")
    file = b"".join(piece for at in range(0, len(body), step) for piece in parser.feed(body[at : at + step]))
    assert (parser.fields, file, parser.filename, parser.ended) == (fields, data, "b", True)


@given(st.binary(max_size=200))
def test_nonsense_is_an_error(data: bytes) -> None:
    parser = Parser("multipart/form-data; boundary=b")
    try:
        assert list(parser.feed(data)) == []
    except S3Error as error:
        assert error.status == 400  # noqa: PT017  # it may raise and may wait for more
