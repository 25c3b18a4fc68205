"""The model's driver on a real mount: system calls in threads, faults by the proxy, kill -9, boto3 as another node."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TypeVar

import trio

from tests.faultkinds import SERVER_ERROR, SERVER_ERROR_AFTER
from tests.faultproxy import FaultProxy, Rule
from tests.faults.crashing import CrashMount
from tests.model import Crashed

T = TypeVar("T")

TTL = 0.05  # seconds; list_ttl and attr_ttl
KINDS = {
    "put": "PUT", "create_upload": "CREATE UPLOAD", "upload_part": "PUT PART", "list_parts": "LIST PARTS",
    "complete_upload": "COMPLETE", "head": "HEAD", "copy": "COPY", "copy_part": "COPY PART", "delete": "DELETE",
    "get_range": "GET", "list_page": "LIST", "abort_upload": "ABORT",
}  # fmt: skip


class MountDriver:
    """Implements ``tests.model.Driver``."""

    part = 5 << 20
    patience = 40

    def __init__(self, mount: CrashMount, proxy: FaultProxy) -> None:
        self.mount = mount
        self.proxy = proxy
        self.generation = 1
        self.operations = 0
        self._up = trio.Event()
        self._up.set()
        self._busy = 0
        self._handles: set[int] = set()
        self._bodies: dict[tuple[str, str], bytes] = {}  # by key and ETag

    async def _run(self, call: Callable[..., T], *args: object) -> T:
        if not self._up.is_set():
            await self._up.wait()
            raise Crashed
        up = self._up
        self._busy += 1
        self.operations += 1
        try:
            return await trio.to_thread.run_sync(call, *args)
        except OSError:
            if up is not self._up:
                raise Crashed from None
            raise
        finally:
            self._busy -= 1

    async def crash(self) -> None:
        await self._up.wait()  # of another's crash
        self._up = trio.Event()
        assert self.mount.process is not None
        self.mount.process.kill()
        while self._busy:  # noqa: ASYNC110  # it is threads that end
            await trio.sleep(0.01)
        self.close_all()
        self.proxy.clear()
        await trio.to_thread.run_sync(self.mount.kill9)
        await trio.to_thread.run_sync(self.mount.start)
        self.generation += 1
        self._up.set()

    def close_all(self) -> None:
        for handle in self._handles:
            with contextlib.suppress(OSError):
                os.close(handle)
        self._handles.clear()

    def _path(self, path: str) -> str:
        return str(self.mount.path / path)

    async def create(self, path: str, *, truncate: bool) -> int:
        return await self._opened(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if truncate else 0))

    async def open(self, path: str) -> int:
        return await self._opened(path, os.O_RDWR)

    async def _opened(self, path: str, flags: int) -> int:
        handle = await self._run(os.open, self._path(path), flags, 0o644)
        self._handles.add(handle)
        return handle

    async def write(self, handle: int, offset: int, data: bytes) -> None:
        def write_all() -> None:
            done = 0
            while done < len(data):
                done += os.pwrite(handle, data[done:], offset + done)

        await self._run(write_all)

    async def truncate(self, handle: int, size: int) -> None:
        await self._run(os.ftruncate, handle, size)

    async def flush(self, handle: int, *, sync: bool) -> None:
        await self._run(os.fsync if sync else lambda fd: os.close(os.dup(fd)), handle)

    async def close(self, handle: int) -> None:
        self._handles.discard(handle)
        await self._run(os.close, handle)

    async def read(self, path: str) -> bytes:
        def read_all() -> bytes:
            with open(self._path(path), "rb", buffering=0) as file:
                return file.readall()

        return await self._run(read_all)

    async def rename(self, path: str, new: str) -> None:
        await self._run(os.rename, self._path(path), self._path(new))

    async def unlink(self, path: str) -> None:
        await self._run(os.unlink, self._path(path))

    async def mkdir(self, path: str) -> None:
        await self._run(os.mkdir, self._path(path))

    async def rmdir(self, path: str) -> None:
        await self._run(os.rmdir, self._path(path))

    async def names(self, directory: str) -> set[str]:
        return set(await self._run(os.listdir, self._path(directory)))

    async def size(self, path: str) -> int | None:
        def look() -> int | None:
            try:
                return os.stat(self._path(path)).st_size
            except FileNotFoundError:
                return None

        return await self._run(look)

    async def stored(self, root: str) -> dict[str, bytes]:
        return await trio.to_thread.run_sync(self._stored, root)

    def _stored(self, root: str) -> dict[str, bytes]:
        view = self.mount.view
        found = view.client.list_objects_v2(Bucket=view.bucket, Prefix=f"{view.prefix}{root}/").get("Contents", ())
        bodies = {}
        for entry in found:
            path = entry["Key"].removeprefix(view.prefix)
            if not path.endswith("/"):
                version = path, entry["ETag"]
                if version not in self._bodies:
                    self._bodies[version] = view.body(path)
                bodies[path] = self._bodies[version]
        return bodies

    async def put(self, path: str, data: bytes) -> None:
        await trio.to_thread.run_sync(self.mount.view.put, path, data)

    async def remove(self, path: str) -> None:
        await trio.to_thread.run_sync(self.mount.view.delete, path)
        await self.put(path.rpartition("/")[0] + "/", b"")

    async def fail_next(self, request: str, *, after_effect: bool) -> None:
        await trio.lowlevel.checkpoint()
        fault = SERVER_ERROR_AFTER if after_effect else SERVER_ERROR
        self.proxy.add(Rule(fault, {KINDS[request]}, key=r"^pve/run|^$", times=1))

    async def no_more_faults(self) -> None:
        await trio.lowlevel.checkpoint()
        self.proxy.clear()

    async def settle(self) -> None:
        await trio.sleep(3 * TTL)
        while self._up.is_set() and await self._run(lambda: os.statvfs(self.mount.path).f_blocks) == 0:  # noqa: ASYNC110
            await trio.sleep(TTL)  # taken for down; the probe of s3fsx ends it

    async def wait(self) -> None:
        await trio.sleep(TTL / 2)
