"""The .protected files of Proxmox on buckets with Object Lock, and what they and other people's locks keep."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from s3fsx.errors import AccessDenied, ServerFault
from s3fsx.store.objects import Capabilities
from tests.domain.conftest import Make
from tests.domain.harness import ATTRS, KIB, Domain, SmallSchedule, pattern
from tests.domain.test_namespace import refusal
from tests.fakestore import FakeStore

X = "dump/vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"
MARK = f"{X}.protected"
LOCKED = Capabilities("crc32", conditional_put=True, conditional_complete=True, object_lock=True)


class LockStore(FakeStore):
    """A bucket with Object Lock, which looks after every request: no mark is ever there without its hold, so that a
    power cut at any moment leaves no backup that looks protected and is not."""

    def __init__(self) -> None:
        super().__init__(capabilities=LOCKED, min_part=4 * KIB)
        self.strict = True

    @asynccontextmanager
    async def _call(self, op: str, key: str) -> AsyncIterator[None]:
        async with super()._call(op, key):
            yield
            if self.strict:
                self.check()

    def check(self) -> None:
        for key in self.objects:
            if key.endswith(".protected"):
                backup = self.objects.get(key.removesuffix(".protected"))
                assert backup is not None, f"{key} protects nothing"
                assert backup.held, f"{key} is there without the hold"


@pytest.fixture
def locked(make: Make) -> Domain:
    return make(LockStore())


async def protect(mount: Domain, mark: str = MARK) -> None:
    """PVE::Storage::DirPlugin: open(O_RDONLY|O_CREAT), close, whose error nobody looks at."""
    handle = await mount.create(mark, os.O_RDONLY)
    await mount.close(handle)


def held(mount: Domain, path: str = X) -> bool:
    return mount.store.objects[mount.key(path)].held


async def test_the_mark_is_a_legal_hold(locked: Domain) -> None:
    await locked.write(X, b"backup")
    handle = await locked.create(MARK, os.O_RDONLY)
    assert held(locked)  # when open returns: nobody looks at close
    assert await locked.files.legal_hold(await locked.file(X)) is True
    await locked.close(handle)
    assert locked.paths() == [X, MARK]
    assert await refusal(locked.unlink(X)) == errno.EPERM
    await locked.unlink(MARK)
    assert not held(locked)
    assert await locked.files.legal_hold(await locked.file(X)) is False
    await locked.unlink(X)
    assert locked.paths() == []
    assert locked.store.hidden == []


async def change_attributes(mount: Domain) -> None:
    await mount.files.set_attributes(await mount.file(X), replace(ATTRS, mode=0o600))


async def write_over(mount: Domain) -> None:
    await mount.write(X, b"other")


async def open_to_append(mount: Domain) -> None:
    await mount.open(X, os.O_WRONLY | os.O_APPEND)


async def truncate(mount: Domain) -> None:
    await mount.files.truncate(await mount.file(X), 1)


async def rename_over(mount: Domain) -> None:
    await mount.write("dump/other", b"other")
    await mount.rename("dump/other", X)


async def commit_over(mount: Domain) -> None:
    temporary = X.replace(".zst", ".dat")
    await mount.write(temporary, b"\x28\xb5\x2f\xfd" + pattern(40 * KIB))
    await mount.rename(temporary, X)


HIDING: dict[str, Callable[[Domain], Awaitable[object]]] = {
    "unlink": lambda mount: mount.unlink(X),
    "rename away": lambda mount: mount.rename(X, "dump/away"),
    "rename over it": rename_over,
    "a new backup of its name": commit_over,
    "rewrite": write_over,
    "append": open_to_append,
    "truncate": truncate,
    "chmod": change_attributes,
}


@pytest.mark.parametrize("how", HIDING)
@pytest.mark.parametrize("by", ["hold", "hold of another tool", "retention", "mark alone"])
async def test_nothing_hides_what_is_kept(make: Make, schedule: SmallSchedule, by: str, how: str) -> None:
    """Every one of these would succeed in S3, by a delete marker or a new version."""
    store = LockStore()
    mount = make(store, schedule=schedule, budget=64 * KIB)
    if by == "retention":
        store.retention = 86_400
    await mount.write(X, b"backup")
    store.retention = 0
    if by == "hold":
        await protect(mount)
    elif by == "hold of another tool":
        store.hold(mount.key(X))
    elif by == "mark alone":
        store.strict = False
        store.poke(mount.key(MARK), b"")
    before = store.objects[mount.key(X)]
    attrs = (await mount.file(X)).attrs
    assert await refusal(HIDING[how](mount)) == errno.EPERM
    await mount.idle()
    assert store.objects[mount.key(X)] is before
    assert store.hidden == []
    assert (await mount.file(X)).attrs == attrs
    assert await mount.read(X) == b"backup"


@pytest.mark.parametrize("by", ["hold", "retention", "mark"])
async def test_no_directory_moves_with_something_kept(locked: Domain, by: str) -> None:
    assert isinstance(locked.store, LockStore)
    locked.store.strict = False
    await locked.mkdir("old")
    for name in ("a", "b", "c"):
        await locked.write(f"old/{name}", b"x")
    if by == "hold":
        locked.store.hold(locked.key("old/b"))
    elif by == "retention":
        locked.store.objects[locked.key("old/b")].retained = 4e9
    else:
        locked.store.poke(locked.key("old/b.protected"), b"")
    before = locked.bucket()
    assert await refusal(locked.rename("old", "new")) == errno.EPERM
    assert locked.bucket() == before
    assert locked.store.hidden == []


async def test_a_hold_set_while_the_file_is_open_keeps_it(locked: Domain) -> None:
    await locked.write(X, b"backup")
    handle = await locked.open(X, os.O_WRONLY | os.O_TRUNC)
    await locked.fill(handle, b"other")
    locked.store.hold(locked.key(X))
    assert await refusal(locked.close(handle)) == errno.EPERM
    assert locked.stored(X) == b"backup"
    assert locked.store.hidden == []


async def test_two_nodes(locked: Domain, make: Make) -> None:
    other = make(locked.store)
    await locked.write(X, b"backup")
    assert await other.read(X) == b"backup"
    await protect(locked)
    assert await refusal(other.unlink(X)) == errno.EPERM  # whatever its listing says
    await locked.unlink(MARK)
    await other.unlink(X)
    assert locked.store.hidden == []


async def test_protected_twice_and_after_a_restart(locked: Domain) -> None:
    await locked.write(X, b"backup")
    await protect(locked)
    await protect(locked)
    again = await locked.restarted()
    assert await refusal(again.unlink(X)) == errno.EPERM
    await again.unlink(MARK)
    await again.unlink(X)
    assert locked.store.hidden == []


async def test_there_must_be_something_to_protect(locked: Domain) -> None:
    assert await refusal(protect(locked)) == errno.ENOENT
    handle = await locked.create(X)
    assert await refusal(protect(locked)) == errno.ENOENT  # not in the bucket yet
    await locked.finish(handle, b"backup")
    await protect(locked)


# -- marks that come and go by rename


async def test_a_mark_that_comes_by_rename(locked: Domain) -> None:
    await locked.write(X, b"backup")
    await locked.write("dump/tmp", b"")
    await locked.rename("dump/tmp", MARK)
    assert held(locked)
    await locked.rename(MARK, "dump/tmp")
    assert not held(locked)
    assert locked.paths() == ["dump/tmp", X]


async def test_a_mark_that_goes_to_another_backup(locked: Domain) -> None:
    await locked.write(X, b"backup")
    await locked.write("dump/y", b"other")
    await protect(locked)
    await locked.rename(MARK, "dump/y.protected")
    assert not held(locked)
    assert held(locked, "dump/y")
    assert await refusal(locked.rename("dump/y.protected", "dump/nothing.protected")) == errno.ENOENT
    assert held(locked, "dump/y")


# -- what fails


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize(("op", "skip"), [("legal_hold", 0), ("set_legal_hold", 0), ("legal_hold", 1)])
async def test_no_mark_without_the_hold(locked: Domain, op: str, skip: int, after_effect: bool) -> None:
    await locked.write(X, b"backup")
    if skip:
        locked.store.objects[locked.key(X)].held = False
        locked.store.fail_next(op, ServerFault("x"), times=2)
        with pytest.raises(ServerFault):
            await protect(locked)
    locked.store.fail_next(op, AccessDenied("403"), after_effect=after_effect)
    with pytest.raises((AccessDenied, ServerFault)):
        await protect(locked)
    assert await locked.lookup(MARK) is None
    assert locked.paths() == [X]


async def test_a_store_that_accepts_a_hold_and_sets_none(locked: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(key: str, on: bool) -> None:
        pass

    await locked.write(X, b"backup")
    monkeypatch.setattr(locked.store, "set_legal_hold", nothing)
    with pytest.raises(Exception, match="does not show it"):
        await protect(locked)
    assert locked.paths() == [X]


async def test_a_hold_that_cannot_be_lifted_brings_the_mark_back(locked: Domain) -> None:
    await locked.write(X, b"backup")
    await protect(locked)
    locked.store.fail_next("set_legal_hold", AccessDenied("403"))
    with pytest.raises(AccessDenied):
        await locked.unlink(MARK)
    await trio.sleep(0.01)  # a listing of the same instant may not undo what we changed
    assert await locked.lookup(MARK) is not None
    assert await locked.lookup(X) is not None
    assert held(locked)
    await locked.unlink(MARK)
    assert not held(locked)


async def test_a_hold_whose_lifting_was_not_confirmed(locked: Domain) -> None:
    """A mark put back would be one without a hold."""
    await locked.write(X, b"backup")
    await protect(locked)
    locked.store.fail_next("set_legal_hold", ServerFault("its answer was lost"), after_effect=True)
    await locked.unlink(MARK)
    assert locked.paths() == [X]
    await locked.unlink(X)


@pytest.mark.expect_log("may still have its legal hold, but not its mark")
async def test_a_hold_of_which_nothing_is_known(locked: Domain) -> None:
    await locked.write(X, b"backup")
    await protect(locked)
    locked.store.fail_next("set_legal_hold", ServerFault("its answer was lost"), after_effect=True)
    unlink, legal_hold = locked.unlink(MARK), locked.store.legal_hold

    async def unanswered(key: str) -> bool:
        if key == locked.key(X):
            raise ServerFault("503")
        return await legal_hold(key)

    locked.store.legal_hold = unanswered  # type: ignore[method-assign]
    with pytest.raises(ServerFault):
        await unlink
    assert locked.paths() == [X]


@pytest.mark.expect_log("may still have its legal hold, but not its mark")
async def test_a_mark_that_cannot_be_put_back_leaves_the_hold(locked: Domain) -> None:
    await locked.write(X, b"backup")
    await protect(locked)
    for op in ("set_legal_hold", "put"):
        locked.store.fail_next(op, ServerFault("x"))
    with pytest.raises(ServerFault):
        await locked.unlink(MARK)
    assert locked.paths() == [X]
    assert await refusal(locked.unlink(X)) == errno.EPERM
    await protect(locked)  # the way out: once more, both
    await locked.unlink(MARK)
    await locked.unlink(X)


@pytest.mark.parametrize("op", ["legal_hold", "retained_until", "head"])
async def test_no_answer_is_no_permission(locked: Domain, op: str) -> None:
    await locked.write(X, b"backup")
    locked.store.fail_next(op, ServerFault("x"))
    with pytest.raises(ServerFault):
        await locked.unlink(X)
    assert locked.paths() == [X]


async def test_a_mark_whose_backup_was_deleted_by_another_tool(locked: Domain) -> None:
    assert isinstance(locked.store, LockStore)
    await locked.write(X, b"backup")
    await protect(locked)
    locked.store.strict = False
    locked.store.remove(locked.key(X))
    await locked.unlink(MARK)
    assert locked.paths() == []


# -- a bucket whose default is a retention


async def test_a_file_published_early_goes_on_under_a_retention(
    make: Make, schedule: SmallSchedule, caplog: pytest.LogCaptureFixture
) -> None:
    """A shell's redirection and each child of it close a descriptor: each time what is there is published."""
    store = LockStore()
    store.retention = 86_400
    mount = make(store, schedule=schedule, budget=64 * KIB)
    handle = await mount.create(X)
    data = pattern(30 * KIB)
    await mount.files.flush(handle)
    await mount.fill(handle, data[: 20 * KIB])
    await mount.files.flush(handle)
    await mount.fill(handle, data[20 * KIB :], offset=20 * KIB)
    await mount.files.set_attributes(handle.file, ATTRS)  # cp -p
    await mount.close(handle)
    assert mount.stored(X) == data
    assert await refusal(mount.unlink(X)) == errno.EPERM


async def test_vzdump_can_clean_up_under_a_retention(locked: Domain) -> None:
    locked.store.retention = 86_400
    await locked.mkdir("dump/vzdump-qemu-100-2026_11_20-13_15_26.tmp")
    conf = "dump/vzdump-qemu-100-2026_11_20-13_15_26.tmp/qemu-server.conf"
    await locked.write(conf, b"cores: 1")
    await locked.write(X, b"backup")
    await protect(locked)
    await locked.unlink(MARK)
    await locked.unlink(conf)
    await locked.rmdir("dump/vzdump-qemu-100-2026_11_20-13_15_26.tmp")
    assert locked.paths() == [X]
    assert await refusal(locked.unlink(X)) == errno.EPERM


async def test_notes_under_a_retention(locked: Domain) -> None:
    """file_set_contents: written once; a change is refused, and its temporary file can be removed."""
    locked.store.retention = 86_400
    notes, temporary = f"{X}.notes", f"{X}.notes.tmp.77"
    await locked.write(temporary, b"first")
    await locked.rename(temporary, notes)
    await locked.write(temporary, b"second")
    assert await refusal(locked.rename(temporary, notes)) == errno.EPERM
    await locked.unlink(temporary)
    assert locked.paths() == [notes]
    assert locked.stored(notes) == b"first"


async def test_a_retention_that_is_over_keeps_nothing(locked: Domain) -> None:
    await locked.write(X, b"backup")
    locked.store.objects[locked.key(X)].retained = 1e9
    await locked.unlink(X)
    assert locked.paths() == []


# -- a bucket without Object Lock


async def test_without_a_lock_nothing_is_asked_and_one_line_says_so(
    mount: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "s3fsx.protection"):
        await mount.write(X, b"backup")
        await mount.write("dump/y", b"other")
        assert caplog.messages == []
        await protect(mount)
        await protect(mount, "dump/y.protected")
    assert len(caplog.messages) == 1
    assert "no Object Lock" in caplog.messages[0]
    await mount.unlink(X)  # it is Proxmox that honours the file
    assert not {"legal_hold", "set_legal_hold", "retained_until", "head"} & set(mount.calls())
    assert await mount.files.legal_hold(await mount.file("dump/y")) is None
