"""An object store in memory with the semantics of S3, for tests of everything above the store.

It keeps what a real store enforces (part order and sizes, conditions, composite ETags, key order by
UTF-8 bytes, paging that counts prefixes) and lets a test decide what goes wrong and when. All waiting is
``trio.sleep``, so an autojump clock makes it instant. Contract tests run the same suite on this class, on
moto and on Ceph RGW.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from hashlib import md5

import trio

from s3fsx.errors import (
    BadRange,
    Changed,
    Corrupted,
    DeadlineExceeded,
    EndpointDown,
    Exists,
    NotFound,
    NotSupported,
    Rejected,
    StoreError,
    TooLarge,
    UploadGone,
)
from s3fsx.store.checksum import grain_crcs
from s3fsx.store.objects import (
    LIST_LIMIT,
    MAX_COPY,
    MAX_PARTS,
    MIN_PART,
    Capabilities,
    ListPage,
    ObjectInfo,
    Payload,
    UploadedPart,
    UploadInfo,
)
from s3fsx.store.patience import Patience

# Seconds until a hung call of each kind gives up; the defaults of S3Options.
DEADLINES = {"get_range": 60.0, "get": 60.0, "put": 120.0, "upload_part": 120.0, "copy_part": 120.0, "copy": 120.0}
DEADLINES |= {"complete_upload": 120.0, "list_parts": 120.0, "abort_upload": 120.0}
METADATA_DEADLINE = 10.0
# S3Store keeps retrying these while the endpoint is down: until their own deadline, or as long as it has patience.
THROUGH_OUTAGE = frozenset({"upload_part", "copy_part", "complete_upload", "list_parts", "abort_upload"})
PATIENT = THROUGH_OUTAGE - {"upload_part"} | {"copy", "list_page", "head", "get_range", "list_uploads"}


@dataclass
class _Object:
    data: bytes
    etag: str
    modified: float
    metadata: dict[str, str]
    upload_id: str = ""
    held: bool = False
    retained: float = 0.0  # Unix seconds


@dataclass
class _Upload:
    key: str
    metadata: dict[str, str]
    initiated: float
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)


@dataclass
class _Fault:
    error: BaseException
    after_effect: bool
    times: int


class FakeStore:
    """Implements ``s3fsx.store.objects.Store``.

    log: one ``(operation, key)`` per call that reached the store (list_page, list_uploads: the prefix; copies: the
        target).
    peak: the highest number of simultaneous calls per operation.
    down: set it to True for an outage: calls fail with EndpointDown at once, those of THROUGH_OUTAGE wait.
    latency: (low, high) seconds, drawn per call from a generator with this seed.
    retention: seconds for which the bucket's default retention keeps what is written from now on.
    hidden: keys of versions under a hold or retention that a delete marker or a new version has hidden: nothing but
        what s3fsx takes for scratch may ever be there.
    min_part: smallest part that is not the last; lower it where 5 MiB parts would only slow the test.
    """

    def __init__(
        self,
        *,
        capabilities: Capabilities | None = None,
        latency: tuple[float, float] = (0.0, 0.0),
        seed: int = 0,
        min_part: int = MIN_PART,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.capabilities = capabilities or Capabilities(
            "crc32", conditional_put=True, conditional_complete=True, md5_etags=True
        )
        self._up = trio.Event()
        self._up.set()
        self._patience = Patience(30.0)
        self.latency = latency
        self.log: list[tuple[str, str]] = []
        self.peak: Counter[str] = Counter()
        self.objects: dict[str, _Object] = {}
        self.uploads: dict[str, _Upload] = {}
        self._min_part = min_part
        self._now = now
        self._random = random.Random(seed)
        self._active: Counter[str] = Counter()
        self._faults: defaultdict[str, list[_Fault]] = defaultdict(list)
        self._hung: dict[str, trio.Event] = {}
        self._uploads_made = 0
        self.retention = 0.0
        self.composite_etag = ""  # what completed uploads get instead of Amazon's
        self.hidden: list[str] = []
        self.undeletable: dict[str, StoreError] = {}  # by ``delete_many``

    # What a test does to the store.

    def fail_next(self, op: str, error: BaseException, *, after_effect: bool = False, times: int = 1) -> None:
        """The next ``times`` calls of op raise error, with after_effect only once the store has changed."""
        self._faults[op].append(_Fault(error, after_effect, times))

    @property
    def down(self) -> bool:
        return not self._up.is_set()

    @down.setter
    def down(self, value: bool) -> None:
        self._up.set()  # wakes those who wait; an outage that goes on makes them wait again
        if value:
            self._up = trio.Event()
            self._patience.outage()
        else:
            self._patience.recovery()

    def patience(self, what: str) -> AbstractContextManager[None]:
        return self._patience.scope(what)

    def hang(self, op: str) -> None:
        """Calls of op wait, until ``release(op)`` or their deadline (then DeadlineExceeded, without effect)."""
        self._hung[op] = trio.Event()

    def release(self, op: str) -> None:
        self._hung.pop(op).set()

    def poke(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> ObjectInfo:
        """Somebody else writes an object."""
        return self._store(key, data, metadata or {})

    def remove(self, key: str) -> None:
        """Somebody else deletes an object."""
        del self.objects[key]

    def hold(self, key: str, on: bool = True) -> None:
        """Somebody else sets or lifts a legal hold."""
        self.objects[key].held = on

    def data(self, key: str) -> bytes:
        return self.objects[key].data

    def keys(self) -> list[str]:
        return sorted(self.objects, key=str.encode)

    def count(self, op: str) -> int:
        return sum(1 for name, _ in self.log if name == op)

    # The Store protocol.

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        limit: int = LIST_LIMIT,
        early: Callable[[str], object] | None = None,
    ) -> ListPage:
        async with self._call("list_page", prefix):
            objects: list[ObjectInfo] = []
            prefixes: list[str] = []
            last = token
            for key in self.keys():
                if not key.startswith(prefix):
                    continue
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                name = key if cut < 0 else key[: cut + len(delimiter)]
                if last is not None and name.encode() <= last.encode():
                    continue  # an earlier page had it, or it is one more key below the same common prefix
                if len(objects) + len(prefixes) == min(limit, LIST_LIMIT):
                    if early is not None and last is not None:
                        early(last)
                    return ListPage(tuple(objects), tuple(prefixes), last)
                last = name
                if cut < 0:
                    objects.append(self._info(key, with_metadata=False))
                else:
                    prefixes.append(name)
            return ListPage(tuple(objects), tuple(prefixes))

    async def head(self, key: str) -> ObjectInfo:
        async with self._call("head", key):
            return self._info(key)

    async def get_range(self, key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        if length == 0:
            return b""
        async with self._call("get_range", key):
            found = self._get(key, etag)
            if start + length > len(found.data):
                raise BadRange(f"GET {key}: {start}+{length} is beyond {len(found.data)}")
            return found.data[start : start + length]

    async def get(self, key: str, *, limit: int) -> bytes:
        async with self._call("get", key):
            found = self._get(key, "")
            if len(found.data) > limit:
                raise TooLarge(f"GET {key}: {len(found.data)} bytes, of at most {limit}")
            return found.data

    async def put(
        self, key: str, payload: Payload, *, metadata: Mapping[str, str], only_if_absent: bool = False
    ) -> ObjectInfo:
        data = _joined(payload)
        async with self._call("put", key):
            if only_if_absent and self.capabilities.conditional_put and key in self.objects:
                raise Exists(f"PUT {key}: 412 PreconditionFailed")
            return self._store(key, data, metadata)

    async def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        async with self._call("create_upload", key):
            self._uploads_made += 1
            upload_id = f"upload-{self._uploads_made}"
            self.uploads[upload_id] = _Upload(key, _checked(metadata), self._now())
            return upload_id

    async def upload_part(self, key: str, upload_id: str, number: int, payload: Payload) -> UploadedPart:
        data = _joined(payload)
        async with self._call("upload_part", key):
            etag = self._put_part(key, upload_id, number, data)
            return UploadedPart(number, len(data), etag, payload.crc32)

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: str, start: int, length: int, *, etag: str
    ) -> UploadedPart:
        async with self._call("copy_part", key):
            if not self.capabilities.part_copy:
                raise NotSupported(f"COPY PART {key}: 501 NotImplemented")
            found = self._get(source, etag)
            if length < 1 or start + length > len(found.data):
                raise BadRange(f"COPY PART {source}: {start}+{length} is beyond {len(found.data)}")
            part_etag = self._put_part(key, upload_id, number, found.data[start : start + length])
            return UploadedPart(number, length, part_etag)

    async def list_parts(self, key: str, upload_id: str) -> tuple[UploadedPart, ...]:
        async with self._call("list_parts", key):
            parts = self._upload(key, upload_id).parts
            return tuple(UploadedPart(number, len(data), etag) for number, (data, etag) in sorted(parts.items()))

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, only_if_absent: bool = False
    ) -> str:
        async with self._call("complete_upload", key):
            if key in self.objects and self.objects[key].upload_id == upload_id:
                return self.objects[key].etag  # a repeat of what has already taken effect
            upload = self._upload(key, upload_id)
            if only_if_absent and self.capabilities.conditional_complete and key in self.objects:
                raise Exists(f"COMPLETE {key}: 412 PreconditionFailed")
            if not parts:
                raise Rejected(f"COMPLETE {key}: 400 MalformedXML")
            numbers = [part.number for part in parts]
            if numbers != sorted(set(numbers)):
                raise Rejected(f"COMPLETE {key}: 400 InvalidPartOrder")
            for part in parts:
                data, etag = upload.parts.get(part.number, (b"", ""))
                if etag != part.etag:
                    raise Rejected(f"COMPLETE {key}: 400 InvalidPart: part {part.number}")
                if len(data) < self._min_part and part.number != numbers[-1]:
                    raise Rejected(f"COMPLETE {key}: 400 EntityTooSmall: part {part.number} has {len(data)} bytes")
            digest = md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False).hexdigest()
            body = b"".join(upload.parts[number][0] for number in numbers)
            etag = self.composite_etag or f"{digest}-{len(parts)}"
            self._store(key, body, upload.metadata, etag=etag)
            self.objects[key].upload_id = upload_id
            del self.uploads[upload_id]
            return etag

    async def abort_upload(self, key: str, upload_id: str) -> None:
        async with self._call("abort_upload", key):
            self.uploads.pop(upload_id, None)

    async def list_uploads(self, prefix: str) -> tuple[UploadInfo, ...]:
        async with self._call("list_uploads", prefix):
            found = [UploadInfo(u.key, uid, u.initiated) for uid, u in self.uploads.items() if u.key.startswith(prefix)]
            return tuple(sorted(found, key=lambda upload: (upload.key.encode(), upload.initiated, upload.upload_id)))

    async def copy(
        self, source: str, target: str, *, etag: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        async with self._call("copy", target):
            found = self._get(source, etag)
            if len(found.data) > MAX_COPY:
                raise TooLarge(f"COPY {source}: {len(found.data)} bytes need UploadPartCopy")
            if source == target and metadata is None:
                raise Rejected(f"COPY {source}: 400 InvalidRequest: onto itself without a change")
            return self._store(target, found.data, found.metadata if metadata is None else metadata)

    async def delete(self, key: str, *, known: ObjectInfo | None = None) -> None:
        async with self._call("delete", key):
            self._hide(key)
            self.objects.pop(key, None)

    async def delete_many(self, doomed: Mapping[str, ObjectInfo | None]) -> Mapping[str, StoreError]:
        if not doomed:
            return {}
        failed: dict[str, StoreError] = {}
        async with self._call("delete_many", next(iter(doomed))):
            for key in doomed:
                await self._one_of_many(key)
                if key in self.undeletable:
                    failed[key] = self.undeletable[key]
                    continue
                self._hide(key)
                self.objects.pop(key, None)
        return failed

    async def _one_of_many(self, key: str) -> None:
        """Before each: real stores are not done with all of them in one moment."""
        await trio.lowlevel.checkpoint()

    async def legal_hold(self, key: str) -> bool:
        async with self._call("legal_hold", key):
            return self._get(key, "").held

    async def set_legal_hold(self, key: str, on: bool) -> None:
        async with self._call("set_legal_hold", key):
            self._get(key, "").held = on

    async def retained_until(self, key: str) -> float:
        async with self._call("retained_until", key):
            return self._get(key, "").retained

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def _call(self, op: str, key: str) -> AsyncIterator[None]:
        self._active[op] += 1
        self.peak[op] = max(self.peak[op], self._active[op])
        try:
            await self._arrive(op, key)
            self.log.append((op, key))
            fault = self._next_fault(op)
            if fault and not fault.after_effect:
                raise fault.error
            yield
            if fault:
                raise fault.error
        finally:
            self._active[op] -= 1

    async def _arrive(self, op: str, key: str) -> None:
        deadline = DEADLINES.get(op, METADATA_DEADLINE)
        if self.down and op not in THROUGH_OUTAGE:
            raise EndpointDown(f"{op} {key}: the endpoint is down")
        patience = self.patience(f"{op} {key}") if op in PATIENT else nullcontext()
        with patience, trio.move_on_after(deadline):
            await trio.sleep(self._random.uniform(*self.latency))
            while self.down:
                await self._up.wait()
            while op in self._hung:
                await self._hung[op].wait()
            return
        raise DeadlineExceeded(f"{op} {key}: no answer within {deadline:.0f} s")

    def _next_fault(self, op: str) -> _Fault | None:
        waiting = self._faults[op]
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    def _info(self, key: str, *, with_metadata: bool = True) -> ObjectInfo:
        found = self._get(key, "")
        metadata = dict(found.metadata) if with_metadata else None
        return ObjectInfo(key, len(found.data), found.etag, found.modified, metadata=metadata)

    def _get(self, key: str, etag: str) -> _Object:
        found = self.objects.get(key)
        if found is None:
            raise NotFound(f"{key}: 404 NoSuchKey")
        if etag and found.etag != etag:
            raise Changed(f"{key}: 412 PreconditionFailed")
        return found

    def _hide(self, key: str) -> None:
        """In a bucket with Object Lock, and so with versions, deleting and replacing always succeed."""
        there = self.objects.get(key)
        if there is not None and (there.held or there.retained > self._now()):
            self.hidden.append(key)

    def _store(self, key: str, data: bytes, metadata: Mapping[str, str], *, etag: str = "") -> ObjectInfo:
        self._hide(key)
        made = _Object(data, etag or md5(data, usedforsecurity=False).hexdigest(), self._now(), _checked(metadata))
        made.retained = self._now() + self.retention if self.retention else 0.0
        self.objects[key] = made
        return self._info(key)

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadGone(f"{key}: 404 NoSuchUpload")
        return upload

    def _put_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        if not 1 <= number <= MAX_PARTS:
            raise TooLarge(f"{key}: part {number} of at most {MAX_PARTS}")
        etag = md5(data, usedforsecurity=False).hexdigest()
        self._upload(key, upload_id).parts[number] = (data, etag)
        return etag


def _joined(payload: Payload) -> bytes:
    data = b"".join(payload.chunks)
    if len(data) != payload.size or grain_crcs(payload.chunks) != payload.grains:
        raise Corrupted(f"payload of {payload.size} bytes does not match its checksum")
    return data


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    for name, value in metadata.items():
        if not (name + value).isascii() or name != name.lower():
            raise Rejected(f"metadata {name!r} is not lower-case ASCII")
    return dict(metadata)
