"""Decompressors, as the programs that Proxmox itself restores with: between the store and a walk through the archive.

What comes out is bounded by who takes it, the program's memory by a limit of the kernel's, and its silence by STALLED.
"""

from __future__ import annotations

import contextlib
import fcntl
import resource
import shutil
import subprocess
from collections.abc import Awaitable, Callable

import trio

from ..errors import ArchiveDamaged, S3fsxError
from .stream import Enough, Sink

# zstd refuses what needs more than 128 MiB of window by itself; said here so that it stays so.
_COMMANDS = {
    "zst": ("zstd", "-dc", "-q", "--memory=128MB"),
    "gz": ("gzip", "-dc"),
    "lzo": ("lzop", "-dc"),
    "bz2": ("bzip2", "-dc"),
}
_PACKAGES = {"zst": "zstd", "gz": "gzip", "lzo": "lzop", "bz2": "bzip2"}
_MEMORY = 1 << 30  # bytes of address space: a decompressor's own threads take some, its data 128 MiB
_PIPE = 1 << 20
STALLED = 120.0  # seconds in which a program neither takes nor gives anything
_ENDING = 10.0
_SAID = 4096

Source = Callable[[Sink], Awaitable[None]]


async def through(compression: str, source: Source, take: Callable[[bytes | memoryview], None]) -> None:
    """source(sink), decompressed, into ``take``, which raises Enough when it needs no more.

    Raises ArchiveDamaged with the program's own words, S3fsxError where it is not installed, hangs or is killed, and
    what source and take raise.
    """

    async def direct(piece: bytes | memoryview) -> None:
        take(piece)

    if not compression:
        with contextlib.suppress(Enough):
            await source(direct)
        return
    command = _COMMANDS[compression]
    if shutil.which(command[0]) is None:
        raise S3fsxError(f"{command[0]} is not installed: apt-get install {_PACKAGES[compression]}")
    process = await trio.lowlevel.open_process(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        await _Filter(command[0], process).run(source, take)
    finally:
        if process.poll() is None:
            process.kill()
        with trio.move_on_after(_ENDING) as scope:
            scope.shield = True
            await process.wait()


class _Filter:
    def __init__(self, name: str, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._name = name
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        for stream in (self._stdin, self._stdout):
            if isinstance(stream, trio.lowlevel.FdStream):
                with contextlib.suppress(OSError):  # more than this user may have in pipes
                    fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        self._errors: list[S3fsxError] = []
        self._said = b""
        self._heard = trio.Event()
        self._moved = trio.current_time()
        self._fetching = False  # it waits for us, and not we for it

    async def run(self, source: Source, take: Callable[[bytes | memoryview], None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            nursery.start_soon(self._listen)
            nursery.start_soon(self._push, source, nursery.cancel_scope)
            await self._pull(take, nursery.cancel_scope)
            if not self._errors:
                await self._process.wait()
                with trio.move_on_after(_ENDING):
                    await self._heard.wait()
            nursery.cancel_scope.cancel()
        if self._errors:
            if not isinstance(self._errors[0], Enough):
                raise self._errors[0]
        elif (
            self._process.returncode and self._process.returncode < 0
        ):  # short of memory, which says nothing of the bytes
            raise S3fsxError(f"{self._name} was killed by signal {-self._process.returncode}")
        elif self._process.returncode:
            said = " ".join(self._said.decode(errors="replace").split())[:300]
            raise ArchiveDamaged(f"{said or f'{self._name} failed with {self._process.returncode}'}")

    async def _push(self, source: Source, scope: trio.CancelScope) -> None:
        async def sink(piece: bytes | memoryview) -> None:
            self._fetching, self._moved = False, trio.current_time()
            await self._stdin.send_all(piece)
            self._fetching, self._moved = True, trio.current_time()

        self._fetching = True
        try:
            await source(sink)
        except trio.BrokenResourceError:
            pass  # it has ended: its exit code and its words say why
        except S3fsxError as e:
            self._errors.append(e)
            scope.cancel()
        finally:
            self._fetching = False
            with trio.CancelScope(shield=True):
                await self._stdin.aclose()

    async def _pull(self, take: Callable[[bytes | memoryview], None], scope: trio.CancelScope) -> None:
        try:
            while data := await self._stdout.receive_some(_PIPE):
                self._moved = trio.current_time()
                take(bytes(data))
        except S3fsxError as e:
            self._errors.append(e)
            scope.cancel()

    async def _listen(self) -> None:
        while data := await self._stderr.receive_some(_SAID):
            self._said = (self._said + data)[:_SAID]
        self._heard.set()

    async def _watch(self, scope: trio.CancelScope) -> None:
        while True:
            left = STALLED if self._fetching else self._moved + STALLED - trio.current_time()
            if left <= 0:
                break
            await trio.sleep(left)
        self._errors.append(S3fsxError(f"{self._name} has done nothing for {STALLED:.0f} s"))
        scope.cancel()
