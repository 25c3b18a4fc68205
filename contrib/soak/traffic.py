"""What Proxmox does to a storage, all at once, in threads: backups with notes, marks, logs and prune, restores, ISO
images, listings from a second node. Every file is in the ledger before and after each call that matters."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .content import BLOCK, Content
from .ledger import Ledger

T = TypeVar("T")

IO = 128 << 10
KEEP_LAST = 2


class Gate:
    """Shut while the first node is being mounted anew. ``inside`` counts who uses the mount, for a clean unmount.

    fault_until: errors before this moment (monotonic) have a cause.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._open = True
        self._inside = 0
        self.over = threading.Event()
        self.fault_until = 0.0
        self.fault_since = 0.0

    @contextlib.contextmanager
    def inside(self) -> Iterator[bool]:
        """False: the soak is over."""
        with self._condition:
            self._condition.wait_for(lambda: self._open or self.over.is_set())
            self._inside += 1
        try:
            yield not self.over.is_set()
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    def shut(self, limit: float) -> bool:
        """Nobody comes in; whether all were out within limit seconds."""
        with self._condition:
            self._open = False
            return self._condition.wait_for(lambda: self._inside == 0, limit)

    def open(self) -> None:
        with self._condition:
            self._open = True
            self._condition.notify_all()

    def finish(self) -> None:
        self.over.set()
        with self._condition:
            self._condition.notify_all()

    def excuses(self, begun: float) -> bool:
        """Something that began then and went wrong now had a reason."""
        return begun < self.fault_until and time.monotonic() > self.fault_since


@dataclass
class Worker(ABC):
    """One thread. busy_since: when the system call it is in began (monotonic), None outside of one."""

    name: str
    ledger: Ledger
    gate: Gate
    draw: random.Random
    busy_since: float | None = None
    doing: str = ""

    def call(self, what: str, function: Callable[..., T], *arguments: object) -> T:
        """A system call on the mount, watched."""
        self.doing, self.busy_since = what, time.monotonic()
        try:
            return function(*arguments)
        finally:
            self.ledger.at_worst("slowest_call_s", time.monotonic() - self.busy_since)
            self.busy_since = None

    pause = 0.2  # seconds between two jobs

    @abstractmethod
    def job(self) -> None:
        """One piece of work; an OSError is the mount's."""

    def loop(self) -> None:
        while not self.gate.over.is_set():
            begun = time.monotonic()
            with self.gate.inside() as go_on:
                if not go_on:
                    return
                try:
                    self.job()
                except OSError as e:
                    self.failed(begun, e)
                except Exception as e:  # a bug of the soak: not to be taken for a quiet success
                    self.ledger.found("errors_without_a_fault", f"{self.name}: {type(e).__name__}: {e}")
            self.gate.over.wait(self.pause)

    def failed(self, begun: float, error: OSError) -> None:
        if self.gate.excuses(begun):
            self.ledger.add("jobs_failed_by_faults")
        else:
            self.ledger.found("errors_without_a_fault", f"{self.name}, {self.doing}: {error}")

    def unlink(self, root: Path, path: str) -> None:
        self.ledger.remove(path)
        with contextlib.suppress(FileNotFoundError):  # an earlier one had its effect although its answer was lost
            self.call(f"unlink {path}", os.unlink, root / path)
        self.ledger.gone(path)

    def write(self, path: Path, content: Content, *, early_close: bool = False) -> None:
        """Create, write, close. Success means what the mount promises for the name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        fd = self.call(f"open {path.name}", os.open, path, flags, 0o644)
        try:
            if early_close:
                self.call(f"close a duplicate of {path.name}", os.close, os.dup(fd))
            for index in range(content.blocks):
                block = memoryview(content.block(index))
                for start in range(0, len(block), IO):
                    piece = block[start : start + IO]
                    done = self.call(f"write {path.name}", os.write, fd, piece)
                    if done != len(piece):
                        self.ledger.found("damaged", f"{path.name}: write took {done} of {len(piece)} bytes")
        except OSError:
            with contextlib.suppress(OSError):
                self.call(f"close {path.name}", os.close, fd)
            raise
        self.call(f"close {path.name}", os.close, fd)

    def compare(self, path: Path, content: Content) -> None:
        """Reads all of it; what is read and wrong is a finding, an error of the store is raised."""
        fd = self.call(f"open {path.name}", os.open, path, os.O_RDONLY)
        try:
            self.call("fadvise", os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for index in range(content.blocks):
                data = self.call(f"read {path.name}", os.pread, fd, BLOCK, index * BLOCK)
                if data != content.block(index):
                    self.ledger.found("damaged", f"{path}: other bytes in block {index} of {content.blocks}")
                    return
                self.ledger.add("bytes_verified", len(content.block(index)))
            if self.call(f"read {path.name}", os.pread, fd, 1, content.size):
                self.ledger.found("damaged", f"{path}: longer than what was written")
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)


@dataclass
class Guest(Worker):
    """Backs one guest up, again and again, as vzdump does, and keeps the last ones."""

    root: Path = field(default_factory=Path)
    vmid: int = 100
    container: bool = False
    sizes: tuple[int, int] = (4 << 20, 64 << 20)
    made: int = 0

    def job(self) -> None:
        self.made += 1
        kind = ("lxc", "tar") if self.container else ("qemu", "vma")
        day, second = divmod(self.made, 86_400)
        stamp = f"2026_11_{day + 1:02}-{second // 3600:02}_{second // 60 % 60:02}_{second % 60:02}"
        stem = f"dump/vzdump-{kind[0]}-{self.vmid}-{stamp}"
        final, temporary = f"{stem}.{kind[1]}.zst", f"{stem}.{kind[1]}.dat"
        content = Content((self.vmid << 32) + self.made, self.draw.randint(*self.sizes))
        self.ledger.attempt(temporary, content)
        self.ledger.attempt(final, content)
        try:
            self.write(self.root / temporary, content, early_close=self.container)
            self.call(f"rename to {final}", os.rename, self.root / temporary, self.root / final)
        except OSError:
            with contextlib.suppress(OSError):  # vzdump only warns when that fails, too
                self.call(f"unlink {temporary}", os.unlink, self.root / temporary)
            raise
        self.ledger.renamed(temporary, final, content)
        self.ledger.add("backups")
        self._small(f"{final}.notes", b"note", f"{final}.notes.tmp.{os.getpid()}")
        if self.made % 3 == 0:
            self._mark(final)
        self._small(f"{stem}.log", b"INFO")
        self._prune(kind[1])

    def _small(self, path: str, magic: bytes, temporary: str = "") -> None:
        content = Content((self.vmid << 32) + self.made, self.draw.randint(1, 3000), magic)
        first = temporary or path
        self.ledger.attempt(first, content)
        self.write(self.root / first, content)
        if temporary:
            self.ledger.attempt(path, content)
            self.call(f"rename to {path}", os.rename, self.root / first, self.root / path)
            self.ledger.gone(first)
        self.ledger.acknowledge(path, content)

    def _mark(self, final: str) -> None:
        """Dir.pm of Proxmox: open for reading with O_CREAT."""
        path, content = f"{final}.protected", Content(0, 0)
        self.ledger.attempt(path, content)
        flags = os.O_RDONLY | os.O_CREAT
        fd = self.call(f"open {path}", os.open, self.root / path, flags, 0o644)
        self.call(f"close {path}", os.close, fd)
        self.ledger.acknowledge(path, content)

    def _prune(self, suffix: str) -> None:
        """keep-last, by what the listing shows. A protected backup stays, until the next one is protected."""
        prefix, ending = f"vzdump-{'lxc' if self.container else 'qemu'}-{self.vmid}-", f".{suffix}.zst"
        names = self.call("list dump", os.listdir, self.root / "dump")
        mine = sorted(name for name in names if name.startswith(prefix) and name.endswith(ending))
        missing = self.ledger.files(f"dump/{prefix}").keys() - {f"dump/{name}" for name in names}
        for path in missing:
            self.ledger.found("lost", f"{path}: not in the listing of the node that wrote it")
        marked = [name for name in mine if f"{name}.protected" in names]
        for name in marked[:-1]:
            self._unlink(f"dump/{name}.protected")
        for name in [name for name in mine if name not in marked][:-KEEP_LAST]:
            stem = name.removesuffix(ending)
            for path in (f"dump/{name}", f"dump/{name}.notes", f"dump/{stem}.log"):
                if path.removeprefix("dump/") in names and not self._unlink(path):
                    break
            else:
                self.ledger.add("pruned")

    def _unlink(self, path: str) -> bool:
        """False: it is being restored, and stays for now."""
        if not self.ledger.free(path):
            return False
        self.unlink(self.root, path)
        return True


@dataclass
class Restorer(Worker):
    """Restores backups and reads ISO images, on one node or the other."""

    roots: tuple[Path, ...] = ()
    settled: float = 15.0  # seconds until the other node must have seen it

    def job(self) -> None:
        everything = self.ledger.older_than(self.settled, "dump/") | self.ledger.older_than(self.settled, "template/")
        if not everything:
            return
        path = self.draw.choice(sorted(everything))
        content = self.ledger.pin(path)
        if content is None:
            return
        try:
            self.compare(self.draw.choice(self.roots) / path, content)
            self.ledger.add("restores")
        finally:
            self.ledger.unpin(path)


@dataclass
class Images(Worker):
    """Uploads ISO images, replaces them in place, removes them."""

    root: Path = field(default_factory=Path)
    sizes: tuple[int, int] = (1 << 20, 24 << 20)
    made: int = 0

    def job(self) -> None:
        self.made += 1
        path = f"template/iso/image-{self.draw.randint(1, 6)}.iso"
        if not self.ledger.free(path):
            return
        content = Content((9 << 32) + self.made, self.draw.randint(*self.sizes), b"ISO ")
        if self.draw.random() < 0.5:
            self.unlink(self.root, path)
            self.ledger.attempt(path, content)
            self.write(self.root / path, content)
        else:  # a download: replaces what is there at the rename
            temporary = f"{path}.tmp_dwnl.{os.getpid()}"
            self.ledger.attempt(temporary, content)
            self.write(self.root / temporary, content)
            self.ledger.attempt(path, content)
            self.call(f"rename to {path}", os.rename, self.root / temporary, self.root / path)
            self.ledger.gone(temporary)
        self.ledger.acknowledge(path, content)
        self.ledger.add("images")


@dataclass
class Observer(Worker):
    """Lists from the second node: what is acknowledged for long enough must be there, and nothing but what we know."""

    root: Path = field(default_factory=Path)
    settled: float = 15.0

    def job(self) -> None:
        before = self.ledger.older_than(self.settled, "dump/")
        begun = time.monotonic()
        names = self.call("list dump on the second node", os.listdir, self.root / "dump")
        if self.gate.excuses(begun - self.settled):
            return  # in an outage it may be older than it should
        still = self.ledger.files("dump/").keys()
        for path in (before & still) - {f"dump/{name}" for name in names}:
            self.ledger.found("lost", f"{path}: not on the second node after {self.settled:.0f} s")
        self.ledger.add("listings_on_the_second_node")
