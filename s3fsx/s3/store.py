"""The object store: the S3 requests behind each method of ``objects.Store``, and what makes them safe to repeat.

Metadata given to ``put`` and ``create_upload`` should carry a value under WRITE_ID that no other write has. When an
attempt fails after its effect (a lost answer) and the next one finds its own object in the way, that value, read
back by HEAD, tells it from somebody else's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import trio

from ..errors import (
    Changed,
    Corrupted,
    DeadlineExceeded,
    EndpointDown,
    Exists,
    NotFound,
    NotSupported,
    Rejected,
    S3fsxError,
    ServerFault,
    StoreError,
    Transient,
    UploadGone,
)
from ..metrics.traffic import Traffic
from ..store.endpoint import Endpoint
from ..store.objects import LIST_LIMIT, WRITE_ID, Capabilities, ListPage, ObjectInfo, Payload, UploadedPart, UploadInfo
from . import answers, calls
from .batch import BatchDelete
from .body import Body, CorruptedInMemory, TwoFacedBody, crc32_header
from .calls import call, nothing, sender
from .client import ClientMaker, failure
from .effects import check_still, copied, written_by_us
from .hidden import missing_object, missing_upload
from .lanes import Lane, Lanes, Requests
from .options import S3Options
from .params import ParamMaker, Params

T = TypeVar("T")

MOST_PAGES = 1000  # of unfinished uploads, which are a million; or a store that leads us in circles
SENDS = 3  # how often bytes that arrive wrong are sent before it is Corrupted

log = logging.getLogger("s3fsx.s3")


class S3Store:
    """Implements ``s3fsx.store.objects.Store``.

    capabilities: cautious until ``probe.probe`` has found out; it may be replaced at any time before uploads begin.
    """

    def __init__(self, options: S3Options, endpoint: Endpoint, capabilities: Capabilities | None = None) -> None:
        self.options = options
        self.capabilities = capabilities or Capabilities()
        self._endpoint = endpoint
        self.traffic = Traffic()
        self.requests = self.traffic.requests
        self._requests = Requests(endpoint, ClientMaker(options), self._failure, self.traffic)
        self._lanes = Lanes(options)
        self._make = ParamMaker(options)
        self._batch = BatchDelete(self._requests, self._lanes.change, self._make, self.delete)
        self._write_ids: dict[str, str] = {}  # of unfinished uploads created here, by upload id

    async def __aenter__(self) -> S3Store:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    def down(self) -> bool:
        return self._endpoint.down

    def patience(self, what: str) -> AbstractContextManager[None]:
        return self._endpoint.patience.scope(what)

    def reset_counters(self) -> None:
        """Count from here: what the probe provoked says nothing about the mount."""
        self.traffic.reset()
        self._endpoint.reset_counters()

    def _failure(self, what: str, error: Exception) -> S3fsxError:
        self.traffic.seen(getattr(error, "response", {}))  # a clock that is wrong is told with a refusal
        return failure(what, error)

    async def aclose(self) -> None:
        self._requests.close()
        await trio.lowlevel.checkpoint()

    async def ping(self) -> None:
        """One cheap request for ``Endpoint.watch``: no retry, no breaker. Any StoreError but Transient means alive."""
        params = self._make.page("", "/", None, 1)
        await self._requests.once(
            self._lanes.ping, "ListObjectsV2", "LIST", call("list_objects_v2", params, self.traffic.seen)
        )

    # Reading.

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "/",
        token: str | None = None,
        limit: int = LIST_LIMIT,
        early: Callable[[str], object] | None = None,
    ) -> ListPage:
        params = self._make.page(prefix, delimiter, token, limit)
        work = calls.page(params, prefix, self.traffic, early)
        return await self._requests.run(self._lanes.ask, "ListObjectsV2", f"LIST {prefix}", work)

    async def head(self, key: str) -> ObjectInfo:
        return await self._head(self._lanes.ask, key)

    async def _head(self, lane: Lane, key: str) -> ObjectInfo:
        work = call("head_object", self._make.target(key), partial(answers.head, key))
        async with missing_object(self, key):
            return await self._requests.run(lane, "HeadObject", f"HEAD {key}", work)

    async def get_range(self, key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        if length == 0:
            return b""
        what = f"GET {key}"

        def read(answer: Params) -> bytes:
            check = partial(answers.check_range, answer, what, start, length, etag)
            return calls.body(answer, what, length, check, self.traffic)

        work = call("get_object", self._make.range(key, start, length, etag), read)
        async with missing_object(self, key, known=bool(etag)):
            return await self._requests.run(self._lanes.download, "GetObject", what, work)

    async def get(self, key: str, *, limit: int) -> bytes:
        what = f"GET {key}"

        def read(answer: Params) -> bytes:
            check = partial(answers.check_size, answer, what, limit)
            return calls.body(answer, what, answer["ContentLength"], check, self.traffic)

        work = call("get_object", self._make.target(key), read)
        async with missing_object(self, key):
            return await self._requests.run(self._lanes.download, "GetObject", what, work)

    async def list_parts(self, key: str, upload_id: str) -> tuple[UploadedPart, ...]:
        return await self._requests.before(self._lanes.publish, partial(self._list_parts, key, upload_id))

    async def _list_parts(self, key: str, upload_id: str) -> tuple[UploadedPart, ...]:
        parts: list[UploadedPart] = []
        params = self._make.upload(key, upload_id)
        while True:
            work = call("list_parts", params, partial(answers.parts, after=parts[-1].number if parts else 0))
            async with missing_upload(self, key, upload_id):
                page, more = await self._requests.run(self._lanes.settle, "ListParts", f"LIST PARTS {key}", work)
            parts += page
            if not more:
                return tuple(parts)
            params["PartNumberMarker"] = page[-1].number

    async def list_uploads(self, prefix: str) -> tuple[UploadInfo, ...]:
        uploads: list[UploadInfo] = []
        params, what = self._make.uploads(prefix), f"LIST UPLOADS {prefix}"
        for _ in range(MOST_PAGES):
            work = call("list_multipart_uploads", params, partial(answers.uploads, prefix=prefix))
            page, marker = await self._requests.run(self._lanes.ask, "ListMultipartUploads", what, work)
            uploads += page
            if not marker:
                return tuple(uploads)
            if marker.items() <= params.items():
                break
            params |= marker
        raise ServerFault(f"{what}: there is no end of its pages")

    # Whole objects.

    async def put(
        self, key: str, payload: Payload, *, metadata: Mapping[str, str], only_if_absent: bool = False
    ) -> ObjectInfo:
        conditional = only_if_absent and self.capabilities.conditional_put
        params = self._make.target(key) | self._make.new_object(metadata)
        if conditional:
            params["IfNoneMatch"] = "*"
        sends = 1 if conditional else SENDS  # what arrived wrong would be in the way of the second
        try:
            work = sender(
                self.capabilities.integrity,
                "put_object",
                f"PUT {key}",
                params,
                payload,
                lambda answer: answer,
                self.traffic,
                md5_etag=self.capabilities.md5_etags is True,
            )
            answer = await self._send(self._lanes.put, "PutObject", f"PUT {key}", work, sends, key)
        except Changed as error:
            there = await written_by_us(self.head, key, payload.size, metadata.get(WRITE_ID), "")
            if there is None:
                raise Exists(str(error)) from None
            return there
        etag, modified = answers.written(answer), answers.answered_at(answer)
        return ObjectInfo(key, payload.size, etag, modified, self.options.storage_class or "STANDARD", dict(metadata))

    async def copy(
        self, source: str, target: str, *, etag: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        params = self._make.target(target) | self._make.source(source, etag) | self._make.new_object(metadata)
        params["MetadataDirective"] = "COPY" if metadata is None else "REPLACE"
        work, what = call("copy_object", params, answers.copied), f"COPY {source} to {target}"
        if source == target:
            if etag:
                await check_still(self.head, source, etag)
            await self._requests.run(self._lanes.copy, "CopyObject", what, work, target)
            return await self.head(target)
        original = await check_still(self.head, source, etag)  # before the target is touched
        try:
            await self._requests.run(self._lanes.copy, "CopyObject", what, work, target)
        except (Transient, DeadlineExceeded, EndpointDown) as error:
            # They may have begun the outage.
            late = partial(self._head, replace(self._lanes.ask, through_outage=True))
            if (there := await copied(late, original, target, metadata)) is None:
                raise error from None
            return there
        if etag:
            await check_still(self.head, source, etag)
        return await self.head(target)

    async def delete(self, key: str, *, known: ObjectInfo | None = None) -> None:
        try:
            work = call("delete_object", self._make.target(key), answers.removed)
            await self._requests.run(self._lanes.change, "DeleteObject", f"DELETE {key}", work, key)
        except NotFound:
            return

    async def delete_many(self, doomed: Mapping[str, ObjectInfo | None]) -> Mapping[str, StoreError]:
        return await self._batch.delete(doomed.keys())

    # Objects in parts.

    async def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        params = self._make.target(key) | self._make.new_object(metadata)
        if self.capabilities.integrity == "crc32":
            params["ChecksumAlgorithm"] = "CRC32"  # Amazon refuses a part's checksum that was not announced here
        work = call("create_multipart_upload", params, lambda answer: answers.upload_id(answer["UploadId"]))
        what = f"CREATE UPLOAD {key}"
        # Once: when the answer is lost the upload may be there, and only the caller's journal can find it.
        lane = replace(self._lanes.change, attempts=1)
        create = partial(self._requests.run, lane, "CreateMultipartUpload", what, work)
        upload_id: str = await self._requests.before(self._sending(self._lanes.part), create)
        self._write_ids[upload_id] = metadata.get(WRITE_ID, "")
        return upload_id

    async def upload_part(self, key: str, upload_id: str, number: int, payload: Payload) -> UploadedPart:
        params, what = self._make.part(key, upload_id, number), f"PUT {key} part {number}"
        work = sender(
            self.capabilities.integrity,
            "upload_part",
            what,
            params,
            payload,
            answers.part_written,
            self.traffic,
            etag=answers.part_written,
        )
        etag = await self._send(self._lanes.part, "UploadPart", what, work, SENDS, "")
        return UploadedPart(number, payload.size, etag, payload.crc32)

    async def copy_part(
        self, key: str, upload_id: str, number: int, source: str, start: int, length: int, *, etag: str
    ) -> UploadedPart:
        params = self._make.part(key, upload_id, number) | self._make.source(source, etag)
        params["CopySourceRange"] = f"bytes={start}-{start + length - 1}"
        parse = partial(answers.copied_part, number=number, length=length)
        work, what = call("upload_part_copy", params, parse), f"COPY {source} to {key} part {number}"
        part = await self._requests.run(self._lanes.copy_part, "UploadPartCopy", what, work, key)
        if etag:
            await check_still(self.head, source, etag)
        return part

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, only_if_absent: bool = False
    ) -> str:
        params = self._make.complete(key, upload_id, parts, checksums=self.capabilities.integrity == "crc32")
        if only_if_absent and self.capabilities.conditional_complete:
            params["IfNoneMatch"] = "*"
        try:
            work = partial(calls.complete, params, self._make.upload(key, upload_id))
            etag = await self._requests.run(
                self._lanes.publish, "CompleteMultipartUpload", f"COMPLETE {key}", work, key
            )
        except NotSupported:
            if "IfNoneMatch" not in params:
                raise
            self.capabilities = replace(self.capabilities, conditional_complete=False)
            return await self.complete_upload(key, upload_id, parts)
        except (Changed, UploadGone) as error:
            size, write_id = sum(part.size for part in parts), self._write_ids.get(upload_id)
            there = await written_by_us(self.head, key, size, write_id, answers.composite_etag(parts))
            if there is None:
                raise (Exists(str(error)) if isinstance(error, Changed) else error) from None
            etag = there.etag
        self._write_ids.pop(upload_id, None)
        return etag

    async def abort_upload(self, key: str, upload_id: str) -> None:
        self._write_ids.pop(upload_id, None)
        try:
            work = call("abort_multipart_upload", self._make.upload(key, upload_id), answers.removed)
            async with missing_upload(self, key, upload_id):
                await self._requests.run(self._lanes.settle, "AbortMultipartUpload", f"ABORT UPLOAD {key}", work, key)
        except UploadGone:
            return

    # Object Lock.

    async def legal_hold(self, key: str) -> bool:
        work = partial(calls.legal_hold, self._make.target(key))
        async with missing_object(self, key):
            return await self._requests.run(self._lanes.ask, "GetObjectLegalHold", f"GET LEGAL HOLD {key}", work)

    async def set_legal_hold(self, key: str, on: bool) -> None:
        params = self._make.target(key) | {"LegalHold": {"Status": "ON" if on else "OFF"}}
        work = call("put_object_legal_hold", params, nothing)
        async with missing_object(self, key):
            await self._requests.run(self._lanes.change, "PutObjectLegalHold", f"PUT LEGAL HOLD {key}", work)

    async def retained_until(self, key: str) -> float:
        work = partial(calls.retained_until, self._make.target(key))
        async with missing_object(self, key):
            return await self._requests.run(self._lanes.ask, "GetObjectRetention", f"GET RETENTION {key}", work)

    # For the probe, and for what only one command asks.

    async def ask(self, operation: str, what: str, work: Callable[[Any], T]) -> T:
        """A request that may be repeated: what ``work(client)`` returns. operation: S3's name of it."""
        return await self._requests.run(self._lanes.ask, operation, what, work)

    async def has_object_lock(self) -> bool:
        """Whether the bucket was made with Object Lock; a store that does not know the question has none."""
        work = partial(calls.has_object_lock, self._make.bucket())
        return await self.ask("GetObjectLockConfiguration", "GET OBJECT LOCK CONFIGURATION", work)

    async def refuses_wrong(self, integrity: str, key: str) -> bool:
        """Whether the store refuses a body that does not have the declared "crc32" or "sha256".

        Where it does not, the object ``key`` exists afterwards.
        """
        declared, sent = Payload.of(b"s3fsx probe: as declared"), Payload.of(b"s3fsx probe: as it came!")
        params, lane = self._make.target(key), replace(self._lanes.put, client="unsigned")
        if integrity == "crc32":
            params |= {"ChecksumCRC32": crc32_header(declared.crc32), "Body": Body(sent)}
        else:
            params["Body"] = TwoFacedBody(declared, sent)
            lane = replace(lane, client="signed", attempts=1)  # a body of two faces can be signed only once
        what = f"PUT {key} (with a wrong {integrity})"
        try:
            await self._requests.run(lane, "PutObject", what, call("put_object", params, answers.written))
        except (Corrupted, Rejected):
            return True
        except NotSupported:
            return False
        return False

    def _sending(self, lane: Lane) -> Lane:
        return replace(lane, client="signed" if self.capabilities.integrity == "sha256" else "unsigned")

    async def _send(
        self, lane: Lane, operation: str, what: str, work: Callable[[Any], T], sends: int, changes: str
    ) -> T:
        lane = self._sending(lane)
        while True:
            sends -= 1
            try:
                return await self._requests.run(lane, operation, what, work, changes)
            except Corrupted as error:
                if sends <= 0 or isinstance(error, CorruptedInMemory):
                    raise
                log.warning("%s; sending it again", error)
