"""Rules of S3 that clients seldom meet: which error for which mistake, and what stands in which header."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.test_api import MIB, code
from tests.s3server import S3Server

KEY = base64.b64encode(b"k" * 32).decode()
KEY_MD5 = base64.b64encode(hashlib.md5(b"k" * 32, usedforsecurity=False).digest()).decode()


@pytest.fixture
def bucket(gateway: S3Server) -> str:
    return gateway.make_bucket("rules")


@pytest.fixture
def c(gateway: S3Server) -> Any:
    return gateway.client


def sent(gateway: S3Server, headers: dict[str, str], name: str = "PutObject") -> Any:
    """A client that sends these headers too, whatever boto3 thinks of them. The caller closes it."""
    client = gateway.new_client()
    client.meta.events.register(f"before-call.s3.{name}", lambda params, **_: params["headers"].update(headers))
    return client


def test_deletes_with_conditions(c: Any, bucket: str) -> None:
    def made() -> Any:
        c.put_object(Bucket=bucket, Key="x", Body=b"123")
        return c.head_object(Bucket=bucket, Key="x")

    def gone(**condition: Any) -> bool:
        found = c.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "x", **condition}]})
        assert [e["Code"] for e in found.get("Errors", ())] in ([], ["PreconditionFailed"])
        return "Errors" not in found

    past = datetime(2015, 1, 1, tzinfo=UTC)
    x = made()
    assert code(lambda: c.delete_object(Bucket=bucket, Key="x", IfMatch='"other"')) == ("PreconditionFailed", 412)
    assert not gone(ETag='"other"')
    c.delete_object(Bucket=bucket, Key="x", IfMatch=x["ETag"])
    # Nothing is there: what was asked for is so.
    c.delete_object(Bucket=bucket, Key="x", IfMatch='"other"')
    assert gone(ETag='"other"')
    made()
    assert not gone(Size=4)
    assert gone(Size=3)
    x = made()
    assert not gone(LastModifiedTime=past)
    assert gone(LastModifiedTime=x["LastModified"])
    made()
    parameters = {"Bucket": bucket, "Key": "x"}
    if "IfMatchSize" in c.meta.service_model.operation_model("DeleteObject").input_shape.members:
        assert code(lambda: c.delete_object(**parameters, IfMatchSize=4)) == ("PreconditionFailed", 412)
        assert code(lambda: c.delete_object(**parameters, IfMatchLastModifiedTime=past)) == ("PreconditionFailed", 412)


def test_when_an_object_is_going_to_expire(c: Any, bucket: str) -> None:
    rule: dict[str, Any] = {"ID": "one day", "Status": "Enabled", "Expiration": {"Days": 1}}
    rule["Filter"] = {"Tag": {"Key": "k", "Value": "v"}}
    c.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    assert "Expiration" not in c.put_object(Bucket=bucket, Key="x", Body=b"1")
    told = c.put_object(Bucket=bucket, Key="x", Body=b"1", Tagging="k=v")["Expiration"]
    assert told == c.head_object(Bucket=bucket, Key="x")["Expiration"]
    day = (datetime.now(UTC) + timedelta(days=2)).strftime("%a, %d %b %Y 00:00:00 GMT")
    assert told == f'expiry-date="{day}", rule-id="one%20day"'


def test_transitions_with_a_wrong_date(c: Any, bucket: str) -> None:
    rule: dict[str, Any] = {"ID": "1", "Filter": {"Prefix": ""}, "Status": "Enabled"}
    rule["Transitions"] = [{"Date": datetime(2030, 1, 1, 5, tzinfo=UTC), "StorageClass": "GLACIER"}]
    put = functools.partial(
        c.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    assert code(put) == ("InvalidArgument", 400)
    rule["Transitions"][0]["Date"] = datetime(2030, 1, 1, tzinfo=UTC)
    assert code(put) == ("NotImplemented", 501)


def test_a_tag_without_a_value(c: Any, gateway: S3Server, bucket: str) -> None:
    client = sent(gateway, {"x-amz-tagging": "foo=bar&bar"})
    client.put_object(Bucket=bucket, Key="x", Body=b"1")
    client.close()
    tags = [{"Key": "bar", "Value": ""}, {"Key": "foo", "Value": "bar"}]  # in order
    assert c.get_object_tagging(Bucket=bucket, Key="x")["TagSet"] == tags


@pytest.mark.parametrize("tagging", ["=", "=value", "key%", "a=1&a=1"])
def test_a_header_of_tags_that_cannot_be_read(gateway: S3Server, bucket: str, tagging: str) -> None:
    client = sent(gateway, {"x-amz-tagging": tagging})
    try:
        assert code(lambda: client.put_object(Bucket=bucket, Key="x", Body=b"1")) == ("InvalidArgument", 400)
    finally:
        client.close()


def test_an_escape_in_the_source_of_a_copy(c: Any, gateway: S3Server, bucket: str) -> None:
    c.put_object(Bucket=bucket, Key="100%", Body=b"1")
    c.copy_object(Bucket=bucket, Key="y", CopySource={"Bucket": bucket, "Key": "100%"})  # sent as 100%25
    client = sent(gateway, {"x-amz-copy-source": f"{bucket}/100%"}, "CopyObject")
    try:
        copy = functools.partial(client.copy_object, Bucket=bucket, Key="y", CopySource=f"{bucket}/x")
        assert code(copy) == ("InvalidArgument", 400)
    finally:
        client.close()


def test_versions_are_named_only_where_they_are_made(c: Any, bucket: str) -> None:
    assert "VersionId" not in c.put_object(Bucket=bucket, Key="x", Body=b"1")
    c.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert "VersionId" not in c.put_object(Bucket=bucket, Key="x", Body=b"1")
    upload = {"Bucket": bucket, "Key": "y"}
    upload["UploadId"] = c.create_multipart_upload(**upload)["UploadId"]
    etag = c.upload_part(**upload, PartNumber=1, Body=b"1")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    assert "VersionId" not in c.complete_multipart_upload(**upload, MultipartUpload=parts)
    c.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert c.put_object(Bucket=bucket, Key="x", Body=b"1")["VersionId"] != "null"


@pytest.mark.parametrize("period", [{"Days": 0}, {"Years": -1}])
def test_no_time_of_retention(c: Any, gateway: S3Server, period: dict[str, int]) -> None:
    locked = gateway.make_bucket("lock", object_lock=True)
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", **period}}}
    put = functools.partial(c.put_object_lock_configuration, Bucket=locked, ObjectLockConfiguration=lock)
    assert code(put) == ("InvalidRetentionPeriod", 400)


def test_governance_becomes_compliance_only_with_the_bypass(c: Any, gateway: S3Server) -> None:
    locked = gateway.make_bucket("lock", object_lock=True)
    until = (datetime.now(UTC) + timedelta(seconds=100)).replace(microsecond=0)
    c.put_object(Bucket=locked, Key="x", Body=b"", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)
    retention = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
    put = functools.partial(c.put_object_retention, Bucket=locked, Key="x", Retention=retention)
    assert code(put) == ("AccessDenied", 403)
    put(BypassGovernanceRetention=True)
    assert c.get_object_retention(Bucket=locked, Key="x")["Retention"] == retention


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"": "AES256", "-customer-algorithm": "AES256"}, "InvalidArgument"),
        ({"": "aws:kms", "-customer-algorithm": "AES256"}, "InvalidArgument"),
        ({"": "AES256", "-aws-kms-key-id": "k"}, "InvalidArgument"),
        ({"": "aes:kms"}, "InvalidArgument"),
        ({"-customer-algorithm": "AES256"}, "InvalidArgument"),
        ({"-customer-key": KEY, "-customer-key-md5": KEY_MD5}, "InvalidArgument"),
        ({"-customer-algorithm": "AES256", "-customer-key": KEY}, "InvalidArgument"),
        (
            {"-customer-algorithm": "AES256", "-customer-key": KEY, "-customer-key-md5": "AAAAAAAAAAAAAAAAAAAAAA=="},
            "InvalidArgument",
        ),
        ({"-customer-algorithm": "AES256", "-customer-key": KEY, "-customer-key-md5": KEY_MD5}, "NotImplemented"),
        ({"": "AES256"}, "NotImplemented"),
        ({"": "aws:kms", "-aws-kms-key-id": "k"}, "NotImplemented"),
    ],
)
def test_encryption_is_refused(gateway: S3Server, bucket: str, headers: dict[str, str], wanted: str) -> None:
    client = sent(gateway, {f"x-amz-server-side-encryption{name}": value for name, value in headers.items()})
    try:
        found = code(lambda: client.put_object(Bucket=bucket, Key="x", Body=b"1"))
    finally:
        client.close()
    assert found == (wanted, 501 if wanted == "NotImplemented" else 400)


def test_reading_as_if_it_were_encrypted(c: Any, gateway: S3Server, bucket: str) -> None:
    c.put_object(Bucket=bucket, Key="x", Body=b"1")
    client = sent(gateway, {"x-amz-server-side-encryption": "AES256"}, "GetObject")
    try:
        assert code(lambda: client.get_object(Bucket=bucket, Key="x")) == ("InvalidRequest", 400)
    finally:
        client.close()


def test_checksums_of_parts(c: Any, gateway: S3Server, bucket: str) -> None:
    bodies = [b"A" * (5 * MIB), b"B"]
    hashes = [hashlib.sha256(body).digest() for body in bodies]
    texts = [base64.b64encode(digest).decode() for digest in hashes]
    whole = base64.b64encode(hashlib.sha256(b"".join(hashes)).digest()).decode() + "-2"
    upload = {"Bucket": bucket, "Key": "x"}
    upload["UploadId"] = c.create_multipart_upload(**upload, ChecksumAlgorithm="SHA256")["UploadId"]
    parts = []
    for number, (body, text) in enumerate(zip(bodies, texts, strict=True), start=1):
        part = c.upload_part(**upload, PartNumber=number, Body=body, ChecksumSHA256=text)
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": text})
    complete = functools.partial(c.complete_multipart_upload, **upload, MultipartUpload={"Parts": parts})
    assert code(lambda: complete(ChecksumSHA256="bad")) == ("BadDigest", 400)
    assert code(lambda: complete(ChecksumSHA256=whole, ChecksumSHA1="x")) == ("InvalidRequest", 400)
    if "ChecksumType" in c.meta.service_model.operation_model("CompleteMultipartUpload").input_shape.members:
        assert code(lambda: complete(ChecksumType="FULL_OBJECT")) == ("InvalidRequest", 400)
    made = complete(ChecksumSHA256=whole)
    assert (made["ChecksumSHA256"], made["ChecksumType"]) == (whole, "COMPOSITE")
    assert complete(ChecksumSHA256=whole)["ChecksumSHA256"] == whole  # again
    for number, text in enumerate(texts, start=1):
        found = c.head_object(Bucket=bucket, Key="x", PartNumber=number, ChecksumMode="ENABLED")
        assert found["ChecksumSHA256"] == text


def test_attributes_of_parts(c: Any, bucket: str) -> None:
    upload = {"Bucket": bucket, "Key": "x"}
    upload["UploadId"] = c.create_multipart_upload(**upload)["UploadId"]
    parts = []
    for number, body in enumerate((b"1" * (5 * MIB), b"2" * (5 * MIB), b"3"), start=1):
        parts.append({"PartNumber": number, "ETag": c.upload_part(**upload, PartNumber=number, Body=body)["ETag"]})
    c.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    asked = {"Bucket": bucket, "Key": "x", "ObjectAttributes": ["ObjectParts"]}
    told = c.get_object_attributes(**asked)["ObjectParts"]
    assert told["TotalPartsCount"] == 3
    assert [part["Size"] for part in told["Parts"]] == [5 * MIB, 5 * MIB, 1]
    told = c.get_object_attributes(**asked, MaxParts=1, PartNumberMarker=1)["ObjectParts"]
    assert (told["IsTruncated"], told["NextPartNumberMarker"], told["TotalPartsCount"]) == (True, 2, 3)
    assert [part["PartNumber"] for part in told["Parts"]] == [2]


def raw(gateway: S3Server, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(gateway.endpoint).netloc, timeout=20)
    try:
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_chunked_body_without_a_length(gateway: S3Server, bucket: str) -> None:
    url = gateway.client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "x"})
    path = url.removeprefix(gateway.endpoint)
    status, body = raw(gateway, "PUT", path, {"Transfer-Encoding": "chunked"})
    assert (status, b"<Code>NotImplemented</Code>" in body) == (501, True)
    status, body = raw(gateway, "PUT", path, {})
    assert (status, b"<Code>MissingContentLength</Code>" in body) == (411, True)
