"""A small reference model of what a mount promises, compared with one after every operation of a list.

An operation is data: its kind and the seed of its choices, so that a list can be cut down to what still fails
(``shrunk``) and run again. The same lists run on the domain layer (tests/domain/test_model.py) and through the kernel
(tests/mount/test_model.py): a ``Driver`` is what differs.

The model knows for each name the content a reader sees, the content the bucket has, and the last one that a call has
returned success for. A fault makes the outcome of one operation uncertain, a crash that of those under way: what is
there then must be old or new, and never neither.
"""

from __future__ import annotations

import errno
import functools
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from s3fsx.fs.tempnames import is_temporary

T = TypeVar("T")
Op = tuple[str, int]
Content = bytes | None  # None: no such file

BACKUP = "vzdump-qemu-1-2026_11_20-13_15_26"
NAMES = ("a", "b", "n.tmp", "n", f"{BACKUP}.vma.dat", f"{BACKUP}.vma.zst")
FAULTY = ("put", "create_upload", "upload_part", "list_parts", "complete_upload", "head", "copy", "copy_part", "delete",
          "get_range", "list_page", "abort_upload")  # fmt: skip
WEIGHTS = {"create": 4, "write": 10, "truncate": 3, "flush": 4, "close": 5, "rename": 5, "unlink": 3, "mkdir": 1,
           "rmdir": 1, "read": 3, "open": 2, "outsider": 1, "wait": 1}  # fmt: skip


class Crashed(Exception):
    """The mount was killed while this was under way, and is there again."""


class Driver(Protocol):
    """A mount and its bucket, by path. Every call raises OSError, or Crashed.

    part: bytes of the first part. patience: how often names and sizes are looked at until they must be right: through
    a kernel and on a clock that runs, what others did may be seen later. generation: how often it was started.
    """

    part: int
    patience: int
    generation: int

    async def create(self, path: str, *, truncate: bool) -> Any: ...
    async def open(self, path: str) -> Any: ...
    async def write(self, handle: Any, offset: int, data: bytes) -> None: ...
    async def truncate(self, handle: Any, size: int) -> None: ...
    async def flush(self, handle: Any, *, sync: bool) -> None: ...
    async def close(self, handle: Any) -> None: ...
    async def read(self, path: str) -> bytes: ...
    async def rename(self, path: str, new: str) -> None: ...
    async def unlink(self, path: str) -> None: ...
    async def mkdir(self, path: str) -> None: ...
    async def rmdir(self, path: str) -> None: ...
    async def names(self, directory: str) -> set[str]: ...

    async def size(self, path: str) -> int | None:
        """None: no such name; of a directory 0."""

    async def stored(self, root: str) -> dict[str, bytes]:
        """Every object below root, without the markers of directories."""

    async def put(self, path: str, data: bytes) -> None:
        """Another node does."""

    async def remove(self, path: str) -> None:
        """Another node deletes the object, and keeps its directory."""

    async def fail_next(self, request: str, *, after_effect: bool) -> None: ...
    async def no_more_faults(self) -> None: ...

    async def settle(self) -> None:
        """Until background work is done and everything that may be cached for its TTL has been forgotten."""

    async def wait(self) -> None: ...

    async def crash(self) -> None:
        """kill -9 and the next mount."""


@dataclass(eq=False)
class Entry:
    """One file. data: what readers see; stored: what the bucket has; told: what the last close or fsync that returned
    success was about; since: what it was changed to after that."""

    path: str
    data: bytes = b""
    stored: Content = None
    told: Content = None
    gone: bool = False
    handles: list[Any] = field(default_factory=list)
    since: list[bytes] = field(default_factory=list)

    def change(self, data: bytes) -> None:
        self.data = data
        self.since.append(data)

    def closed(self) -> None:
        self.told = self.data
        self.since.clear()

    def published(self) -> None:
        self.stored = self.data
        self.closed()

    @property
    def waiting(self) -> bool:
        """Closed under a temporary name, and not published."""
        return is_temporary(self.path.rpartition("/")[2]) and self.told != self.stored

    @property
    def after_crash(self) -> set[Content]:
        """What was closed, unless it was truncated to nothing since."""
        return {self.told, self.stored} if self.waiting and b"" in self.since else {self.told}

    def went_on(self, content: Content) -> bool:
        """What was closed, and some of what was written since (SEMANTICS.md): as far as its last part had room."""
        return self.waiting and bool(content) and any(later.startswith(content or b"") for later in self.since)


def operations(seed: int, count: int, **more: int) -> list[Op]:
    """more: weights of kinds beyond the usual ones: fault, crash."""
    rng = random.Random(seed)
    weights = {**WEIGHTS, **more}
    kinds = rng.choices(list(weights), list(weights.values()), k=count)
    return [(kind, rng.randrange(1 << 20)) for kind in kinds]


class Model:
    """faults: errors are expected."""

    def __init__(self, driver: Driver, root: str, *, faults: bool = False) -> None:
        self.driver = driver
        self.root = root
        self.faults = faults
        self.generation = driver.generation
        self.rng = random.Random(0)
        self.files: dict[str, Entry] = {}
        self.orphans: list[Entry] = []
        self.dirs = {root}
        self.unsure: dict[str, set[Content]] = {}
        self.moving: list[tuple[str, str, Entry, bytes]] = []
        self.done: list[Op] = []
        self.log: list[str] = []

    async def run(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self.done.append(op)
            self.rng = random.Random(op[1])
            await self.surviving(getattr(self, "do_" + op[0]))
            await self.surviving(self.compare)
        await self.driver.no_more_faults()
        await self.surviving(self.close_all)
        await self.surviving(self.verify)

    async def surviving(self, action: Callable[[], Awaitable[None]]) -> None:
        """Any crash on the way, of this program's doing or another's."""
        try:
            await action()
        except Crashed:
            while True:
                try:
                    await self.after_crash()
                    return
                except Crashed:
                    continue

    async def call(self, call: Callable[..., Awaitable[T]], *args: Any, **more: Any) -> T:
        """One call of the mount; Crashed also where it was the last one of its life."""
        if self.driver.generation != self.generation:
            raise Crashed
        result = await call(*args, **more)
        if self.driver.generation != self.generation:
            raise Crashed
        return result

    def note(self, text: str) -> None:
        self.log.append(text)

    def may_become(self, path: str, *contents: Content) -> None:
        """Until the call returns."""
        self.unsure.setdefault(path, set()).update(contents)

    def certain(self) -> None:
        self.unsure.clear()
        self.moving.clear()

    # -- choosing

    def any_path(self) -> str:
        return f"{self.rng.choice(sorted(self.dirs))}/{self.rng.choice(NAMES)}"

    def some_entry(self, *, where: Callable[[Entry], bool] = lambda entry: True) -> Entry | None:
        found = [entry for _, entry in sorted(self.files.items()) if where(entry)]
        return self.rng.choice(found) if found else None

    def some_handle(self) -> tuple[Entry, Any] | None:
        found = [(entry, handle) for entry in (*self.files.values(), *self.orphans) for handle in entry.handles]
        return self.rng.choice(found) if found else None

    # -- operations

    async def do_create(self) -> None:
        path, truncate = self.any_path(), self.rng.random() < 0.5
        if path in self.dirs:
            return
        self.note(f"create {path}{' O_TRUNC' if truncate else ''}")
        known = self.files.get(path)
        if known is not None:
            self.may_become(path, known.data, *([b""] if truncate else []))
        try:
            handle = await self.call(self.driver.create, path, truncate=truncate)
        except OSError as e:
            await self.failed(e, [path])
            return
        entry = self.files.setdefault(path, Entry(path))
        entry.handles.append(handle)
        if known is not None:
            await self.took(entry)  # opening a closed temporary name publishes it
            if truncate:
                entry.change(b"")
                await self.took(entry)

    async def do_open(self) -> None:
        entry = self.some_entry()
        if entry is None:
            return
        self.note(f"open {entry.path}")
        self.may_become(entry.path, entry.data)
        try:
            entry.handles.append(await self.call(self.driver.open, entry.path))
        except OSError as e:
            await self.failed(e, [entry.path])
            return
        await self.took(entry)

    async def do_write(self) -> None:
        chosen = self.some_handle()
        if chosen is None:
            return
        entry, handle = chosen
        size, part = len(entry.data), self.driver.part
        offset = self.rng.choice([size, size, size, size, size + self.rng.randrange(3 * part),
                                  self.rng.randrange(size + 1)])  # fmt: skip
        length = self.rng.choice([1, 500, part // 2, part, 3 * part, self.rng.randrange(1, 5 * part)])
        data = pattern(length, self.rng.randrange(256))
        if self.rng.random() < 0.3:
            data = b"\x28\xb5\x2f\xfd" + data
        self.note(f"write {entry.path} {offset}+{len(data)}")
        try:
            await self.call(self.driver.write, handle, offset, data)
        except OSError as e:
            if entry.gone and e.errno == errno.ESTALE:
                return
            self.not_supported_only(e, offset < size)
            await self.failed(e, [entry.path])
            return
        before = entry.data[:offset].ljust(offset, b"\0")
        entry.change(before + data + entry.data[offset + len(data) :])

    async def do_truncate(self) -> None:
        chosen = self.some_handle()
        if chosen is None or chosen[0].gone:
            return
        entry, handle = chosen
        size = self.rng.choice([0, self.rng.randrange(len(entry.data) + 1), len(entry.data) + self.rng.randrange(9999),
                                len(entry.data) // self.driver.part * self.driver.part])  # fmt: skip
        self.note(f"truncate {entry.path} {size}")
        try:
            await self.call(self.driver.truncate, handle, size)
        except OSError as e:
            self.not_supported_only(e, 0 < size < len(entry.data))
            await self.failed(e, [entry.path])
            return
        entry.change(entry.data[:size].ljust(size, b"\0"))

    async def do_flush(self) -> None:
        chosen = self.some_handle()
        if chosen is None:
            return
        entry, handle = chosen
        self.note(f"flush {entry.path}")
        self.publishing(entry)
        try:
            await self.call(self.driver.flush, handle, sync=self.rng.random() < 0.5)
        except OSError as e:
            await self.failed(e, [entry.path])
            return
        await self.flushed(entry)

    async def do_close(self) -> None:
        chosen = self.some_handle()
        if chosen is None:
            return
        entry, handle = chosen
        self.note(f"close {entry.path}")
        entry.handles.remove(handle)
        self.publishing(entry)
        try:
            await self.call(self.driver.close, handle)
        except OSError as e:
            await self.failed(e, [entry.path])
            return
        await self.flushed(entry)
        if entry.handles or entry.gone or entry.data:
            return
        # An empty temporary name is stored by release, which tells nobody; its rename will.
        self.publishing(entry)
        await self.driver.no_more_faults()
        for _ in range(self.driver.patience):  # through a kernel it comes some time after the close
            await self.driver.settle()
            await self.took(entry)
            if entry.stored == b"":
                break
        else:
            await self.failed(OSError(errno.EIO, "in release"), [entry.path])

    def publishing(self, entry: Entry) -> None:
        if not entry.gone:
            self.may_become(entry.path, entry.data)

    async def flushed(self, entry: Entry) -> None:
        if entry.gone:
            return
        if is_temporary(entry.path.rpartition("/")[2]):
            if entry.data:
                entry.closed()
            await self.took(entry)
        else:
            entry.published()

    async def took(self, entry: Entry) -> None:
        """A temporary name may have been published."""
        if (await self.driver.stored(self.root)).get(entry.path) == entry.data:
            entry.published()

    async def do_read(self) -> None:
        entry = self.some_entry()
        if entry is None:
            return
        self.note(f"read {entry.path}")
        self.publishing(entry)
        try:
            seen = await self.call(self.driver.read, entry.path)
        except OSError as e:
            if e.errno == errno.EOPNOTSUPP:  # what has left memory cannot be read before close
                assert entry.handles, entry.path
                assert entry.data != entry.stored, entry.path
                return
            await self.failed(e, [entry.path])
            return
        if entry.handles and seen == entry.stored:
            return  # the old object, whole
        assert difference(seen, entry.data) is None
        await self.took(entry)

    async def do_rename(self) -> None:
        entry, path = self.some_entry(), self.any_path()
        if entry is not None and self.rng.random() < 0.5 and entry.path.endswith((".tmp", ".dat")):
            path = entry.path.removesuffix(".tmp") if entry.path.endswith(".tmp") else entry.path[:-3] + "zst"
        if entry is None or path in self.dirs:
            return
        self.note(f"rename {entry.path} {path}")
        target = self.files.get(path)
        if target is not entry:
            self.may_become(entry.path, entry.data, None)
            self.may_become(path, entry.data)
            if target is not None and target.stored is None:
                self.may_become(path, None)  # what was not published goes first
            self.moving.append((entry.path, path, entry, entry.data))
        try:
            await self.call(self.driver.rename, entry.path, path)
        except OSError as e:
            if e.errno == errno.EBUSY:
                assert target is not None, "refused without a reason"
                assert target.handles, "refused without a reason"
                return
            await self.failed(e, [entry.path, path])
            return
        if entry is target:
            return
        if target is not None:
            self.drop(target)
        del self.files[entry.path]
        old, entry.path = entry.path, path
        entry.published()
        self.files[path] = entry
        if self.faults and old in await self.driver.stored(self.root):  # a failed clean-up does not fail the rename
            await self.driver.remove(old)
            await self.driver.settle()

    async def do_unlink(self) -> None:
        entry = self.some_entry()
        if entry is None:
            return
        self.note(f"unlink {entry.path}")
        self.may_become(entry.path, None)
        try:
            await self.call(self.driver.unlink, entry.path)
        except OSError as e:
            await self.failed(e, [entry.path], removing=True)
            return
        self.drop(entry)

    def drop(self, entry: Entry) -> None:
        entry.gone = True
        del self.files[entry.path]
        self.orphans.append(entry)

    async def do_mkdir(self) -> None:
        path = f"{self.root}/{self.rng.choice('de')}"
        self.note(f"mkdir {path}")
        try:
            await self.call(self.driver.mkdir, path)
        except OSError as e:
            if e.errno != errno.EEXIST or path not in self.dirs:
                await self.unsure_directory(e, path)
        else:
            self.dirs.add(path)

    async def do_rmdir(self) -> None:
        path = f"{self.root}/{self.rng.choice('de')}"
        self.note(f"rmdir {path}")
        full = any(name.startswith(path + "/") for name in self.files)
        try:
            await self.call(self.driver.rmdir, path)
        except OSError as e:
            if (e.errno == errno.ENOTEMPTY and full) or (e.errno == errno.ENOENT and path not in self.dirs):
                return
            await self.unsure_directory(e, path)
        else:
            assert not full
            self.dirs.discard(path)

    async def unsure_directory(self, error: OSError, path: str) -> None:
        self.expected(error)
        await self.driver.no_more_faults()
        await self.driver.settle()
        await self.look_at_directory(path)

    async def look_at_directory(self, path: str) -> None:
        if await self.call(self.driver.size, path) is None:
            assert not any(name.startswith(path + "/") for name in self.files)
            self.dirs.discard(path)
        else:
            self.dirs.add(path)

    async def do_outsider(self) -> None:
        """Another node writes or deletes what nobody here has open."""
        entry = self.some_entry(where=lambda e: not e.handles and e.stored == e.data)
        if entry is None:
            return
        if self.rng.random() < 0.3:
            self.note(f"outsider deletes {entry.path}")
            self.drop(entry)
            await self.driver.remove(entry.path)
        else:
            entry.data = pattern(self.rng.randrange(2 * self.driver.part), self.rng.randrange(256))
            self.note(f"outsider writes {entry.path} {len(entry.data)}")
            entry.published()
            await self.driver.put(entry.path, entry.data)
        await self.driver.settle()

    async def do_wait(self) -> None:
        await (self.driver.wait() if self.rng.random() < 0.5 else self.driver.settle())

    async def do_fault(self) -> None:
        request, after = self.rng.choice(FAULTY), self.rng.random() < 0.3
        self.note(f"fault {request} {'after' if after else 'before'} the effect")
        await self.driver.fail_next(request, after_effect=after)

    async def do_crash(self) -> None:
        self.note("crash")
        await self.driver.crash()
        raise Crashed

    # -- after an error

    def not_supported_only(self, error: OSError, there: bool) -> None:
        if error.errno == errno.EOPNOTSUPP and not there:
            raise AssertionError(f"a sequential change is always possible: {error!r}") from error

    def expected(self, error: OSError) -> None:
        if not self.faults and error.errno not in (errno.EEXIST, errno.EOPNOTSUPP):
            raise AssertionError(f"without a fault: {error!r}") from error
        self.note(f"  {error!r}")

    async def failed(self, error: OSError, paths: list[str], *, removing: bool = False) -> None:
        """What is stored under these names is old or new, and whatever was stored before is not lost; then they go."""
        self.expected(error)
        await self.driver.no_more_faults()
        entries = [self.files[path] for path in dict.fromkeys(paths) if path in self.files]
        allowed: set[Content] = {None}
        for entry in entries:
            allowed |= {entry.stored, entry.data}
        now = await self.driver.stored(self.root)
        for path in paths:
            assert now.get(path) in allowed, f"{path} has neither its old nor its new content"
            self.may_become(path, *allowed)
        self.moving.clear()
        for entry in entries[:1]:
            if entry.stored is not None and not removing:
                survivors = [now.get(path) for path in paths]
                assert entry.stored in survivors or entry.data in survivors, f"{entry.path} was lost"
        for entry in [*entries, *(o for o in self.orphans if o.path in paths)]:
            while entry.handles:
                try:
                    await self.call(self.driver.close, entry.handles.pop())
                except OSError as e:
                    self.note(f"  close: {e!r}")
        await self.driver.settle()
        for path in dict.fromkeys(paths):
            if await self.call(self.driver.size, path) is not None:
                await self.call(self.driver.unlink, path)
            if path in self.files:
                self.drop(self.files[path])

    async def after_crash(self) -> None:
        """Old or new, and what was moved under one of its names; from then on everything is certain again."""
        self.generation = self.driver.generation
        may = {path: {*entry.after_crash, *self.unsure.get(path, ())} for path, entry in self.files.items()}
        for path in self.unsure:
            may.setdefault(path, {None, *self.unsure[path]})
        self.note(f"  after the crash: {[(p, sorted(len(c or b'') for c in cs)) for p, cs in may.items()]}")
        self.unsure = may
        self.orphans.clear()
        for entry in self.files.values():
            entry.handles.clear()
        await self.driver.settle()
        found = {path: await self.found(path) for path in sorted(may)}
        for path, content in found.items():
            if content is not ...:
                went_on = path in self.files and self.files[path].went_on(content)
                assert went_on or content in may[path], f"{path} after the crash: {size_of(content)}"
        for old, new, entry, data in self.moving:
            there = {found[old], found[new]}
            survived = there & {..., data, *entry.after_crash} or any(map(entry.went_on, there - {...}))
            assert survived, f"{old} -> {new}: under neither name"
        self.files = {
            path: Entry(path, content, content, content)
            for path, content in found.items()
            if isinstance(content, bytes)
        }
        for name in "de":
            await self.look_at_directory(f"{self.root}/{name}")
        self.certain()

    async def found(self, path: str) -> Any:
        """Its content; None when it is not there, ... when it cannot be read, and is gone now: it waits for its rename,
        and the name it was predicted to get was given to another meanwhile."""
        if await self.call(self.driver.size, path) is None:
            return None
        try:
            return await self.call(self.driver.read, path)
        except OSError as e:
            if self.faults and e.errno == errno.EIO:  # another task's: it comes once
                return await self.call(self.driver.read, path)
            if e.errno != errno.EEXIST or not self.guess_taken(path):
                raise AssertionError(f"{path} cannot be read: {e!r}") from e
            await self.call(self.driver.unlink, path)
            return ...

    def guess_taken(self, path: str) -> bool:
        others = {path[:-4], path[:-3] + "zst"} if path.endswith((".tmp", ".dat")) else set()
        return bool(others & {*self.files, *self.unsure})

    # -- comparing

    async def compare(self) -> None:
        self.certain()
        if self.faults:
            await self.driver.settle()  # aborts that failed are repeated
        for _ in range(self.driver.patience):
            wrong = await self.wrong_names()
            if not wrong:
                break
            await self.driver.settle()
        assert not wrong, "; ".join(wrong)
        stored = await self.driver.stored(self.root)
        for path, entry in self.files.items():
            if entry.stored != stored.get(path):
                await self.took(entry)  # a reader of a temporary name, or a failure after the effect
        wanted = {p: e.stored for p, e in self.files.items() if e.stored is not None}
        if stored != wanted:
            raise AssertionError(f"bucket: {_sizes(stored)} instead of {_sizes(wanted)}")

    async def wrong_names(self) -> list[str]:
        wrong = []
        try:
            for directory in sorted(self.dirs):
                expected = {
                    p.rpartition("/")[2] for p in (*self.files, *self.dirs) if p.rpartition("/")[0] == directory
                }
                names = await self.call(self.driver.names, directory)
                if names != expected:
                    wrong.append(f"{directory}: {sorted(names)} instead of {sorted(expected)}")
            for path, entry in self.files.items():
                size = await self.call(self.driver.size, path)
                if size != len(entry.data):
                    wrong.append(f"{path}: {size} bytes instead of {len(entry.data)}")
        except OSError as e:
            self.expected(e)
        return wrong

    async def close_all(self) -> None:
        for entry in [*self.files.values(), *self.orphans]:
            while entry.handles:
                self.publishing(entry)
                try:
                    await self.call(self.driver.close, entry.handles.pop(0))
                except OSError as e:
                    await self.failed(e, [entry.path])
                else:
                    await self.flushed(entry)

    async def verify(self) -> None:
        """Everything can be read, and is then in the bucket."""
        self.certain()
        for path, entry in sorted(self.files.items()):
            self.publishing(entry)
            content = await self.found(path)
            if content is ...:
                continue
            assert difference(content, entry.data) is None, path
            stored = await self.driver.stored(self.root)
            assert difference(stored.get(path, b"nothing"), entry.data) is None, path


def _sizes(contents: dict[str, Any]) -> dict[str, str]:
    return {path: size_of(content) for path, content in contents.items()}


def size_of(content: Content) -> str:
    return "nothing" if content is None else f"{len(content)} bytes ({hash(content) & 0xFFFF:04x})"


def difference(found: bytes, expected: bytes) -> str | None:
    """None, or where they first differ: bytes by the thousand tell nobody anything."""
    if found == expected:
        return None
    at = next(
        (i for i, (f, e) in enumerate(zip(found, expected, strict=False)) if f != e), min(len(found), len(expected))
    )
    return f"{len(found)} bytes instead of {len(expected)}, different from {at} on"


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ at every offset a mistake could confuse."""
    block = _block(seed)
    return (block * (size // len(block) + 1))[:size]


@functools.lru_cache(maxsize=256)
def _block(seed: int) -> bytes:
    return bytes((i * 7 + (i >> 8) * 13 + seed * 31 + 1) & 0xFF for i in range(65_521))


async def shrunk(
    lists: list[list[Op]], failing: Callable[[list[list[Op]]], Awaitable[list[list[Op]] | None]]
) -> list[list[Op]]:
    """Fewer operations that fail, too: halves, quarters, ... single ones are left out as long as it does, for a minute.

    failing: runs lists; how far each of them came until one failed, None when none did.
    """
    end = time.monotonic() + 60
    for which in range(len(lists)):
        step = max(1, len(lists[which]) // 2)
        while step and time.monotonic() < end:
            at = 0
            while at < len(lists[which]) and time.monotonic() < end:
                shorter = [*lists]
                shorter[which] = lists[which][:at] + lists[which][at + step :]
                failed = await failing(shorter)
                if failed is not None:
                    lists = failed
                else:
                    at += step
            step //= 2
    return lists


def told(models: Iterable[Model]) -> str:
    """For the one who looks into a failure."""
    return "\n".join(f"{model.root}: {model.done}\n" + "\n".join(model.log[-60:]) for model in models)
