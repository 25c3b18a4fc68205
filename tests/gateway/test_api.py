"""The API as boto3 sees it, and what boto3 would never send; of the directory, and passed on to such a gateway."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.s3server import S3Server

MIB = 1 << 20


@pytest.fixture(params=["directory", "upstream"])
def gateway(request: pytest.FixtureRequest, gateway: S3Server) -> S3Server:
    server: S3Server = gateway if request.param == "directory" else request.getfixturevalue("proxied")
    return server


@pytest.fixture
def bucket(gateway: S3Server) -> str:
    return gateway.make_bucket("api")


@pytest.fixture
def c(gateway: S3Server) -> Any:
    return gateway.client


def code(call: Callable[[], Any]) -> tuple[str, int]:
    with pytest.raises(ClientError) as found:
        call()
    response = found.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def put(c: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        c.put_object(Bucket=bucket, Key=key, Body=key.encode())


# Buckets.


def test_buckets(c: Any, gateway: S3Server, bucket: str) -> None:
    assert bucket in [b["Name"] for b in c.list_buckets()["Buckets"]]
    c.create_bucket(Bucket=bucket)  # in us-east-1; elsewhere BucketAlreadyOwnedByYou
    assert c.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert c.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 200
    put(c, bucket, "x")
    assert code(lambda: c.delete_bucket(Bucket=bucket)) == ("BucketNotEmpty", 409)
    c.delete_object(Bucket=bucket, Key="x")
    c.delete_bucket(Bucket=bucket)
    assert code(lambda: c.head_bucket(Bucket=bucket)) == ("404", 404)
    assert code(lambda: c.delete_bucket(Bucket=bucket)) == ("NoSuchBucket", 404)
    assert code(lambda: c.list_objects_v2(Bucket=bucket)) == ("NoSuchBucket", 404)
    assert code(lambda: c.put_object(Bucket=bucket, Key="x", Body=b"")) == ("NoSuchBucket", 404)


@pytest.mark.parametrize("name", ["Upper", "a..b", "-ab", "1.2.3.4", "xn--abc", "ab_c"])
def test_names_of_buckets(c: Any, name: str) -> None:
    assert code(lambda: c.create_bucket(Bucket=name)) == ("InvalidBucketName", 400)


def test_another_region_is_refused(c: Any) -> None:
    configuration = {"LocationConstraint": "eu-west-1"}
    found = code(lambda: c.create_bucket(Bucket="elsewhere-x", CreateBucketConfiguration=configuration))
    assert found == ("InvalidLocationConstraint", 400)


def test_another_user_sees_nothing_of_it(gateway: S3Server, bucket: str) -> None:
    other = gateway.new_client(gateway.alt_access_key, gateway.alt_secret_key)
    try:
        put(gateway.client, bucket, "x")
        own = "own-of-other"
        other.create_bucket(Bucket=own)
        assert bucket not in [b["Name"] for b in other.list_buckets()["Buckets"]]
        for call in (
            lambda: other.get_object(Bucket=bucket, Key="x"),
            lambda: other.put_object(Bucket=bucket, Key="x", Body=b""),
            lambda: other.list_objects(Bucket=bucket),
            lambda: other.delete_bucket(Bucket=bucket),
            lambda: other.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}),
            lambda: other.copy_object(Bucket=own, Key="x", CopySource=f"{bucket}/x"),
        ):
            assert code(call) == ("AccessDenied", 403)
        assert code(lambda: other.create_bucket(Bucket=bucket)) == ("BucketAlreadyExists", 409)
    finally:
        other.close()


NOT_IMPLEMENTED: list[tuple[str, dict[str, Any]]] = [
    ("put_bucket_policy", {"Policy": "{}"}),
    ("put_bucket_website", {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}}),
    ("put_bucket_acl", {"ACL": "public-read"}),
    ("put_object_acl", {"Key": "x", "ACL": "public-read"}),
    ("put_object", {"Key": "y", "Body": b"", "ServerSideEncryption": "AES256"}),
    ("put_object", {"Key": "y", "Body": b"", "ACL": "public-read"}),
    ("put_object", {"Key": "y", "Body": b"", "WebsiteRedirectLocation": "/z"}),
    ("restore_object", {"Key": "x", "RestoreRequest": {"Days": 1}}),
    (
        "put_bucket_encryption",
        {
            "ServerSideEncryptionConfiguration": {
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            }
        },
    ),
]


@pytest.mark.parametrize(("name", "arguments"), NOT_IMPLEMENTED)
def test_what_is_not_done_is_not_said_to_be(c: Any, bucket: str, name: str, arguments: dict[str, Any]) -> None:
    put(c, bucket, "x")
    assert code(lambda: getattr(c, name)(Bucket=bucket, **arguments)) == ("NotImplemented", 501)
    assert [o["Key"] for o in c.list_objects_v2(Bucket=bucket)["Contents"]] == ["x"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
        ("get_bucket_tagging", "NoSuchTagSet"),
    ],
)
def test_what_a_bucket_has_not(c: Any, bucket: str, name: str, wanted: str) -> None:
    assert code(lambda: getattr(c, name)(Bucket=bucket)) == (wanted, 404)


def test_acls_are_private(c: Any, bucket: str) -> None:
    put(c, bucket, "x")
    for answer in (c.get_bucket_acl(Bucket=bucket), c.get_object_acl(Bucket=bucket, Key="x")):
        assert answer["Owner"]["ID"] == "admin"
        assert [grant["Permission"] for grant in answer["Grants"]] == ["FULL_CONTROL"]
    c.put_object_acl(Bucket=bucket, Key="x", ACL="private")
    c.put_bucket_acl(Bucket=bucket, ACL="private")


# Objects.


def test_an_object_comes_back_with_what_was_said_of_it(c: Any, bucket: str) -> None:
    c.put_object(
        Bucket=bucket,
        Key="x",
        Body=b"data",
        ContentType="text/x",
        CacheControl="no-cache",
        ContentDisposition="attachment",
        ContentEncoding="gzip",
        ContentLanguage="de",
        Expires=datetime(2030, 1, 1, tzinfo=UTC),
        Metadata={"one": "1", "two": "2 2"},
        Tagging="a=b&c=d%20e",
    )
    found = c.get_object(Bucket=bucket, Key="x")
    assert found["Body"].read() == b"data"
    assert found["ETag"] == f'"{hashlib.md5(b"data").hexdigest()}"'
    assert found["Metadata"] == {"one": "1", "two": "2 2"}
    assert (found["ContentType"], found["CacheControl"], found["ContentDisposition"]) == (
        "text/x",
        "no-cache",
        "attachment",
    )
    assert (found["ContentEncoding"], found["ContentLanguage"], found["TagCount"]) == ("gzip", "de", 2)
    assert "2030" in str(found["ExpiresString" if "ExpiresString" in found else "Expires"])
    tags = c.get_object_tagging(Bucket=bucket, Key="x")["TagSet"]
    assert tags == [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d e"}]
    changed = c.get_object(Bucket=bucket, Key="x", ResponseContentType=" a/b", ResponseCacheControl="max-age=1")
    assert (changed["ContentType"], changed["CacheControl"]) == ("a/b", "max-age=1")
    changed["Body"].close()


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("bytes=0-0", b"0"),
        ("bytes=4-7", b"4567"),
        ("bytes=8-", b"89"),
        ("bytes=8-100", b"89"),
        ("bytes=-3", b"789"),
        ("bytes=-100", b"0123456789"),
        ("bytes=5-4", None),
        ("nonsense", None),
        ("bytes=1-2,4-5", None),
    ],
)
def test_ranges(c: Any, bucket: str, asked: str, wanted: bytes | None) -> None:
    c.put_object(Bucket=bucket, Key="x", Body=b"0123456789")
    found = c.get_object(Bucket=bucket, Key="x", Range=asked)
    body = found["Body"].read()
    assert body == (wanted if wanted is not None else b"0123456789")
    assert found["ResponseMetadata"]["HTTPStatusCode"] == (200 if wanted is None else 206)
    if wanted is not None:
        first = b"0123456789".index(wanted)
        assert found["ContentRange"] == f"bytes {first}-{first + len(wanted) - 1}/10"


def test_ranges_of_nothing(c: Any, bucket: str) -> None:
    put(c, bucket, "x")
    c.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert code(lambda: c.get_object(Bucket=bucket, Key="x", Range="bytes=1-")) == ("InvalidRange", 416)
    assert code(lambda: c.get_object(Bucket=bucket, Key="empty", Range="bytes=0-")) == ("InvalidRange", 416)
    assert code(lambda: c.get_object(Bucket=bucket, Key="x", Range="bytes=-0")) == ("InvalidRange", 416)


def test_conditions_of_reads(c: Any, bucket: str) -> None:
    etag = c.put_object(Bucket=bucket, Key="x", Body=b"1")["ETag"]
    past, future = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)

    def status(**conditions: Any) -> int:
        try:
            found = c.get_object(Bucket=bucket, Key="x", **conditions)
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        found["Body"].close()
        return 200

    assert status(IfMatch=etag) == status(IfMatch="*") == status(IfNoneMatch='"other"') == 200
    assert status(IfMatch='"other"') == 412
    assert status(IfNoneMatch=etag) == 304
    assert status(IfModifiedSince=past) == status(IfUnmodifiedSince=future) == 200
    assert status(IfModifiedSince=future) == 304
    assert status(IfUnmodifiedSince=past) == 412
    assert status(IfMatch=etag, IfUnmodifiedSince=past) == 200
    assert status(IfNoneMatch=etag, IfModifiedSince=past) == 304


def test_conditions_of_writes(c: Any, bucket: str) -> None:
    def attempt(**conditions: str) -> Any:
        return c.put_object(Bucket=bucket, Key="x", Body=b"2", **conditions)

    assert code(lambda: attempt(IfMatch='"a"')) == ("NoSuchKey", 404)
    etag = attempt(IfNoneMatch="*")["ETag"]
    assert code(lambda: attempt(IfNoneMatch="*")) == ("PreconditionFailed", 412)
    assert code(lambda: attempt(IfNoneMatch=etag)) == ("PreconditionFailed", 412)
    assert attempt(IfNoneMatch='"a"')["ETag"] == etag
    assert code(lambda: attempt(IfMatch='"a"')) == ("PreconditionFailed", 412)
    attempt(IfMatch=etag)


def test_delete_many(c: Any, bucket: str) -> None:
    put(c, bucket, "a", "b", "c")
    answer = c.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "never"}]})
    assert [d["Key"] for d in answer["Deleted"]] == ["a", "never"]
    quiet = c.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert [o["Key"] for o in c.list_objects(Bucket=bucket)["Contents"]] == ["c"]


def test_copies(c: Any, gateway: S3Server, bucket: str) -> None:
    other = gateway.make_bucket("target")
    c.put_object(Bucket=bucket, Key="ü x+%", Body=b"1", Metadata={"a": "1"}, ContentType="t/1", Tagging="a=1")
    source = {"Bucket": bucket, "Key": "ü x+%"}
    copied = c.copy_object(Bucket=other, Key="y", CopySource=source)["CopyObjectResult"]
    found = c.head_object(Bucket=other, Key="y")
    assert (found["Metadata"], found["ContentType"], found["ETag"]) == ({"a": "1"}, "t/1", copied["ETag"])
    assert c.get_object_tagging(Bucket=other, Key="y")["TagSet"]
    c.copy_object(
        Bucket=other, Key="y", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="t/2"
    )
    found = c.head_object(Bucket=other, Key="y")
    assert (found["Metadata"], found["ContentType"]) == ({"b": "2"}, "t/2")
    itself = {"Bucket": other, "Key": "y"}
    assert code(lambda: c.copy_object(Bucket=other, Key="y", CopySource=itself)) == ("InvalidRequest", 400)
    c.copy_object(Bucket=other, Key="y", CopySource=itself, MetadataDirective="REPLACE", Metadata={"c": "3"})
    assert c.get_object(Bucket=other, Key="y")["Metadata"] == {"c": "3"}
    missing = {"Bucket": bucket, "Key": "none"}
    assert code(lambda: c.copy_object(Bucket=other, Key="z", CopySource=missing)) == ("NoSuchKey", 404)
    assert code(lambda: c.copy_object(Bucket=other, Key="z", CopySource=source, CopySourceIfMatch='"other"')) == (
        "PreconditionFailed",
        412,
    )


def test_tags(c: Any, bucket: str) -> None:
    put(c, bucket, "x")
    tags = [{"Key": f"k{i}", "Value": "v" * 256} for i in range(10)]
    c.put_object_tagging(Bucket=bucket, Key="x", Tagging={"TagSet": tags})
    assert c.get_object_tagging(Bucket=bucket, Key="x")["TagSet"] == tags
    more = [*tags, {"Key": "one", "Value": "more"}]
    assert code(lambda: c.put_object_tagging(Bucket=bucket, Key="x", Tagging={"TagSet": more})) == ("InvalidTag", 400)
    for wrong in (
        [{"Key": "k" * 129, "Value": ""}],
        [{"Key": "a", "Value": "v" * 257}],
        [{"Key": "a", "Value": ""}] * 2,
    ):
        tagging = {"Bucket": bucket, "Key": "x", "Tagging": {"TagSet": wrong}}
        assert code(functools.partial(c.put_object_tagging, **tagging)) == ("InvalidTag", 400)
    c.delete_object_tagging(Bucket=bucket, Key="x")
    assert c.get_object_tagging(Bucket=bucket, Key="x")["TagSet"] == []
    c.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert c.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    c.delete_bucket_tagging(Bucket=bucket)


def test_digests_are_compared(c: Any, bucket: str) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    assert code(lambda: c.put_object(Bucket=bucket, Key="x", Body=b"1", ContentMD5=wrong)) == ("BadDigest", 400)
    assert code(lambda: c.put_object(Bucket=bucket, Key="x", Body=b"1", ContentMD5="eA==")) == ("InvalidDigest", 400)
    sha = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    assert code(lambda: c.put_object(Bucket=bucket, Key="x", Body=b"1", ChecksumSHA256=sha)) == ("BadDigest", 400)
    assert code(lambda: c.get_object(Bucket=bucket, Key="x")) == ("NoSuchKey", 404)
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        made = c.put_object(Bucket=bucket, Key="x", Body=b"1", ChecksumAlgorithm=algorithm)
        name = f"Checksum{algorithm}"
        found = c.head_object(Bucket=bucket, Key="x", ChecksumMode="ENABLED")
        assert made[name] == found[name]
        attributes = c.get_object_attributes(
            Bucket=bucket, Key="x", ObjectAttributes=["Checksum", "ETag", "ObjectSize"]
        )
        assert attributes["Checksum"][name] == made[name]
        assert attributes["ObjectSize"] == 1


def test_long_keys(c: Any, bucket: str) -> None:
    put(c, bucket, "ä" * 512)
    assert [o["Key"] for o in c.list_objects_v2(Bucket=bucket)["Contents"]] == ["ä" * 512]
    assert code(lambda: c.put_object(Bucket=bucket, Key="ä" * 512 + "x", Body=b"")) == ("KeyTooLongError", 400)


# Listings.


def test_listings(c: Any, bucket: str) -> None:
    put(c, bucket, "b", "a/1", "a/2", "a", "c/d/e", "a.x", "ü", "+ %")
    page = c.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [o["Key"] for o in page["Contents"]] == ["+ %", "a", "a.x", "b", "ü"]
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["a/", "c/"]
    assert page["KeyCount"] == 7
    told = []
    for page in c.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}
    ):
        told += [o["Key"] for o in page.get("Contents", ())] + [p["Prefix"] for p in page.get("CommonPrefixes", ())]
    assert told == ["+ %", "a", "a.x", "a/", "b", "c/", "ü"]
    told = []
    for page in c.get_paginator("list_objects").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3}):
        told += [o["Key"] for o in page["Contents"]]
    assert told == ["+ %", "a", "a.x", "a/1", "a/2", "b", "c/d/e", "ü"]
    assert [o["Key"] for o in c.list_objects_v2(Bucket=bucket, StartAfter="a/1", Prefix="a")["Contents"]] == ["a/2"]
    page = c.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=4)
    assert (page["IsTruncated"], page["NextMarker"]) == (True, "a/")
    assert c.list_objects(Bucket=bucket, MaxKeys=0).get("Contents") is None
    assert not c.list_objects_v2(Bucket=bucket, MaxKeys=0)["IsTruncated"]
    assert "Owner" not in c.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert c.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"] == "admin"
    assert code(lambda: c.list_objects_v2(Bucket=bucket, ContinuationToken="!")) == ("InvalidArgument", 400)
    assert code(lambda: c.list_objects(Bucket=bucket, MaxKeys=-1)) == ("InvalidArgument", 400)


# Multipart.


def upload(c: Any, bucket: str, key: str, parts: list[bytes], **arguments: Any) -> dict[str, Any]:
    algorithm = arguments.get("ChecksumAlgorithm")
    extra = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    begun = c.create_multipart_upload(Bucket=bucket, Key=key, **arguments)["UploadId"]
    told = []
    for number, data in enumerate(parts, start=1):
        made = c.upload_part(Bucket=bucket, Key=key, UploadId=begun, PartNumber=number, Body=data, **extra)
        part = {"PartNumber": number, "ETag": made["ETag"]}
        if algorithm:
            part[f"Checksum{algorithm}"] = made[f"Checksum{algorithm}"]
        told.append(part)
    done: dict[str, Any] = c.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=begun, MultipartUpload={"Parts": told}
    )
    # The answer may be lost: asked again it is the same.
    again = c.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=begun, MultipartUpload={"Parts": told})
    assert again["ETag"] == done["ETag"]
    return done


def test_multipart(c: Any, bucket: str) -> None:
    parts = [b"1" * (5 * MIB), b"2" * (5 * MIB), b"3"]
    done = upload(c, bucket, "x", parts, Metadata={"a": "1"}, ContentType="t/t")
    assert done["ETag"].endswith('-3"')
    found = c.get_object(Bucket=bucket, Key="x")
    assert found["Body"].read() == b"".join(parts)
    assert (found["Metadata"], found["ContentType"], found["ETag"]) == ({"a": "1"}, "t/t", done["ETag"])
    part = c.get_object(Bucket=bucket, Key="x", PartNumber=3)
    assert (part["Body"].read(), part["PartsCount"]) == (b"3", 3)
    assert code(lambda: c.get_object(Bucket=bucket, Key="x", PartNumber=4)) == ("InvalidPartNumber", 416)
    assert "Uploads" not in c.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("SHA256", "COMPOSITE")]
)
def test_multipart_checksums(c: Any, bucket: str, algorithm: str, kind: str) -> None:
    parts = [b"1" * (5 * MIB), b"2"]
    done = upload(c, bucket, "x", parts, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    found = c.head_object(Bucket=bucket, Key="x", ChecksumMode="ENABLED")
    assert found[f"Checksum{algorithm}"] == done[f"Checksum{algorithm}"]
    assert found["ChecksumType"] == kind
    if kind == "FULL_OBJECT":
        whole = c.put_object(Bucket=bucket, Key="y", Body=b"".join(parts), ChecksumAlgorithm=algorithm)
        assert whole["ChecksumCRC32"] == done["ChecksumCRC32"]


def test_what_completing_refuses(c: Any, bucket: str) -> None:
    begun = c.create_multipart_upload(Bucket=bucket, Key="x")["UploadId"]
    etags = {
        number: c.upload_part(Bucket=bucket, Key="x", UploadId=begun, PartNumber=number, Body=data)["ETag"]
        for number, data in ((1, b"small"), (2, b"last"))
    }

    def complete(*numbers: int, etag: str = "", upload: str = begun) -> Any:
        parts = [{"PartNumber": n, "ETag": etag or etags.get(n, '"x"')} for n in numbers]
        return c.complete_multipart_upload(
            Bucket=bucket, Key="x", UploadId=upload, MultipartUpload={"Parts": parts} if parts else {}
        )

    assert code(lambda: complete(1, 2)) == ("EntityTooSmall", 400)
    assert code(lambda: complete(2, 1)) == ("InvalidPartOrder", 400)
    assert code(lambda: complete(1, 3)) == ("InvalidPart", 400)
    assert code(lambda: complete(1, etag='"0"')) == ("InvalidPart", 400)
    assert code(complete) == ("MalformedXML", 400)
    assert code(lambda: complete(1, upload="0" * 32)) == ("NoSuchUpload", 404)
    assert code(lambda: complete(1, upload="../../x")) == ("NoSuchUpload", 404)
    assert code(lambda: c.upload_part(Bucket=bucket, Key="x", UploadId=begun, PartNumber=10001, Body=b"")) == (
        "InvalidArgument",
        400,
    )
    assert code(lambda: c.upload_part(Bucket=bucket, Key="y", UploadId=begun, PartNumber=1, Body=b"")) == (
        "NoSuchUpload",
        404,
    )
    listed = c.list_parts(Bucket=bucket, Key="x", UploadId=begun, MaxParts=1)
    assert ([p["PartNumber"] for p in listed["Parts"]], listed["IsTruncated"]) == ([1], True)
    complete(2)
    assert c.get_object(Bucket=bucket, Key="x")["Body"].read() == b"last"


def test_copied_parts_and_abort(c: Any, bucket: str) -> None:
    c.put_object(Bucket=bucket, Key="source", Body=b"0123456789" * MIB)
    begun = c.create_multipart_upload(Bucket=bucket, Key="x")["UploadId"]
    arguments = {"Bucket": bucket, "Key": "x", "UploadId": begun, "CopySource": f"{bucket}/source"}
    one = c.upload_part_copy(PartNumber=1, **arguments, CopySourceRange=f"bytes=0-{5 * MIB - 1}")
    two = c.upload_part_copy(PartNumber=2, **arguments, CopySourceRange="bytes=3-5")
    for wrong in ("bytes=0-", "0-1", "bytes=5-4", f"bytes=0-{10 * MIB}"):
        with pytest.raises(ClientError):
            c.upload_part_copy(PartNumber=3, **arguments, CopySourceRange=wrong)
    parts = [{"PartNumber": n, "ETag": p["CopyPartResult"]["ETag"]} for n, p in ((1, one), (2, two))]
    c.complete_multipart_upload(Bucket=bucket, Key="x", UploadId=begun, MultipartUpload={"Parts": parts})
    body = c.get_object(Bucket=bucket, Key="x")["Body"].read()
    assert body == (b"0123456789" * MIB)[: 5 * MIB] + b"345"
    begun = c.create_multipart_upload(Bucket=bucket, Key="z")["UploadId"]
    c.upload_part(Bucket=bucket, Key="z", UploadId=begun, PartNumber=1, Body=b"")
    c.abort_multipart_upload(Bucket=bucket, Key="z", UploadId=begun)
    assert code(lambda: c.list_parts(Bucket=bucket, Key="z", UploadId=begun)) == ("NoSuchUpload", 404)
    assert code(lambda: c.abort_multipart_upload(Bucket=bucket, Key="z", UploadId=begun)) == ("NoSuchUpload", 404)


def test_uploads_are_listed_in_pages(c: Any, bucket: str) -> None:
    begun = [
        (key, c.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]) for key in ("a", "b", "b", "c/1", "c/2")
    ]
    told = []
    for page in c.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}):
        told += [(u["Key"], u["UploadId"]) for u in page.get("Uploads", ())]
    assert told == begun
    page = c.list_multipart_uploads(Bucket=bucket, Delimiter="/", Prefix="c")
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["c/"]


# Versions.


def test_versions(c: Any, bucket: str) -> None:
    c.put_object(Bucket=bucket, Key="x", Body=b"null")
    c.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = c.put_object(Bucket=bucket, Key="x", Body=b"1")["VersionId"]
    two = c.put_object(Bucket=bucket, Key="x", Body=b"2")["VersionId"]
    marker = c.delete_object(Bucket=bucket, Key="x")
    assert marker["DeleteMarker"]
    assert code(lambda: c.get_object(Bucket=bucket, Key="x")) == ("NoSuchKey", 404)
    assert code(lambda: c.head_object(Bucket=bucket, Key="x", VersionId=marker["VersionId"])) == ("405", 405)
    assert "Contents" not in c.list_objects_v2(Bucket=bucket)
    for version, body in ((one, b"1"), (two, b"2"), ("null", b"null")):
        assert c.get_object(Bucket=bucket, Key="x", VersionId=version)["Body"].read() == body
    listed = c.list_object_versions(Bucket=bucket)
    assert [(v["VersionId"], v["IsLatest"]) for v in listed["Versions"]] == [
        (two, False),
        (one, False),
        ("null", False),
    ]
    assert [(m["VersionId"], m["IsLatest"]) for m in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    told = []
    for page in c.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1}):
        told += [v["VersionId"] for v in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]
    assert told == [marker["VersionId"], two, one, "null"]
    c.delete_object(Bucket=bucket, Key="x", VersionId=marker["VersionId"])
    assert c.get_object(Bucket=bucket, Key="x")["Body"].read() == b"2"
    c.delete_object(Bucket=bucket, Key="x", VersionId=two)
    assert c.get_object(Bucket=bucket, Key="x")["VersionId"] == one
    c.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "x", "VersionId": "null"})
    assert c.get_object(Bucket=bucket, Key="x")["Body"].read() == b"null"
    c.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert "VersionId" not in c.put_object(Bucket=bucket, Key="x", Body=b"new null")
    assert c.get_object(Bucket=bucket, Key="x")["VersionId"] == "null"
    versions = [v["VersionId"] for v in c.list_object_versions(Bucket=bucket)["Versions"]]
    assert versions.count("null") == 1
    assert code(lambda: c.get_object(Bucket=bucket, Key="x", VersionId="0" * 32)) == ("NoSuchVersion", 404)
    assert code(lambda: c.delete_bucket(Bucket=bucket)) == ("BucketNotEmpty", 409)


def test_object_lock(c: Any, gateway: S3Server) -> None:
    bucket = gateway.make_bucket("lock", object_lock=True)
    assert c.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}
    assert code(lambda: c.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})) == (
        "InvalidBucketState",
        409,
    )
    until = datetime.now(UTC) + timedelta(seconds=100)
    made = c.put_object(Bucket=bucket, Key="x", Body=b"1", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)
    version = {"Bucket": bucket, "Key": "x", "VersionId": made["VersionId"]}
    assert code(lambda: c.delete_object(**version)) == ("AccessDenied", 403)
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": until - timedelta(seconds=50)}
    assert code(lambda: c.put_object_retention(**version, Retention=shorter)) == ("AccessDenied", 403)
    c.put_object_retention(**version, Retention=shorter, BypassGovernanceRetention=True)
    c.put_object_legal_hold(**version, LegalHold={"Status": "ON"})
    assert code(lambda: c.delete_object(**version, BypassGovernanceRetention=True)) == ("AccessDenied", 403)
    c.put_object_legal_hold(**version, LegalHold={"Status": "OFF"})
    c.delete_object(**version, BypassGovernanceRetention=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    c.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    version["VersionId"] = c.put_object(Bucket=bucket, Key="x", Body=b"2")["VersionId"]
    assert c.head_object(**version)["ObjectLockMode"] == "COMPLIANCE"
    assert code(lambda: c.delete_object(**version, BypassGovernanceRetention=True)) == ("AccessDenied", 403)
    plain = gateway.make_bucket("plain")
    put(c, plain, "x")
    assert code(lambda: c.get_object_retention(Bucket=plain, Key="x")) == ("InvalidRequest", 400)


# Who asks.


def test_keys(gateway: S3Server, bucket: str) -> None:
    for keys, wanted in (
        ((gateway.access_key, "wrong-secret"), "SignatureDoesNotMatch"),
        (("nobody-there", "wrong-secret"), "InvalidAccessKeyId"),
    ):
        client = gateway.new_client(*keys)
        try:
            assert code(functools.partial(client.list_objects, Bucket=bucket)) == (wanted, 403)
        finally:
            client.close()
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(f"{gateway.endpoint}/{bucket}")
    assert found.value.code == 403
    assert b"<Code>AccessDenied</Code>" in found.value.read()


def test_presigned(gateway: S3Server, bucket: str) -> None:
    put(gateway.client, bucket, "a b/ü")
    url = gateway.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == "a b/ü".encode()
    for changed in (url.replace("a%20b", "a%20c"), url[:-1] + ("0" if url[-1] != "0" else "1")):
        with pytest.raises(urllib.error.HTTPError) as found:
            urllib.request.urlopen(changed)
        assert found.value.code == 403
        found.value.close()
    url = gateway.client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "new"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(url, b"data", method="PUT")):
        pass
    assert gateway.client.get_object(Bucket=bucket, Key="new")["Body"].read() == b"data"


@pytest.fixture
def modern(gateway: S3Server) -> Iterator[Any]:
    """boto3 as it is by itself: checksums in trailers of unsigned or signed chunks, host style."""
    client = boto3.client(
        "s3",
        endpoint_url=gateway.endpoint.replace("127.0.0.1", "localhost"),
        region_name=gateway.region,
        aws_access_key_id=gateway.access_key,
        aws_secret_access_key=gateway.secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}, retries={"max_attempts": 1}),
    )
    yield client
    client.close()


def test_host_style_and_trailers(modern: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: resolve("127.0.0.1" if "localhost" in str(host) else host, *rest, **more),
    )
    modern.put_object(Bucket=bucket, Key="x/y", Body=b"1" * 100_000)
    found = modern.get_object(Bucket=bucket, Key="x/y", ChecksumMode="ENABLED")
    assert found["Body"].read() == b"1" * 100_000
    assert [o["Key"] for o in modern.list_objects_v2(Bucket=bucket)["Contents"]] == ["x/y"]


# What boto3 would not send.


@pytest.mark.parametrize("more", [{}, {"x-amz-copy-source": "b/k"}])
def test_a_part_without_a_number(gateway: S3Server, bucket: str, more: dict[str, str]) -> None:
    url = signed_url(gateway, f"/{bucket}/x?uploadId=1", more)
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(urllib.request.Request(url, b"", more, method="PUT"))
    assert (found.value.code, b"InvalidArgument" in found.value.read()) == (400, True)


def test_a_version_that_no_header_can_carry(c: Any, bucket: str) -> None:
    """It is told again in a header of the answer; found by random requests."""
    assert code(lambda: c.delete_object(Bucket=bucket, Key="x", VersionId="\0")) == ("InvalidArgument", 400)


def raw(gateway: S3Server, data: bytes) -> tuple[int, bytes]:
    split = urlsplit(gateway.endpoint)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=20)
    try:
        connection.connect()
        connection.sock.sendall(data)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n", 403),
        (b"GET /%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"PUT /b/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-a: " + b"y" * 40_000 + b"\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n", 403),
    ],
)
def test_requests_that_are_none(gateway: S3Server, data: bytes, status: int) -> None:
    found, body = raw(gateway, data)
    assert found == status
    assert b"<Error>" in body


def signed_url(gateway: S3Server, target: str, headers: dict[str, str] | None = None) -> str:
    """Of a PUT that boto3 does not presign."""
    request = AWSRequest("PUT", gateway.endpoint + target, headers=headers)
    keys = Credentials(gateway.access_key, gateway.secret_key)
    S3SigV4QueryAuth(keys, "s3", gateway.region, expires=60).add_auth(request)
    return str(request.url)


def test_dangerous_xml(c: Any, gateway: S3Server, bucket: str) -> None:
    """A DTD that would grow to gigabytes is refused before it is expanded."""
    put(c, bucket, "x")
    body = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><Tagging><TagSet>&b;</TagSet></Tagging>'

    url = signed_url(gateway, f"/{bucket}/x?tagging=")
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(urllib.request.Request(url, body.encode(), method="PUT"))
    assert (found.value.code, b"MalformedXML" in found.value.read()) == (400, True)
