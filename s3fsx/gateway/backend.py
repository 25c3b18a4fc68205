"""What the gateway asks of a place for objects.

A backend keeps buckets, objects, uploads; it knows neither HTTP nor XML nor signatures. What it has answered for is on
disk. Bytes come as an asynchronous iterator that raises when they are wrong (too short, another checksum): nothing of
them may then be visible. What an object is called (its ETag, its checksums) is known only behind the last byte, so it
is asked for by ``finish``. Every condition (If-Match and its like) is a function that gets what is there at the moment
of the change, atomically with it. ``tests/gateway/test_backend.py`` is what every backend has to pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .model import Bucket, Deleted, Object, Page, Part, Query, Upload, UploadPage

Finish = Callable[[int], Object]  # the number of bytes -> what the object is
FinishPart = Callable[[int], Part]
FinishUpload = Callable[[Sequence[Part]], Object]
Condition = Callable[[Object | None], None]  # raises S3Error
Guard = Callable[[Object], None]
Change = Callable[[Object], Object]


@dataclass(frozen=True, slots=True)
class Opened:
    """An object under way to a reader, who closes the descriptor."""

    object: Object
    descriptor: int


@dataclass(frozen=True, slots=True)
class Source:
    """Of a copy. first, length: bytes; length -1: to the end."""

    bucket: str
    key: str
    version: str = ""
    first: int = 0
    length: int = -1


class Buckets(ABC):
    """Which buckets there are, and whose. All raise S3Error."""

    @abstractmethod
    async def buckets(self) -> Sequence[Bucket]: ...
    @abstractmethod
    async def bucket(self, name: str) -> Bucket: ...


class Backend(Buckets):
    """Names of buckets and keys have been checked: valid, at most 1024 bytes. All raise S3Error."""

    @abstractmethod
    async def create_bucket(self, bucket: Bucket) -> None: ...
    @abstractmethod
    async def delete_bucket(self, name: str) -> None: ...
    @abstractmethod
    async def configure(self, name: str, settings: Mapping[str, Any]) -> None:
        """Takes over the settings; a value None removes one."""

    @abstractmethod
    async def head(self, bucket: str, key: str, version: str = "") -> Object: ...
    @abstractmethod
    async def open(self, bucket: str, key: str, version: str = "") -> Opened: ...
    @abstractmethod
    async def put(
        self, bucket: str, key: str, body: AsyncIterator[bytes], finish: Finish, condition: Condition
    ) -> Object: ...
    @abstractmethod
    async def copy(
        self, source: Source, bucket: str, key: str, change: Change, condition: Condition, algorithm: str = ""
    ) -> Object:
        """change: of the source's attributes to those of the copy. algorithm: of a checksum it shall have, which the
        source may not."""

    @abstractmethod
    async def update(self, bucket: str, key: str, version: str, change: Change) -> Object: ...
    @abstractmethod
    async def delete(self, bucket: str, key: str, version: str, condition: Condition, guard: Guard) -> Deleted: ...
    @abstractmethod
    async def list(self, bucket: str, query: Query) -> Page: ...
    @abstractmethod
    async def list_versions(self, bucket: str, query: Query) -> Page: ...

    @abstractmethod
    async def create_upload(self, bucket: str, attributes: Object) -> Upload: ...
    @abstractmethod
    async def upload(self, bucket: str, key: str, upload: str) -> Upload: ...
    @abstractmethod
    async def put_part(self, bucket: str, upload: str, body: AsyncIterator[bytes], finish: FinishPart) -> Part: ...
    @abstractmethod
    async def copy_part(self, source: Source, bucket: str, upload: str, number: int, algorithm: str) -> Part:
        """algorithm: of the checksum; "" for none."""

    @abstractmethod
    async def parts(self, bucket: str, upload: str) -> Sequence[Part]: ...
    @abstractmethod
    async def list_uploads(self, bucket: str, query: Query) -> UploadPage: ...
    @abstractmethod
    async def complete(
        self, bucket: str, upload: str, numbers: Sequence[int], finish: FinishUpload, condition: Condition
    ) -> Object: ...
    @abstractmethod
    async def abort(self, bucket: str, upload: str) -> None: ...
