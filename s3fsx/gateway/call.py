"""One request, read and authorised: what the operations are given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .accounts import User
from .backend import Backend, Buckets, Source
from .conditions import check_write
from .errors import S3Error
from .keynames import MAX_KEY
from .messages import Request
from .model import Bucket, Object
from .payload import Payload
from .target import percent_decoded, utf8

LARGEST_PUT = 5 << 30  # bytes
_VERSION = re.compile(r"[!-~]{1,1024}")


@dataclass(slots=True)
class Call:
    """query: first value of each; headers: joined by commas, as HTTP has it. now: seconds since the epoch."""

    request: Request
    bucket_name: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    user: User
    payload: Payload
    place: Buckets
    region: str
    now: float
    _bucket: Bucket | None = field(default=None, repr=False)

    @property
    def backend(self) -> Backend:
        """Of operations that are done here, not passed on."""
        assert isinstance(self.place, Backend)
        return self.place

    @property
    def method(self) -> str:
        return self.request.method

    async def bucket(self, *, write: bool) -> Bucket:
        """That the user may use so. Raises S3Error: NoSuchBucket, AccessDenied."""
        if self._bucket is None:
            self._bucket = await self.place.bucket(self.bucket_name)
        self._allowed(self._bucket, write)
        expected = self.headers.get("x-amz-expected-bucket-owner")
        if expected is not None and expected != self._bucket.owner:
            raise S3Error("AccessDenied")
        return self._bucket

    def _allowed(self, bucket: Bucket, write: bool) -> None:
        allowed = self.user.may_write if write else self.user.may_read
        if not allowed(bucket.name, bucket.owner):
            raise S3Error("AccessDenied")

    async def owned(self) -> Bucket:
        """That is the user's own to configure."""
        bucket = await self.bucket(write=True)
        if not self.user.admin and bucket.owner != self.user.name:
            raise S3Error("AccessDenied")
        return bucket

    @property
    def version(self) -> str:
        version = self.query.get("versionId")
        if version == "":
            raise S3Error("InvalidArgument", "Version id cannot be the empty string", ArgumentName="versionId")
        if version is not None and not _VERSION.fullmatch(version):  # it is told again in a header
            raise S3Error("InvalidArgument", "Invalid version id specified", ArgumentName="versionId")
        return version or ""

    def condition(self, current: Object | None) -> None:
        """If-Match and If-None-Match of a write."""
        check_write(self.headers, None if current is None else current.etag)

    def number(self, name: str, default: int, limit: int = 1000) -> int:
        """Of the query, at most limit. Raises S3Error."""
        text = self.query.get(name)
        if text is None or (text == "" and name.startswith("max-")):
            return default
        try:
            value = int(text)
        except ValueError:
            raise S3Error(
                "InvalidArgument", f"Provided {name} not an integer", ArgumentName=name, ArgumentValue=text
            ) from None
        if not 0 <= value < 2**31:
            message = f"Argument {name} must be an integer between 0 and 2147483647"
            raise S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=text)
        return min(value, limit)

    async def source(self) -> Source:
        """By x-amz-copy-source, which the user may read. Raises S3Error."""
        text, _, query = self.headers["x-amz-copy-source"].partition("?")
        name, slash, key = utf8(percent_decoded(text.encode("latin-1"))).removeprefix("/").partition("/")
        version = ""
        if query:
            if not query.startswith("versionId="):
                raise S3Error("InvalidArgument", "Copy Source has an unknown parameter")
            version = query.removeprefix("versionId=")
        if not name or not slash or not key:
            message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
            raise S3Error("InvalidArgument", message, ArgumentName="x-amz-copy-source")
        if len(key.encode()) > MAX_KEY:
            raise S3Error("KeyTooLongError")
        self._allowed(await self.place.bucket(name), write=False)
        return Source(name, key, version)
