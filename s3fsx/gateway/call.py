"""One request, read and authorised: what the operations are given."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from . import acl as lists
from .accounts import User
from .backend import Backend, Buckets, Source
from .conditions import check_write
from .errors import S3Error
from .keynames import MAX_KEY
from .messages import Request
from .model import Bucket, Object
from .payload import Payload
from .target import BAD_ESCAPE, percent_decoded, utf8

_T = TypeVar("_T")
LARGEST_PUT = 5 << 30  # bytes
_VERSION = re.compile(r"[!-~]{1,1024}")


@dataclass(slots=True)
class Call:
    """query: first value of each; headers: joined by commas, as HTTP has it. now: seconds since the epoch.

    acl: lists are kept and obeyed; known: whether there is a user of this name.
    """

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
    acl: bool = False
    known: lists.Known = field(default=lambda _: False, repr=False)
    granted: bool = False  # the user has no right to the bucket, but what a list grants
    _bucket: Bucket | None = field(default=None, repr=False)
    _source: Bucket | None = field(default=None, repr=False)

    @property
    def backend(self) -> Backend:
        """Of operations that are done here, not passed on."""
        assert isinstance(self.place, Backend)
        return self.place

    @property
    def method(self) -> str:
        return self.request.method

    async def bucket(self, *, write: bool, grant: str = "") -> Bucket:
        """That the user may use so, by a right or by this grant of the bucket's list. Raises S3Error: NoSuchBucket,
        AccessDenied."""
        bucket = await self._looked()
        if not self._right(bucket, write):
            if not grant or not self._listed(bucket, lists.of_bucket(bucket), grant):
                raise S3Error("AccessDenied")
            self.granted = True
        return bucket

    async def bucket_of_object(self, *, write: bool) -> Bucket:
        """Of an object that the user may use by a right, or by the object's own list: see ``found`` and ``check``."""
        bucket = await self._looked()
        if not self._right(bucket, write):
            if not self.acl:
                raise S3Error("AccessDenied")
            self.granted = True
        return bucket

    async def _looked(self) -> Bucket:
        if self._bucket is None:
            self._bucket = await self.place.bucket(self.bucket_name)
        expected = self.headers.get("x-amz-expected-bucket-owner")
        if expected is not None and expected != self._bucket.owner:
            raise S3Error("AccessDenied")
        return self._bucket

    def _right(self, bucket: Bucket, write: bool) -> bool:
        allowed = self.user.may_write if write else self.user.may_read
        return allowed(bucket.name, bucket.owner)

    def _listed(self, bucket: Bucket, grants: lists.Grants, permission: str) -> bool:
        name = self.user.name
        if not self.acl or (self.user.read_only and name != lists.ANONYMOUS and permission.startswith("WRITE")):
            return False
        return lists.permits(bucket, grants, name, permission)

    async def found(self, bucket: Bucket, looking: Awaitable[_T]) -> _T:
        """Who may not list the bucket is not told what is not in it. Raises S3Error."""
        try:
            return await looking
        except S3Error as error:
            hidden = self.granted and error.code in ("NoSuchKey", "NoSuchVersion")
            if hidden and not self._listed(bucket, lists.of_bucket(bucket), lists.READ):
                raise S3Error("AccessDenied") from None
            raise

    def check(self, bucket: Bucket, found: Object, permission: str) -> None:
        """Raises S3Error: AccessDenied unless a right or the object's list allows it."""
        if not self.granted or self._listed(bucket, lists.of_object(found, bucket), permission):
            return
        own = self.acl and found.owner == self.user.name and self.user.name != lists.ANONYMOUS
        if not own or not permission.endswith("_ACP") or self.user.read_only:
            raise S3Error("AccessDenied")

    async def owned(self, grant: str = "") -> Bucket:
        """That is the user's own to configure, or for which its list grants that."""
        bucket = await self.bucket(write=True, grant=grant)
        if self.granted or self.owns:
            return bucket
        if not grant or not self._listed(bucket, lists.of_bucket(bucket), grant):
            raise S3Error("AccessDenied")
        return bucket

    @property
    def owns(self) -> bool:
        """The bucket, once it was asked for; or is an admin."""
        return self.user.admin or (self._bucket is not None and self._bucket.owner == self.user.name)

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
        if BAD_ESCAPE.search(text):
            message = "Invalid copy source encoding."
            raise S3Error("InvalidArgument", message, ArgumentName="x-amz-copy-source")
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
        bucket = await self.place.bucket(name)
        if not self._right(bucket, write=False):
            if not self.acl:
                raise S3Error("AccessDenied")
            self._source = bucket  # the object's list is asked
        return Source(name, key, version)

    async def source_found(self, looking: Awaitable[Object]) -> Object:
        """Raises S3Error."""
        try:
            found = await looking
        except S3Error as error:
            if self._source is not None and error.code in ("NoSuchKey", "NoSuchVersion"):
                raise S3Error("AccessDenied") from None
            raise
        self.check_source(found)
        return found

    @property
    def source_granted(self) -> bool:
        """Whether the source may be read only because its list says so; that says nothing of its tags."""
        return self._source is not None

    def check_source(self, found: Object) -> None:
        """Raises S3Error: AccessDenied."""
        bucket = self._source
        if bucket is not None and not self._listed(bucket, lists.of_object(found, bucket), lists.READ):
            raise S3Error("AccessDenied")
