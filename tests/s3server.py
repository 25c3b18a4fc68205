"""An S3 server as tests see it, whichever program it is."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

_numbers = itertools.count()

STORE = os.environ.get("S3FSX_TEST_STORE", "rgw")  # the fixture that mounts are tested on
STORES = list(dict.fromkeys((STORE, "gateway")))  # of the tests that run on both


@dataclass(frozen=True)
class Mark:
    """A position in the server's request log."""

    offset: int


@dataclass(frozen=True)
class Request:
    """One line of the request log; kind is a name of ``KINDS``, sizes are bytes of the bodies."""

    kind: str
    key: str
    status: int
    bytes_sent: int
    bytes_received: int


# RGW's name of the operation -> ours, where the method and the query say nothing more.
KINDS = {
    "copy_obj": "COPY",
    "init_multipart": "CREATE UPLOAD",
    "complete_multipart": "COMPLETE",
    "abort_multipart": "ABORT",
    "list_multipart": "LIST PARTS",
    "list_bucket_multiparts": "LIST UPLOADS",
    "list_bucket": "LIST",
    "delete_obj": "DELETE",
    "multi_object_delete": "DELETE MANY",
    "stat_bucket": "HEAD BUCKET",
}


def parse_log(text: str) -> Iterator[tuple[str, Request]]:
    """(bucket, request) of each JSON object; two that ended at once may share a line, and leave an empty one behind."""
    decoder = json.JSONDecoder()
    position = text.find("{")
    while position >= 0:
        entry, end = decoder.raw_decode(text, position)
        yield entry["bucket"], parse_request(entry)
        position = text.find("{", end)


def parse_request(entry: Mapping[str, Any]) -> Request:
    method, _, rest = entry["uri"].partition(" ")
    path, _, query = rest.removesuffix(" HTTP/1.1").partition("?")
    copied = any("HTTP_X_AMZ_COPY_SOURCE" in header for header in entry.get("http_x_headers", ()))
    operation = entry["operation"]
    if operation == "put_obj":
        kind = ("COPY PART" if copied else "PUT PART") if "partNumber=" in query else "PUT"
    elif operation == "get_obj":
        kind = method  # GET or HEAD
    else:
        kind = KINDS.get(operation, operation)
    key = path.lstrip("/").partition("/")[2]  # as it was in the request line: percent-encoded
    return Request(kind, key, int(entry["http_status"]), entry["bytes_sent"], entry["bytes_received"])


# The gateway's name of the operation -> ours.
ACCESS_KINDS = {
    "PutObject": "PUT",
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "DeleteObject": "DELETE",
    "DeleteObjects": "DELETE MANY",
    "CopyObject": "COPY",
    "CreateMultipartUpload": "CREATE UPLOAD",
    "UploadPart": "PUT PART",
    "UploadPartCopy": "COPY PART",
    "CompleteMultipartUpload": "COMPLETE",
    "AbortMultipartUpload": "ABORT",
    "ListParts": "LIST PARTS",
    "ListMultipartUploads": "LIST UPLOADS",
    "ListObjectVersions": "LIST",
    "ListObjects": "LIST",
    "ListObjectsV2": "LIST",
    "HeadBucket": "HEAD BUCKET",
}


def parse_access_log(text: str) -> Iterator[tuple[str, Request]]:
    """The same of the gateway's access log."""
    for line in text.splitlines():
        entry = json.loads(line)
        bucket, _, key = entry["path"].removeprefix("/").partition("/")
        kind = ACCESS_KINDS.get(entry["operation"], entry["operation"])
        yield bucket, Request(kind, key, entry["status"], entry["sent"], entry["received"])


@dataclass(frozen=True)
class S3Server:
    """Where it is, who may use it, and what it was asked.

    name: "rgw", "gateway" or "moto". The alternative keys are those of another user, who owns nothing.
    tls_endpoint, ca_file, log_path, pid: None where the server has none. pid is the server's own, for SIGSTOP.
    served: the gateway's directory.
    """

    name: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str
    alt_access_key: str
    alt_secret_key: str
    tls_endpoint: str | None = None
    ca_file: Path | None = None
    log_path: Path | None = None
    pid: int | None = None
    served: Path | None = None

    @cached_property
    def client(self) -> Any:
        """One raw boto3 client for all; the fixture closes it."""
        return self.new_client()

    def new_client(self, access_key: str | None = None, secret_key: str | None = None) -> Any:
        """The caller closes it: a socket left to the garbage collector is a warning, and a warning is an error."""
        wanted: dict[str, Any] = {
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        config = Config(
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=30,
            retries={"max_attempts": 1},
            max_pool_connections=32,
            **{name: value for name, value in wanted.items() if name in Config.OPTION_DEFAULTS},  # botocore >= 1.36
        )
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=access_key or self.access_key,
            aws_secret_access_key=secret_key or self.secret_key,
            config=config,
        )

    def make_bucket(self, stem: str = "test", *, object_lock: bool = False) -> str:
        """A bucket no other test has."""
        name = f"{stem}-{os.getpid()}-{next(_numbers)}"
        self.client.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if object_lock else {}))
        return name

    def has_object_lock(self, bucket: str) -> bool:
        try:
            self.client.get_object_lock_configuration(Bucket=bucket)
        except ClientError as e:
            if e.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return False
        return True

    def view(self, bucket: str, prefix: str = "") -> S3View:
        return S3View(self.client, bucket, prefix)

    def mark(self, bucket: str) -> Mark:
        """Now. Every request to bucket that was answered before is before the mark."""
        self._settle(bucket)
        return Mark(self._log().stat().st_size)

    def requests(self, mark: Mark, bucket: str) -> list[Request]:
        """Everything asked of bucket since mark, in the order of the answers."""
        self._settle(bucket)
        with self._log().open("rb") as log:
            log.seek(mark.offset)
            text = log.read().decode()
        parse = parse_access_log if self.name == "gateway" else parse_log
        return [r for where, r in parse(text) if where == bucket and not r.key.startswith(SENTINEL)]

    def requests_since(self, mark: Mark, bucket: str) -> Counter[str]:
        """How many of each kind: ``KINDS`` and PUT, "PUT PART", "COPY PART", GET, HEAD. None is 0."""
        return Counter(r.kind for r in self.requests(mark, bucket))

    def _log(self) -> Path:
        assert self.log_path is not None, f"{self.name} keeps no log of requests"
        return self.log_path

    def _settle(self, bucket: str) -> None:
        """Waits until a request of our own is in the log: lines are written after the answer, by another thread."""
        name = f"{SENTINEL}{next(_numbers)}"
        self.client.delete_object(Bucket=bucket, Key=name)
        limit = time.monotonic() + 10
        while not (self._log().exists() and name.encode() in self._tail()):
            assert time.monotonic() < limit, f"the request log {self.log_path} does not grow"
            time.sleep(0.01)
        time.sleep(0.05)  # lines of other connections may be one thread behind ours

    def _tail(self) -> bytes:
        with self._log().open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - (1 << 20)))
            return log.read()


SENTINEL = "sentinel-of-the-tests-"


@dataclass(frozen=True)
class S3View:
    """The bucket as any other S3 client sees it, below prefix."""

    client: Any
    bucket: str
    prefix: str = ""

    def keys(self, below: str = "") -> list[str]:
        """All keys below prefix, without it, sorted; s3fsx's own ones left out."""
        return [k for k in self._keys(self.prefix + below) if not k.startswith(".s3fsx/")]

    def internal_keys(self) -> list[str]:
        return [k for k in self._keys(self.prefix) if k.startswith(".s3fsx/")]

    def _keys(self, full_prefix: str) -> Iterator[str]:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=full_prefix):
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self.prefix)

    def body(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read())

    def sha256(self, key: str) -> str:
        """In chunks: the objects of the large tests are larger than what a test should hold."""
        digest = hashlib.sha256()
        for chunk in self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].iter_chunks(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()

    def size(self, key: str) -> int:
        return int(self._head(key)["ContentLength"])

    def metadata(self, key: str) -> dict[str, str]:
        return dict(self._head(key)["Metadata"])

    def _head(self, key: str) -> dict[str, Any]:
        return dict(self.client.head_object(Bucket=self.bucket, Key=self.prefix + key))

    def put(self, key: str, body: bytes = b"", **metadata: str) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=body, Metadata=metadata)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def uploads(self) -> list[str]:
        """Keys of the unfinished multipart uploads: billed and invisible, so there should be none."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix).get("Uploads", ())
        return [u["Key"].removeprefix(self.prefix) for u in found]
