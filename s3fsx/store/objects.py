"""Values that travel between the store and the file system, and the store's interface.

Everything here is immutable and free of I/O, so that the domain layer runs in tests on an
in-memory store with trio's MockClock. Sizes and offsets are bytes, times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import StoreError
from .checksum import crc32_of_grains, grain_crcs

# Hard limits of S3 (Amazon S3 User Guide, "Multipart upload limits").
MIN_PART = 5 << 20
MAX_PART = 5 << 30
MAX_PARTS = 10_000
MAX_OBJECT = 5 << 40
MAX_COPY = 5 << 30  # CopyObject; above it UploadPartCopy
LIST_LIMIT = 1000

# Metadata (x-amz-meta-) that carries the random id of one publication: tells our own object from another's.
WRITE_ID = "s3fsx-write"
# Metadata of a copy that was made in parts, which has a write id of its own: the ETag of what it was copied from.
COPY_OF = "s3fsx-copy-of"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of one object as LIST or HEAD told it.

    etag is without quotes. metadata is None when nobody asked (a listing does not say). opaque_etag: it is no digest
    of the bytes, whatever it looks like, because the object is encrypted with a key of KMS or of a customer (a listing
    does not say, either).
    """

    key: str
    size: int
    etag: str
    modified: float
    storage_class: str = "STANDARD"
    metadata: Mapping[str, str] | None = None
    opaque_etag: bool = False


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of ListObjectsV2: objects, common prefixes, and the token of the next page (None: last)."""

    objects: tuple[ObjectInfo, ...] = ()
    prefixes: tuple[str, ...] = ()
    next_token: str | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes on their way to the store, in chunks, with the CRC-32s of their grains (see ``checksum``), taken when they
    were handed to us.

    The store must refuse (Corrupted) to send chunks whose CRCs differ: that is a bug or bad memory
    between the kernel's write and the wire.
    """

    chunks: Sequence[bytes | bytearray | memoryview]
    size: int
    grains: bytes

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Payload:
        return cls((data,), len(data), grain_crcs((data,)))

    @property
    def crc32(self) -> int:
        return crc32_of_grains(self.grains, self.size)


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part the store has acknowledged. crc32 is ours, or for copied and listed parts the store's own (None:
    it tells none). grains: CRC-32s as ``checksum`` makes them, b"" where nobody knows them."""

    number: int
    size: int
    etag: str
    crc32: int | None = None
    grains: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """An unfinished multipart upload as ListMultipartUploads told it."""

    key: str
    upload_id: str
    initiated: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the probe found the store to do. The defaults are the cautious answers.

    integrity: how a part is verified on its way: "crc32" (the store refuses a wrong
        x-amz-checksum-crc32), "sha256" (it refuses a wrong x-amz-content-sha256) or
        "etag" (it checks neither; the MD5 of what was sent is compared with the part's ETag).
    conditional_put: PUT with If-None-Match: * is honoured and atomic.
    conditional_complete: the same for CompleteMultipartUpload.
    part_copy: UploadPartCopy works.
    md5_etags: the ETag of an object written in one piece is the MD5 of its bytes, unless the object is encrypted with a
        key of KMS or of a customer. None: nobody has tried (a read-only mount may not).
    object_lock: the bucket has Object Lock: a version with a legal hold or a retention cannot be deleted by anybody.
    """

    integrity: str = "etag"
    conditional_put: bool = False
    conditional_complete: bool = False
    part_copy: bool = True
    md5_etags: bool | None = None
    object_lock: bool = False
    notes: tuple[str, ...] = field(default=())


class Store(Protocol):
    """An object store, asynchronous and already hardened: every call retries what is worth it, ends by
    its own deadline, most also when an outage has lasted too long (see ``patience``), and raises from ``errors`` only
    (StoreError, EndpointDown, DeadlineExceeded). A change of a key waits for an earlier one whose call was given up.

    ``metadata`` maps lower-case names without ``x-amz-meta-`` to strings.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def down(self) -> bool:
        """True while the endpoint is considered unreachable (the breaker is open)."""
        ...

    def patience(self, what: str) -> AbstractContextManager[None]:
        """Around a wait for something else than a request, while the kernel holds a directory: EndpointDown when it is
        not over by the time an outage has lasted for ``outage_patience``."""
        ...

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        limit: int = LIST_LIMIT,
        early: Callable[[str], object] | None = None,
    ) -> ListPage:
        """One page below prefix in key order; delimiter "" lists the whole subtree. The object named exactly
        like the prefix is included where it exists. early: is told the token of the next page, where the store can tell
        it before this one is read to its end; it may be another one in the end, after a retry."""
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Raises NotFound. metadata is always filled."""
        ...

    async def get_range(self, key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        """Exactly ``length`` bytes (the caller stays within the object) of the version ``etag``
        ("" for any). size: of the whole object, for what may have to be fetched around the range to verify it; 0 where
        the caller does not know. Raises Changed when another version is there, NotFound when none is."""
        ...

    async def get(self, key: str, *, limit: int) -> bytes:
        """The whole of an object of unknown size, whichever version is there. Raises TooLarge above ``limit`` bytes,
        NotFound."""
        ...

    async def put(
        self, key: str, payload: Payload, *, metadata: Mapping[str, str], only_if_absent: bool = False
    ) -> ObjectInfo:
        """Raises Exists with only_if_absent where the store supports it (capabilities.conditional_put)."""
        ...

    async def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str: ...

    async def upload_part(self, key: str, upload_id: str, number: int, payload: Payload) -> UploadedPart:
        """Number from 1. Sending a number again replaces it. Raises Corrupted, UploadGone."""
        ...

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: str, start: int, length: int, *, etag: str
    ) -> UploadedPart:
        """UploadPartCopy of a range of the version ``etag`` of source ("" for any)."""
        ...

    async def list_parts(self, key: str, upload_id: str) -> tuple[UploadedPart, ...]:
        """All parts, in number order (every page of them). Raises UploadGone."""
        ...

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, only_if_absent: bool = False
    ) -> str:
        """The object's ETag, "" where the store does not say it. Raises UploadGone when the upload is not there (any
        more); Exists as put does. A repeat of a call that
        already took effect succeeds, while its object is still there."""
        ...

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """An upload that is gone already is fine."""
        ...

    async def list_uploads(self, prefix: str) -> tuple[UploadInfo, ...]: ...

    async def copy(
        self, source: str, target: str, *, etag: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """CopyObject of up to MAX_COPY bytes; metadata None keeps the source's. Returns the target's HEAD."""
        ...

    async def delete(self, key: str, *, known: ObjectInfo | None = None) -> None:
        """A key that is gone already is fine. known: the version the caller believes to be there; what is kept about
        that one elsewhere goes, too."""
        ...

    async def delete_many(self, doomed: Mapping[str, ObjectInfo | None]) -> Mapping[str, StoreError]:
        """``delete`` of many keys, each with the version the caller believes to be there (None: he does not know), in
        any order and with fewer requests where the store can. The errors of those that are still there, by key; raises
        what says nothing about one of them (EndpointDown, DeadlineExceeded): then any may be gone."""
        ...

    async def legal_hold(self, key: str) -> bool:
        """Whether the current version has a legal hold. Raises NotFound. This and the next two: only with
        capabilities.object_lock."""
        ...

    async def set_legal_hold(self, key: str, on: bool) -> None:
        """Of the current version. Raises NotFound."""
        ...

    async def retained_until(self, key: str) -> float:
        """When the retention of the current version ends (Unix seconds); 0 without one. Raises NotFound."""
        ...
