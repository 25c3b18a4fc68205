"""The model's driver on a mount without a kernel: FakeStore, and a crash that stops everything where it is."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from s3fsx.errors import S3fsxError, ServerFault
from s3fsx.fs.files import Handle
from s3fsx.fs.tree import File
from s3fsx.store.objects import Capabilities
from tests.domain.harness import KIB, SMALL_PART, Domain
from tests.fakestore import FakeStore
from tests.model import Crashed

T = TypeVar("T")
CAREFUL = Capabilities("crc32", conditional_put=True, conditional_complete=True)


class MortalStore(FakeStore):
    """off: the node that talks to it is dead; what its code does on the way out does not arrive."""

    off = False

    @asynccontextmanager
    async def _call(self, op: str, key: str) -> AsyncIterator[None]:
        if self.off:
            await trio.sleep_forever()
        async with super()._call(op, key):
            yield
        await trio.lowlevel.checkpoint()  # killed here, the effect is there and nobody knows


def mortal_store(seed: int) -> MortalStore:
    rng = random.Random(seed)
    return MortalStore(
        min_part=4 * KIB,
        latency=(0.0, rng.choice([0.0, 0.3])),
        seed=seed,
        capabilities=rng.choice([CAREFUL, Capabilities()]),
    )


class DomainDriver:
    """Implements ``tests.model.Driver``."""

    part = SMALL_PART
    patience = 1

    def __init__(self, mount: Domain) -> None:
        assert isinstance(mount.store, MortalStore)
        self.mount = mount
        self.store = mount.store
        self.generation = 1
        self._up = trio.Event()
        self._up.set()
        self._scopes: set[trio.CancelScope] = set()

    async def _run(self, call: Callable[..., Awaitable[T]], *args: object) -> T:
        if not self._up.is_set():
            await self._up.wait()
            raise Crashed
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await call(*args)
            except S3fsxError as e:
                raise OSError(e.errno, repr(e)) from e
            finally:
                self._scopes.discard(scope)
        raise Crashed

    async def crash(self) -> None:
        await self._up.wait()  # of another's crash
        self._up = trio.Event()
        self.store.off = True
        while self._scopes or self.mount.busy:
            for scope in (*self._scopes, *self.mount._background):
                scope.cancel()
            await trio.lowlevel.checkpoint()
        self.store.off = False
        self.store._faults.clear()
        self.mount = await self.mount.restarted()
        self.generation += 1
        self._up.set()

    async def create(self, path: str, *, truncate: bool) -> Handle:
        flags = os.O_RDWR | (os.O_TRUNC if truncate else 0)
        return await self._run(self.mount.create, path, flags)

    async def open(self, path: str) -> Handle:
        return await self._run(self.mount.open, path, os.O_RDWR)

    async def write(self, handle: Handle, offset: int, data: bytes) -> None:
        await self._run(self.mount.files.write, handle, offset, data)

    async def truncate(self, handle: Handle, size: int) -> None:
        await self._run(self.mount.files.truncate, handle.file, size)

    async def flush(self, handle: Handle, *, sync: bool) -> None:
        await self._run(self.mount.files.fsync if sync else self.mount.files.flush, handle)

    async def close(self, handle: Handle) -> None:
        await self._run(self.mount.close, handle)

    async def read(self, path: str) -> bytes:
        return await self._run(self.mount.read, path)

    async def rename(self, path: str, new: str) -> None:
        await self._run(self.mount.rename, path, new)

    async def unlink(self, path: str) -> None:
        await self._run(self.mount.unlink, path)

    async def mkdir(self, path: str) -> None:
        await self._run(self.mount.mkdir, path)

    async def rmdir(self, path: str) -> None:
        await self._run(self.mount.rmdir, path)

    async def names(self, directory: str) -> set[str]:
        return set(await self._run(self.mount.names, directory))

    async def size(self, path: str) -> int | None:
        node = await self._run(self.mount.lookup, path)
        return None if node is None else node.size if isinstance(node, File) else 0

    async def stored(self, root: str) -> dict[str, bytes]:
        await trio.lowlevel.checkpoint()
        return {path: self.mount.stored(path) for path in self.mount.paths() if path.startswith(root + "/")}

    async def put(self, path: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.store.poke(self.mount.key(path), data)

    async def remove(self, path: str) -> None:
        await trio.lowlevel.checkpoint()
        self.store.remove(self.mount.key(path))
        self.store.poke(self.mount.key(path.rpartition("/")[0] + "/"), b"")

    async def fail_next(self, request: str, *, after_effect: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.store.fail_next(request, ServerFault(f"fault of {request}"), after_effect=after_effect)

    async def no_more_faults(self) -> None:
        await trio.lowlevel.checkpoint()
        self.store._faults.clear()

    async def settle(self) -> None:
        await self._run(self.mount.idle)
        await trio.sleep(6)  # list_ttl is 5 s

    async def wait(self) -> None:
        await trio.sleep(1)
