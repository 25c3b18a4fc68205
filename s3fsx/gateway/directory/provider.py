"""The directory backend: ``shelf``, ``space`` and ``uploads`` in threads, with the bytes that come and go."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import trio

from ..backend import Backend, Change, Condition, Finish, FinishPart, FinishUpload, Guard, Opened, Source
from ..checksums import FULL, encode, named
from ..errors import S3Error
from ..model import Bucket, Deleted, Object, Page, Part, Query, Upload, UploadPage
from . import files
from .shelf import Shelf

T = TypeVar("T")
_THREADS = 32
_CHUNK = 1 << 20


class DirectoryBackend(Backend):
    def __init__(self, path: str) -> None:
        self._shelf = Shelf(os.fsencode(os.path.abspath(path)))
        self._limiter: trio.CapacityLimiter | None = None

    def claim(self) -> None:
        """Raises OSError; BlockingIOError while another process serves the directory."""
        self._shelf.claim()

    def release(self) -> None:
        self._shelf.release()

    async def _run(self, function: Callable[[], T]) -> T:
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(_THREADS)
        return await trio.to_thread.run_sync(functools.partial(_translated, function), limiter=self._limiter)

    async def buckets(self) -> Sequence[Bucket]:
        return await self._run(self._shelf.buckets)

    async def bucket(self, name: str) -> Bucket:
        return await self._run(lambda: self._shelf.bucket(name))

    async def create_bucket(self, bucket: Bucket) -> None:
        await self._run(lambda: self._shelf.create(bucket))

    async def delete_bucket(self, name: str) -> None:
        await self._run(lambda: self._shelf.delete(name))

    async def configure(self, name: str, settings: Mapping[str, Any]) -> None:
        await self._run(lambda: self._shelf.configure(name, settings))

    async def head(self, bucket: str, key: str, version: str = "") -> Object:
        def run() -> Object:
            versioning = self._shelf.bucket(bucket).versioning
            return self._shelf.space(bucket)[0].head(key.encode(), version, versioning)

        return await self._run(run)

    async def open(self, bucket: str, key: str, version: str = "") -> Opened:
        def run() -> Opened:
            versioning = self._shelf.bucket(bucket).versioning
            descriptor, found = self._shelf.space(bucket)[0].open(key.encode(), version, versioning)
            return Opened(found, descriptor)

        return await self._run(run)

    async def _received(
        self, bucket: str, body: AsyncIterator[bytes], commit: Callable[[bytes, int, int], Awaitable[T]]
    ) -> T:
        """commit: of the temporary file, its descriptor and its size."""
        new, descriptor = await self._run(lambda: self._shelf.space(bucket)[0].new_file())
        size = 0
        try:
            async for chunk in body:
                await self._run(functools.partial(files.write_all, descriptor, chunk))
                size += len(chunk)
            with trio.CancelScope(shield=True):
                made = await commit(new, descriptor, size)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._run(lambda: files.remove(new))
            raise
        finally:
            os.close(descriptor)
        return made

    async def put(
        self, bucket: str, key: str, body: AsyncIterator[bytes], finish: Finish, condition: Condition
    ) -> Object:
        async def commit(new: bytes, descriptor: int, size: int) -> Object:
            made = finish(size)

            def run() -> Object:
                versioning = self._shelf.bucket(bucket).versioning
                return self._shelf.space(bucket)[0].commit(new, descriptor, made, condition, versioning)

            return await self._run(run)

        return await self._received(bucket, body, commit)

    async def copy(
        self, source: Source, bucket: str, key: str, change: Change, condition: Condition, algorithm: str = ""
    ) -> Object:
        def run() -> Object:
            versioning = self._shelf.bucket(bucket).versioning
            space = self._shelf.space(bucket)[0]
            itself = (source.bucket, source.key) == (bucket, key) and not source.version
            if itself and not versioning and not algorithm:
                touched = space.touch(key.encode(), change, condition)
                if touched is not None:
                    return touched
            descriptor, found = self._opened(source)
            try:
                new, target = space.new_file()
                try:
                    files.copy_range(descriptor, 0, found.size, target)
                    made = change(found)
                    if algorithm and algorithm != made.algorithm:
                        _, checksum = _digests(target, found.size, algorithm)
                        made = replace(made, algorithm=algorithm, checksum=checksum, checksum_type=FULL)
                    return space.commit(new, target, made, condition, versioning)
                finally:
                    os.close(target)
                    files.remove(new)
            finally:
                os.close(descriptor)

        return await self._run(run)

    def _opened(self, source: Source) -> tuple[int, Object]:
        versioning = self._shelf.bucket(source.bucket).versioning
        return self._shelf.space(source.bucket)[0].open(source.key.encode(), source.version, versioning)

    async def update(self, bucket: str, key: str, version: str, change: Change) -> Object:
        return await self._run(lambda: self._shelf.space(bucket)[0].update(key.encode(), version, change))

    async def delete(self, bucket: str, key: str, version: str, condition: Condition, guard: Guard) -> Deleted:
        def run() -> Deleted:
            versioning = self._shelf.bucket(bucket).versioning
            return self._shelf.space(bucket)[0].delete(key.encode(), version, versioning, condition, guard)

        return await self._run(run)

    async def list(self, bucket: str, query: Query) -> Page:
        def run() -> Page:
            versioning = self._shelf.bucket(bucket).versioning
            return self._shelf.space(bucket)[0].list(query, versioning)

        return await self._run(run)

    async def list_versions(self, bucket: str, query: Query) -> Page:
        return await self._run(lambda: self._shelf.space(bucket)[0].list_versions(query))

    async def create_upload(self, bucket: str, attributes: Object) -> Upload:
        return await self._run(lambda: self._shelf.space(bucket)[1].create(attributes))

    async def upload(self, bucket: str, key: str, upload: str) -> Upload:
        return await self._run(lambda: self._shelf.space(bucket)[1].get(upload, key))

    async def put_part(self, bucket: str, upload: str, body: AsyncIterator[bytes], finish: FinishPart) -> Part:
        async def commit(new: bytes, descriptor: int, size: int) -> Part:
            part = finish(size)
            return await self._run(lambda: self._shelf.space(bucket)[1].put_part(upload, new, descriptor, part))

        return await self._received(bucket, body, commit)

    async def copy_part(self, source: Source, bucket: str, upload: str, number: int, algorithm: str) -> Part:
        def run() -> Part:
            space, uploads = self._shelf.space(bucket)
            descriptor, found = self._opened(source)
            try:
                length = found.size - source.first if source.length < 0 else source.length
                new, target = space.new_file()
                try:
                    files.copy_range(descriptor, source.first, length, target)
                    etag, checksum = _digests(target, length, algorithm)
                    return uploads.put_part(upload, new, target, Part(number, length, etag, 0, checksum))
                finally:
                    os.close(target)
                    files.remove(new)
            finally:
                os.close(descriptor)

        return await self._run(run)

    async def parts(self, bucket: str, upload: str) -> Sequence[Part]:
        return await self._run(lambda: [part for part, _ in self._shelf.space(bucket)[1].parts(upload)])

    async def list_uploads(self, bucket: str, query: Query) -> UploadPage:
        return await self._run(lambda: self._shelf.space(bucket)[1].page(query))

    async def complete(
        self, bucket: str, upload: str, numbers: Sequence[int], finish: FinishUpload, condition: Condition
    ) -> Object:
        def run() -> Object:
            versioning = self._shelf.bucket(bucket).versioning
            made = lambda parts: replace(finish(parts), upload=upload)  # noqa: E731
            return self._shelf.space(bucket)[1].complete(upload, numbers, made, condition, versioning)

        return await self._run(run)

    async def abort(self, bucket: str, upload: str) -> None:
        await self._run(lambda: self._shelf.space(bucket)[1].abort(upload))


def _translated(function: Callable[[], T]) -> T:
    try:
        return function()
    except OSError as error:
        if error.errno in files.FULL:
            raise S3Error("StorageFull") from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise S3Error("SlowDown") from error
        if error.errno == errno.ENAMETOOLONG:
            raise S3Error("KeyTooLongError") from error
        if error.errno == errno.ENOENT:
            raise S3Error("NoSuchBucket") from error
        raise


def _digests(descriptor: int, length: int, algorithm: str) -> tuple[str, str]:
    """The MD5 of a file, in hex, and its checksum in base64."""
    digest = hashlib.md5(usedforsecurity=False)
    checksum = named(algorithm).new() if algorithm else None
    for at in range(0, length, _CHUNK):
        data = os.pread(descriptor, min(_CHUNK, length - at), at)
        digest.update(data)
        if checksum is not None:
            checksum.update(data)
    return digest.hexdigest(), encode(checksum.digest()) if checksum is not None else ""
