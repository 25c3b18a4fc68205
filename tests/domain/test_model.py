"""Random operations against a small model of what a mount promises, compared after every one of them.

The model knows for each name the content a reader sees and the content the bucket has. Faults make the outcome of one
operation uncertain, never that of the others: what an error leaves must be the old or the new state of the names
involved, and they can be removed afterwards.

S3FSX_MODEL_RUNS multiplies the number of seeds (nightly: 50).
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import pytest
import trio

from s3fsx.errors import Exists, FileSystemError, NotSupported, S3fsxError, ServerFault
from s3fsx.files import Handle
from s3fsx.objects import Capabilities
from s3fsx.tempnames import is_temporary
from tests.domain.conftest import Make
from tests.domain.harness import KIB, SMALL_PART, Domain, SmallSchedule, pattern
from tests.fakestore import FakeStore

RUNS = int(os.environ.get("S3FSX_MODEL_RUNS", "1"))
BACKUP = "vzdump-qemu-1-2026_11_20-13_15_26"
NAMES = ("a", "b", "n.tmp", "n", f"{BACKUP}.vma.dat", f"{BACKUP}.vma.zst")
FAULTY = ("put", "create_upload", "upload_part", "list_parts", "complete_upload", "head", "copy", "copy_part", "delete",
          "get_range", "list_page", "abort_upload")  # fmt: skip


@dataclass(eq=False)
class Entry:
    """One file. data: what readers see; stored: what the bucket has under its name, None for nothing."""

    path: str
    data: bytes = b""
    stored: bytes | None = None
    gone: bool = False
    handles: list[Handle] = field(default_factory=list)


class Model:
    def __init__(self, mount: Domain, root: str, rng: random.Random, *, faults: bool) -> None:
        self.mount = mount
        self.root = root
        self.rng = rng
        self.faults = faults
        self.files: dict[str, Entry] = {}
        self.orphans: list[Entry] = []
        self.dirs = {root}
        self.log: list[str] = []

    # -- running

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await self.step()
            await self.compare()
        self.mount.store._faults.clear()
        await self.close_all()

    async def step(self) -> None:
        actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, self.create), (10, self.write), (3, self.truncate), (4, self.flush), (5, self.release),
            (5, self.rename), (3, self.unlink), (1, self.mkdir), (1, self.rmdir), (3, self.read),
            (2, self.open), (1, self.outsider), (1, self.wait),
        ]  # fmt: skip
        if self.faults:
            actions.append((2, self.fault))
        (action,) = self.rng.choices([a for _, a in actions], [w for w, _ in actions])
        await action()

    def note(self, text: str) -> None:
        self.log.append(text)

    # -- choosing

    def any_path(self) -> str:
        return f"{self.rng.choice(sorted(self.dirs))}/{self.rng.choice(NAMES)}"

    def some_entry(self, *, where: Callable[[Entry], bool] = lambda entry: True) -> Entry | None:
        found = [entry for _, entry in sorted(self.files.items()) if where(entry)]
        return self.rng.choice(found) if found else None

    def some_handle(self) -> tuple[Entry, Handle] | None:
        found = [(entry, handle) for entry in (*self.files.values(), *self.orphans) for handle in entry.handles]
        return self.rng.choice(found) if found else None

    # -- operations

    async def create(self) -> None:
        path = self.any_path()
        self.note(f"create {path}")
        if path in self.dirs:
            return
        known = self.files.get(path)
        truncate = self.rng.random() < 0.5
        try:
            handle = await self.mount.create(path, os.O_RDWR | (os.O_TRUNC if truncate else 0))
        except Exists as e:
            await self.taken(e, path)
            return
        except S3fsxError as e:
            await self.failed(e, [path])
            return
        entry = self.files.setdefault(path, Entry(path))
        entry.handles.append(handle)
        if known is not None:
            self.took(entry)  # opening a closed temporary name publishes it
            if truncate:
                entry.data = b""

    async def open(self) -> None:
        entry = self.some_entry()
        if entry is None:
            return
        self.note(f"open {entry.path}")
        try:
            entry.handles.append(await self.mount.open(entry.path, os.O_RDWR))
        except Exists as e:
            await self.taken(e, entry.path)
            return
        except S3fsxError as e:
            await self.failed(e, [entry.path])
            return
        self.took(entry)

    async def write(self) -> None:
        chosen = self.some_handle()
        if chosen is None:
            return
        entry, handle = chosen
        size = len(entry.data)
        offset = self.rng.choice([size, size, size, size, size + self.rng.randrange(3 * SMALL_PART),
                                  self.rng.randrange(size + 1)])  # fmt: skip
        length = self.rng.choice([1, 500, 4 * KIB, SMALL_PART, 3 * SMALL_PART, self.rng.randrange(1, 40 * KIB)])
        data = pattern(length, self.rng.randrange(256))
        if self.rng.random() < 0.3:
            data = b"\x28\xb5\x2f\xfd" + data
        self.note(f"write {entry.path} {offset}+{len(data)}")
        try:
            await self.mount.files.write(handle, offset, data)
        except NotSupported as e:
            assert offset < size, "a sequential write is always possible"
            await self.poisoned(e, entry, handle)
            return
        except FileSystemError as e:
            self.refused(e, errno.ESTALE, entry.gone)
            return
        except S3fsxError as e:
            await self.failed(e, [entry.path])
            return
        before = entry.data[:offset].ljust(offset, b"\0")
        entry.data = before + data + entry.data[offset + len(data) :]

    async def truncate(self) -> None:
        chosen = self.some_handle()
        if chosen is None or chosen[0].gone:
            return
        entry, handle = chosen
        size = self.rng.choice([0, self.rng.randrange(len(entry.data) + 1), len(entry.data) + self.rng.randrange(9999),
                                len(entry.data) // SMALL_PART * SMALL_PART])  # fmt: skip
        self.note(f"truncate {entry.path} {size}")
        try:
            await self.mount.files.truncate(handle.file, size)
        except NotSupported as e:
            assert 0 < size < len(entry.data)
            await self.poisoned(e, entry, handle)
            return
        except S3fsxError as e:
            await self.failed(e, [entry.path])
            return
        entry.data = entry.data[:size].ljust(size, b"\0")

    async def poisoned(self, error: NotSupported, entry: Entry, handle: Handle) -> None:
        """What was refused in a changed file leaves nothing of the change."""
        writer = handle.file.writer
        if writer is not None and writer.error is not None and not entry.gone:
            await self.failed(error, [entry.path])

    async def flush(self) -> None:
        chosen = self.some_handle()
        if chosen is None:
            return
        entry, handle = chosen
        self.note(f"flush {entry.path}")
        try:
            await self.rng.choice((self.mount.files.flush, self.mount.files.fsync))(handle)
        except S3fsxError as e:
            await self.failed(e, [entry.path])
            return
        self.flushed(entry)

    async def release(self) -> None:
        chosen = self.some_handle()
        if chosen is None:
            return
        entry, handle = chosen
        self.note(f"close {entry.path}")
        entry.handles.remove(handle)
        try:
            await self.mount.close(handle)
        except S3fsxError as e:
            await self.failed(e, [entry.path])
            return
        self.flushed(entry)
        if not entry.handles and not entry.gone:
            for op in ("list_page", "head"):
                self.mount.store._faults.pop(op, None)  # the model's own question is not what is tested
            if self.faults and await self.mount.lookup(entry.path) is None:
                # An empty temporary name is stored by release, which tells nobody; its rename will.
                await self.failed(ServerFault("in release"), [entry.path])
                return
            self.took(entry)
            assert entry.data or entry.stored == b"", "created only, and not in the bucket"

    def flushed(self, entry: Entry) -> None:
        if entry.gone:
            return
        if is_temporary(entry.path.rpartition("/")[2]):
            self.took(entry)
        else:
            entry.stored = entry.data

    def took(self, entry: Entry) -> None:
        """A temporary name may have been published."""
        key = self.mount.key(entry.path)
        if key in self.mount.store.objects and self.mount.store.data(key) == entry.data:
            entry.stored = entry.data

    async def read(self) -> None:
        entry = self.some_entry()
        if entry is None:
            return
        self.note(f"read {entry.path}")
        streaming = False
        try:
            file = await self.mount.file(entry.path)
            writer = file.writer
            streaming = writer is not None and writer.dirty and not writer.in_memory and writer.settled_at is None
            seen = await self.mount.read(entry.path)
        except NotSupported:
            assert streaming
            assert file.version is None
            return
        except Exists as e:
            await self.taken(e, entry.path)
            return
        except S3fsxError as e:
            await self.failed(e, [entry.path])
            return
        if streaming:
            assert difference(seen, self.mount.stored(entry.path)) is None  # the old object, whole
            return
        assert difference(seen, entry.data) is None
        self.took(entry)

    async def rename(self) -> None:
        entry, path = self.some_entry(), self.any_path()
        if entry is None or path in self.dirs:
            return
        if self.rng.random() < 0.5 and entry.path.endswith((".tmp", ".dat")):
            path = entry.path.removesuffix(".tmp") if entry.path.endswith(".tmp") else entry.path[:-3] + "zst"
        self.note(f"rename {entry.path} {path}")
        target = self.files.get(path)
        try:
            await self.mount.rename(entry.path, path)
        except FileSystemError as e:
            self.refused(e, errno.EBUSY, target is not None and bool(target.handles))
            return
        except Exists as e:
            await self.taken(e, entry.path)
            return
        except S3fsxError as e:
            await self.failed(e, [entry.path, path])
            return
        if entry is target:
            return
        if target is not None:
            self.drop(target)
        del self.files[entry.path]
        if self.faults and entry.path in self.mount.paths():  # a failed clean-up does not fail a committed rename
            self.mount.store.remove(self.mount.key(entry.path))
            await trio.sleep(6)
        entry.path = path
        entry.stored = entry.data
        self.files[path] = entry

    async def unlink(self) -> None:
        entry = self.some_entry()
        if entry is None:
            return
        self.note(f"unlink {entry.path}")
        try:
            await self.mount.unlink(entry.path)
        except S3fsxError as e:
            await self.failed(e, [entry.path], removing=True)
            return
        self.drop(entry)

    def drop(self, entry: Entry) -> None:
        entry.gone = True
        del self.files[entry.path]
        self.orphans.append(entry)

    async def mkdir(self) -> None:
        path = f"{self.root}/{self.rng.choice('de')}"
        self.note(f"mkdir {path}")
        try:
            await self.mount.mkdir(path)
        except FileSystemError as e:
            self.refused(e, errno.EEXIST, path in self.dirs)
        except S3fsxError as e:
            await self.unsure_directory(e, path)
        else:
            self.dirs.add(path)

    async def rmdir(self) -> None:
        path = f"{self.root}/{self.rng.choice('de')}"
        self.note(f"rmdir {path}")
        full = any(name.startswith(path + "/") for name in self.files)
        try:
            await self.mount.rmdir(path)
        except FileSystemError as e:
            self.refused(e, errno.ENOTEMPTY if full else errno.ENOENT, full or path not in self.dirs)
        except S3fsxError as e:
            await self.unsure_directory(e, path)
        else:
            assert not full
            self.dirs.discard(path)

    async def unsure_directory(self, error: S3fsxError, path: str) -> None:
        self.expected(error)
        self.mount.store._faults.clear()
        await trio.sleep(6)
        if await self.mount.lookup(path) is None:
            assert not any(name.startswith(path + "/") for name in self.files)
            self.dirs.discard(path)
        else:
            self.dirs.add(path)

    async def outsider(self) -> None:
        """Another node writes or deletes what nobody here has open."""
        entry = self.some_entry(where=lambda e: not e.handles and e.stored == e.data)
        if entry is None:
            return
        if self.rng.random() < 0.3:
            self.note(f"outsider deletes {entry.path}")
            self.mount.store.remove(self.mount.key(entry.path))
            self.drop(entry)
            self.mount.store.poke(self.mount.key(entry.path.rpartition("/")[0] + "/"), b"")  # keeps the directory
        else:
            entry.data = entry.stored = pattern(self.rng.randrange(2 * SMALL_PART), self.rng.randrange(256))
            self.note(f"outsider writes {entry.path} {len(entry.data)}")
            self.mount.store.poke(self.mount.key(entry.path), entry.data)
        await trio.sleep(6)

    async def wait(self) -> None:
        await trio.sleep(self.rng.choice([1, 6]))

    async def fault(self) -> None:
        op = self.rng.choice(FAULTY)
        after = self.rng.random() < 0.3
        self.note(f"fault {op} {'after' if after else 'before'} the effect")
        self.mount.store.fail_next(op, ServerFault(f"fault of {op}"), after_effect=after)

    def guess_taken(self, path: str) -> bool:
        """A temporary name waits, and the name it was predicted to get was given to another file meanwhile: it can
        only be renamed to that name or deleted."""
        return path.endswith((".tmp", ".dat")) and (path[:-4] in self.files or path[:-3] + "zst" in self.files)

    async def taken(self, error: Exists, path: str) -> None:
        writer = (await self.mount.file(path)).writer
        if writer is not None and writer.error is None:
            assert self.guess_taken(path)
            return
        await self.failed(error, [path])  # it was still being written: the error is final

    # -- after an error

    def refused(self, error: FileSystemError, code: int, rightly: bool) -> None:
        if error.errno != code or not rightly:
            raise AssertionError(f"refused without a reason: {error!r}") from error

    def expected(self, error: S3fsxError) -> None:
        assert self.faults or isinstance(error, Exists | NotSupported), error
        self.note(f"  {error!r}")

    async def failed(self, error: S3fsxError, paths: list[str], *, removing: bool = False) -> None:
        """What is stored under these names is old or new, and whatever was stored before is not lost; then they go."""
        self.expected(error)
        mount = self.mount
        mount.store._faults.clear()
        entries = [self.files[path] for path in dict.fromkeys(paths) if path in self.files]
        allowed: set[bytes | None] = {None}
        for entry in entries:
            allowed |= {entry.stored, entry.data}
        now = {path: mount.store.objects[mount.key(path)].data for path in mount.paths()}
        for path in paths:
            assert now.get(path) in allowed, f"{path} has neither its old nor its new content"
        for entry in entries[:1]:
            if entry.stored is not None and not removing:
                survivors = [now.get(path) for path in paths]
                assert entry.stored in survivors or entry.data in survivors, f"{entry.path} was lost"
        for entry in [*entries, *(o for o in self.orphans if o.path in paths)]:
            for handle in entry.handles:
                try:
                    await mount.close(handle)
                except S3fsxError as e:
                    self.note(f"  close: {e!r}")
            entry.handles.clear()
        await mount.idle()
        await trio.sleep(6)
        for path in dict.fromkeys(paths):
            if await mount.lookup(path) is not None:
                await mount.unlink(path)
            if path in self.files:
                self.drop(self.files[path])

    # -- comparing

    def below(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if path.startswith(self.root + "/")]

    async def compare(self) -> None:
        if self.faults and self.mount.busy:
            await self.mount.idle()  # aborts that failed are repeated
            await trio.sleep(6)
        try:
            for directory in sorted(self.dirs):
                expected = {
                    p.rpartition("/")[2] for p in (*self.files, *self.dirs) if p.rpartition("/")[0] == directory
                }
                assert set(await self.mount.names(directory)) == expected
            for path, entry in self.files.items():
                file = await self.mount.file(path)
                if file.writer is None or file.writer.error is None:
                    assert file.size == len(entry.data), path
        except S3fsxError as e:
            self.expected(e)
        stored = {path: self.mount.stored(path) for path in self.below(self.mount.paths())}
        for path, entry in self.files.items():
            if entry.stored != stored.get(path):
                self.took(entry)  # a reader of a temporary name, or a failure after the effect
        expected_stored = {p: e.stored for p, e in self.files.items() if e.stored is not None}
        assert {p: len(d) for p, d in stored.items()} == {p: len(d) for p, d in expected_stored.items()}
        assert [p for p, d in stored.items() if d != expected_stored[p]] == []

    async def close_all(self) -> None:
        for entry in [*self.files.values(), *self.orphans]:
            while entry.handles:
                handle = entry.handles.pop(0)
                try:
                    await self.mount.close(handle)
                except S3fsxError as e:
                    await self.failed(e, [entry.path])

    async def verify(self) -> None:
        """After the unmount's publication of what waits."""
        for path, entry in sorted(self.files.items()):
            writer = (await self.mount.file(path)).writer
            if writer is not None and writer.settled_at is not None:
                assert self.guess_taken(path), f"{path}: was not published"
                await self.mount.unlink(path)
                continue
            assert difference(self.mount.stored(path), entry.data) is None, path
            assert difference(await self.mount.read(path), entry.data) is None, path


def difference(found: bytes, expected: bytes) -> str | None:
    """None, or where they first differ: bytes by the thousand tell nobody anything."""
    if found == expected:
        return None
    at = next(
        (i for i, (f, e) in enumerate(zip(found, expected, strict=False)) if f != e), min(len(found), len(expected))
    )
    return f"{len(found)} bytes instead of {len(expected)}, different from {at} on"


async def tell(model: Model, steps: int) -> None:
    try:
        await model.run(steps)
    except BaseException as e:
        e.add_note("\n".join(model.log[-60:]))
        raise


def store(seed: int, **more: object) -> FakeStore:
    rng = random.Random(seed)
    careful = Capabilities("crc32", conditional_put=True, conditional_complete=True)
    return FakeStore(
        min_part=4 * KIB,
        latency=(0.0, rng.choice([0.0, 0.3])),
        seed=seed,
        capabilities=rng.choice([careful, Capabilities()]),
    )


def sizes(schedule: SmallSchedule, seed: int) -> SmallSchedule:
    """Every fifth run as on a store that insists on equal parts."""
    return schedule if seed % 5 else SmallSchedule(SMALL_PART, SMALL_PART, uniform=True)


EXPECTED = "could not be|renamed, but|could not abort|is lost|without checksums"


async def run(mount: Domain, models: list[Model], steps: int) -> None:
    async with trio.open_nursery() as nursery:
        for model in models:
            nursery.start_soon(tell, model, steps)
    await mount.files.publish_waiting(-1.0)
    for model in models:
        await model.verify()
    await mount.idle()
    assert mount.budget.committed == 0


@pytest.mark.expect_log("under its temporary name: .* which somebody else made", optional=True)
@pytest.mark.parametrize("seed", range(50 * RUNS))
async def test_one_task(make: Make, schedule: SmallSchedule, seed: int) -> None:
    mount = make(store(seed), schedule=sizes(schedule, seed), budget=256 * KIB)
    await run(mount, [Model(mount, "dump", random.Random(seed), faults=False)], 120)
    await mount.nothing_left()


@pytest.mark.expect_log(EXPECTED, optional=True)
@pytest.mark.parametrize("seed", range(50 * RUNS))
async def test_one_task_with_faults(make: Make, schedule: SmallSchedule, seed: int) -> None:
    mount = make(store(seed), schedule=sizes(schedule, seed), budget=256 * KIB)
    await run(mount, [Model(mount, "dump", random.Random(seed), faults=True)], 120)
    after = await mount.restarted()
    await after.nothing_left()


@pytest.mark.expect_log("under its temporary name: .* which somebody else made", optional=True)
@pytest.mark.parametrize("seed", range(20 * RUNS))
async def test_three_tasks(make: Make, schedule: SmallSchedule, seed: int) -> None:
    """On different directories of one mount, sharing its budget."""
    mount = make(store(seed), schedule=sizes(schedule, seed), budget=256 * KIB)
    for i in range(3):
        await mount.mkdir(f"t{i}")
    await run(mount, [Model(mount, f"t{i}", random.Random(3 * seed + i), faults=False) for i in range(3)], 60)
    await mount.nothing_left()
