"""kill -9 at every request and every journal write of a rename or deletion of published objects, and of its replay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import pytest
import trio

from s3fsx.errors import AccessDenied, DeadlineExceeded, EndpointDown, ServerFault
from s3fsx.local.intents import piece_of
from s3fsx.local.journal import JournalError
from s3fsx.local.records import Intent
from s3fsx.store.objects import Capabilities, ObjectInfo, Payload
from tests.domain.conftest import Make
from tests.domain.harness import KIB, SMALL_COPY, SMALL_PART, Domain, Options, SmallSchedule, pattern
from tests.domain.test_recovery import CutJournal, CutStore, Power
from tests.fakestore import FakeStore

BACKUP = "dump/vzdump-qemu-100-2026_11_20-13_15_26.vma"
SMALL = b"small"
PARTS = pattern(2 * SMALL_PART + 99)  # written in parts: its ETag changes when it is copied
HUGE = pattern(SMALL_COPY + 5, 1)  # copied in parts, too
OLD = b"what had the name before"
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Flow:
    """before: what is published when it begins. states: what may be there after a cut and the next mount, whole; the
    last is what must be there once ``run`` has returned."""

    name: str
    before: Files
    run: Callable[[Domain], Awaitable[None]]
    states: tuple[Files, ...]
    stride: int = 1  # of the cuts in the replay


def renamed(name: str, data: bytes, over: bytes | None = None, stride: int = 1) -> Flow:
    before = {"dump/a": data} if over is None else {"dump/a": data, "dump/b": over}
    return Flow(name, before, lambda mount: mount.rename("dump/a", "dump/b"), (before, {"dump/b": data}), stride)


async def prune(mount: Domain) -> None:
    for extension in (".zst.notes", ".zst.protected", ".zst"):
        await mount.unlink(BACKUP + extension)


async def rename_a_published_temporary(mount: Domain) -> None:
    """Its rename came after pending_limit."""
    await mount.rename(BACKUP + ".dat", BACKUP + ".zst")


FULL = {BACKUP + ".zst": PARTS, BACKUP + ".zst.notes": b"n", BACKUP + ".zst.protected": b""}
DIRECTORY = {"a": SMALL, "b": PARTS, "huge": HUGE, "sub/c": b"", "sub/deep/d": SMALL}

FLOWS = [
    renamed("rename", SMALL),
    renamed("rename of parts", PARTS),
    renamed("rename by a copy in parts", HUGE, stride=7),
    renamed("rename over another", PARTS, OLD),
    renamed("rename over the same bytes", SMALL, SMALL),
    Flow("unlink", {"dump/a": PARTS}, lambda mount: mount.unlink("dump/a"), ({"dump/a": PARTS}, {})),
    Flow(
        "prune",
        FULL,
        prune,
        (
            FULL,
            {name: data for name, data in FULL.items() if not name.endswith("notes")},
            {BACKUP + ".zst": PARTS},
            {},
        ),
    ),
    Flow(
        "late rename",
        {BACKUP + ".dat": PARTS},
        rename_a_published_temporary,
        ({BACKUP + ".dat": PARTS}, {BACKUP + ".zst": PARTS}),
    ),
    Flow(
        "directory",
        {f"dump/d/{name}": data for name, data in DIRECTORY.items()},
        lambda mount: mount.rename("dump/d", "dump/e"),
        (
            {f"dump/d/{name}": data for name, data in DIRECTORY.items()},
            {f"dump/e/{name}": data for name, data in DIRECTORY.items()},
        ),
        stride=29,
    ),
]


async def fill(mount: Domain, files: Files) -> None:
    """As s3fsx itself publishes them: with write ids, the large ones in parts."""
    for path, data in files.items():
        if "/d/" in path and not await mount.lookup("dump/d"):
            await mount.mkdir("dump/d")
        for directory in ("dump/d/sub", "dump/d/sub/deep"):
            if path.startswith(directory + "/") and not await mount.lookup(directory):
                await mount.mkdir(directory)
        await mount.write(path, data)
        if path.endswith(".dat"):
            await mount.files.publish_waiting(-1.0)
    await mount.idle()


def stored(mount: Domain) -> Files:
    return {path: mount.stored(path) for path in mount.paths()}


async def cut(mount: Domain, power: Power, action: Callable[[], Awaitable[None]], at: int) -> bool:
    """True when the power was cut; else power.steps is how many there were."""
    power.steps, power.cut_at = 0, at
    with trio.CancelScope() as power.scope:
        await action()
    scope, power.scope = power.scope, None
    steps = power.steps
    await mount.crash()
    power.steps = steps
    return bool(scope and scope.cancelled_caught)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
async def test_a_cut_at_every_step_and_at_every_step_of_the_replay(flow: Flow, schedule: SmallSchedule) -> None:
    """One name or the other, whole; never both, never half a directory; nothing left in the journal."""
    options = Options(schedule=schedule, budget=256 * KIB)
    at = again_at = 0
    while True:
        async with trio.open_nursery() as nursery:
            power = Power()
            store, journal = CutStore(power), CutJournal(power)
            mount = Domain(nursery, store, options, journal)
            await fill(mount, flow.before)
            was_cut, steps = await cut(mount, power, lambda: flow.run(mount), at), power.steps  # noqa: B023
            where = f"cut at step {at}, its replay at {again_at}"
            replayed = Domain(nursery, store, options, journal)
            cut_again = was_cut and await cut(replayed, power, replayed.recovery.run, again_at)
            after = Domain(nursery, store, options, journal)
            await after.recovery.run()
            assert stored(after) in (flow.states if was_cut else flow.states[-1:]), where
            for path, data in stored(after).items():
                assert await after.read(path) == data, where
            await after.nothing_left()
        if not was_cut:
            assert at == steps >= 4
            return
        at, again_at = (at, again_at + flow.stride) if cut_again else (at + 1, at % flow.stride)


async def test_a_kill_between_copy_and_delete_leaves_the_new_name_only(make: Callable[..., Domain]) -> None:
    """The state that had both names for ever: the copy is there, the source is not deleted."""
    mount = make()
    await mount.write("dump/a", SMALL)
    mount.store.hang("delete")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.rename, "dump/a", "dump/b")
        await trio.sleep(1)
        assert mount.paths() == ["dump/a", "dump/b"]
        nursery.cancel_scope.cancel()
    mount.store.release("delete")
    after = await mount.restarted()
    assert stored(after) == {"dump/b": SMALL}
    await after.nothing_left()


# -- what others did meanwhile is left alone


async def begun(mount: Domain, phase: str = "copying", **pairs: str) -> Intent:
    """The journal of a mount that was killed while it renamed dump/KEY to dump/VALUE ("": deleted it)."""
    pieces = [
        piece_of(await mount.store.head(mount.key(f"dump/{source}")), target and mount.key(f"dump/{target}"))
        for source, target in pairs.items()
    ]
    intent = Intent("i1", phase, "dump/x", 1000.0, tuple(pieces))
    await mount.journal.intend(intent)
    return intent


async def copy(mount: Domain, source: str, target: str) -> str:
    info = await mount.store.copy(mount.key(f"dump/{source}"), mount.key(f"dump/{target}"), etag="")
    return info.etag


async def test_a_source_that_was_written_since_stays(mount: Domain) -> None:
    await mount.write("dump/a", SMALL)
    await begun(mount, a="b")
    await copy(mount, "a", "b")
    mount.store.poke(mount.key("dump/a"), b"of another node")
    await mount.recovery.run()
    assert stored(mount) == {"dump/a": b"of another node", "dump/b": SMALL}
    await mount.nothing_left()


async def test_the_same_bytes_written_again_are_another_version(mount: Domain) -> None:
    """In the same second, too: by the write id."""
    await mount.write("dump/a", SMALL)
    await begun(mount, "deleting", a="")
    await mount.write("dump/a", SMALL)
    await mount.recovery.run()
    assert stored(mount) == {"dump/a": SMALL}
    await mount.nothing_left()


async def test_the_same_bytes_of_a_foreign_client_later_are_another_version(mount: Domain) -> None:
    mount.store.poke(mount.key("dump/a"), SMALL)
    await begun(mount, "deleting", a="")
    mount.store.poke(mount.key("dump/a"), SMALL)
    mount.store.objects[mount.key("dump/a")].modified += 2
    await mount.recovery.run()
    assert stored(mount) == {"dump/a": SMALL}
    await mount.nothing_left()


async def test_a_target_that_is_somebody_elses_keeps_the_source(mount: Domain) -> None:
    await mount.write("dump/a", SMALL)
    await begun(mount, a="b")
    mount.store.poke(mount.key("dump/b"), SMALL)  # the same bytes, but not our copy
    await mount.recovery.run()
    assert stored(mount) == {"dump/a": SMALL, "dump/b": SMALL}
    await mount.nothing_left()


async def test_half_a_directory_that_others_filled_meanwhile(mount: Domain) -> None:
    """Undone as far as it is ours."""
    for name in ("a", "b", "c"):
        await mount.write(f"dump/{name}", SMALL)
    await begun(mount, a="a2", b="b2", c="c2")
    await copy(mount, "a", "a2")
    mount.store.poke(mount.key("dump/b2"), b"of another node")
    await mount.recovery.run()
    assert mount.paths() == ["dump/a", "dump/b", "dump/b2", "dump/c"]
    await mount.nothing_left()


async def test_a_copy_whose_etag_was_recorded_needs_no_write_id(mount: Domain) -> None:
    """A multipart object of another tool."""
    mount.store.poke(mount.key("dump/a"), PARTS)
    mount.store.objects[mount.key("dump/a")].etag = "0" * 32 + "-3"
    intent = await begun(mount, a="b")
    etag = await copy(mount, "a", "b")
    await mount.journal.intend(replace(intent, phase="deleting", pieces=(replace(intent.pieces[0], copy_etag=etag),)))
    await mount.recovery.run()
    assert stored(mount) == {"dump/b": PARTS}
    await mount.nothing_left()


async def test_replay_of_a_directory_asks_little(mount: Domain) -> None:
    names = [f"{i:03}" for i in range(40)]
    for name in names:
        await mount.write(f"dump/{name}", SMALL)
    intent = await begun(mount, "deleting", **{name: f"x{name}" for name in names})
    etags = [await copy(mount, name, f"x{name}") for name in names]
    pieces = tuple(replace(p, copy_etag=e, write_id="") for p, e in zip(intent.pieces, etags, strict=True))
    await mount.journal.intend(replace(intent, pieces=pieces))
    mount.store.log.clear()
    await mount.recovery.run()
    assert mount.paths() == [f"dump/x{name}" for name in names]
    assert mount.calls() == {"list_page": 2, "delete": 40}


@pytest.mark.expect_log("left in the journal")
async def test_a_replay_that_cannot_be_made_now_stays(mount: Domain) -> None:
    await mount.write("dump/a", SMALL)
    await begun(mount, "deleting", a="")
    mount.store.fail_next("delete", ServerFault("500"))
    await mount.recovery.run()
    assert stored(mount) == {"dump/a": SMALL}
    await mount.recovery.run()
    assert stored(mount) == {}
    await mount.nothing_left()


# -- errors that the program sees


@pytest.mark.parametrize("error", [ServerFault("500"), DeadlineExceeded("late"), EndpointDown("down")])
@pytest.mark.parametrize("effect", [False, True])
async def test_an_unlink_that_failed_is_not_done_later(mount: Domain, error: Exception, effect: bool) -> None:
    await mount.write("dump/a", SMALL)
    mount.store.fail_next("delete", error, after_effect=effect)
    with pytest.raises(type(error)):
        await mount.unlink("dump/a")
    assert await mount.journal.intents() == []
    after = await mount.restarted()
    assert stored(after) == ({} if effect else {"dump/a": SMALL})


@pytest.mark.parametrize("op", ["copy", "delete"])
@pytest.mark.parametrize("effect", [False, True])
async def test_a_rename_that_failed_is_not_finished_later(mount: Domain, op: str, effect: bool) -> None:
    await mount.write("dump/a", SMALL)
    mount.store.fail_next(op, DeadlineExceeded("late"), after_effect=effect)
    with pytest.raises(DeadlineExceeded):
        await mount.rename("dump/a", "dump/b")
    before = stored(mount)
    assert before
    after = await mount.restarted()
    assert stored(after) == before
    await after.nothing_left()


@pytest.mark.expect_log("removed by the next mount")
async def test_copies_that_a_failed_directory_rename_could_not_remove_go_at_the_next_mount(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    for name in ("a", "b", "c"):
        await mount.write(f"dump/d/{name}", SMALL)
    before = stored(mount)
    mount.store.fail_next("copy", ServerFault("500"))
    mount.store.fail_next("delete", EndpointDown("down"), times=9)
    with pytest.raises(ServerFault):
        await mount.rename("dump/d", "dump/e")
    assert len(mount.paths()) > 3
    mount.store._faults.clear()
    after = await mount.restarted()
    assert stored(after) == before
    await after.nothing_left()


@pytest.mark.expect_log("removed by the next mount")
async def test_a_directory_rename_that_failed_is_never_finished_later(mount: Domain) -> None:
    """Every copy is there, only an answer was lost: its program was told that it is not renamed."""
    await mount.mkdir("dump/d")
    for name in ("a", "b"):
        await mount.write(f"dump/d/{name}", SMALL)
    before = stored(mount)
    mount.store.fail_next("copy", DeadlineExceeded("its answer was lost"), after_effect=True)
    mount.store.fail_next("delete", DeadlineExceeded("no answer"), times=3)
    with pytest.raises(DeadlineExceeded):
        await mount.rename("dump/d", "dump/e")
    assert [intent.phase for intent in await mount.journal.intents()] == ["undoing"]
    after = await mount.restarted()
    assert stored(after) == before
    await after.nothing_left()


@pytest.mark.expect_log("removed by the next mount")
async def test_what_was_taken_back_already_is_not_looked_for_at_the_next_mount(mount: Domain) -> None:
    """Another tool makes the same copies, which nobody could tell from ours, after the rename has failed."""
    await mount.mkdir("dump/d")
    for name in ("a", "b", "c"):
        await mount.write(f"dump/d/{name}", SMALL)
    mount.store.fail_next("copy", AccessDenied("403"))
    mount.store.fail_next("delete", ServerFault("500"))
    with pytest.raises(AccessDenied):
        await mount.rename("dump/d", "dump/e")
    (left,) = [path for path in mount.paths() if path.startswith("dump/e/")] or ["dump/e/"]
    for name in ("a", "b", "c"):
        await mount.store.copy(f"pve/dump/d/{name}", f"pve/dump/e/{name}", etag="")
    after = await mount.restarted()
    made = {f"dump/{directory}/{name}" for directory in "de" for name in "abc"}
    assert set(after.paths()) == made - {left}
    await after.nothing_left()


async def test_a_copy_that_was_given_up_and_came_to_be_later_goes_at_the_next_mount(mount: Domain) -> None:
    await mount.mkdir("dump/d")
    await mount.write("dump/d/a", SMALL)
    before = stored(mount)
    mount.store.fail_next("copy", DeadlineExceeded("no answer"), times=2)
    with pytest.raises(DeadlineExceeded):
        await mount.rename("dump/d", "dump/e")
    await mount.store.copy("pve/dump/d/a", "pve/dump/e/a", etag="")
    after = await mount.restarted()
    assert stored(after) == before
    await after.nothing_left()


async def test_nothing_is_begun_without_the_journal(mount: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    await mount.mkdir("dump/d")
    await mount.write("dump/d/a", SMALL)
    await mount.write("dump/b", SMALL)

    async def full(_: object) -> None:
        raise JournalError("journal: database or disk is full")

    monkeypatch.setattr(mount.journal, "intend", full)
    mount.store.log.clear()
    for action in (mount.rename("dump/b", "dump/c"), mount.rename("dump/d", "dump/e")):
        with pytest.raises(JournalError):
            await action
    assert not {"copy", "delete", "put"} & set(mount.calls())
    assert mount.paths() == ["dump/b", "dump/d/a"]


async def test_an_unlink_needs_no_journal(mount: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor waits for its disk: one DELETE is done or not done by itself."""
    await mount.write("dump/a", SMALL)
    await mount.write("dump/b", PARTS)

    async def full(*_: object) -> None:
        raise JournalError("journal: database or disk is full")

    for method in ("intend", "fulfilled", "put", "remove"):
        monkeypatch.setattr(mount.journal, method, full)
    for name in ("dump/a", "dump/b"):
        await mount.unlink(name)
    assert mount.paths() == []
    monkeypatch.undo()
    await mount.nothing_left()


async def test_the_next_mount_deletes_nothing_for_an_unlink_that_was_cut_off(make: Make) -> None:
    """It is not done then, and whatever has that name since, the same bytes too, is not in question."""
    store = FakeStore()
    one, two = make(store), make(store)
    await one.write("dump/a", SMALL)
    store.hang("delete")
    with trio.move_on_after(1):
        await one.unlink("dump/a")
    store.release("delete")
    one = await one.restarted()
    assert one.paths() == ["dump/a"]
    await two.write("dump/a", SMALL)
    one = await one.restarted()
    assert stored(one) == {"dump/a": SMALL}
    await one.nothing_left()


@pytest.mark.expect_log("tried again")
async def test_a_change_that_cannot_be_forgotten_now_is_forgotten_later(
    mount: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mount.write("dump/a", SMALL)
    fulfilled, tries = mount.journal.fulfilled, iter([True, True, False])

    async def full(intent_id: str) -> None:
        if next(tries):
            raise JournalError("journal: database or disk is full")
        await fulfilled(intent_id)

    monkeypatch.setattr(mount.journal, "fulfilled", full)
    await mount.rename("dump/a", "dump/b")
    assert len(await mount.journal.intents()) == 1
    await trio.sleep(130)
    await mount.nothing_left()


LOCKED = Capabilities("crc32", conditional_put=True, conditional_complete=True, object_lock=True, md5_etags=True)
CHANGES = {"unlink": lambda m: m.unlink("dump/x"), "rename": lambda m: m.rename("dump/x", "dump/y")}


@pytest.mark.parametrize("capabilities", [LOCKED, None], ids=["object lock", "mark only"])
@pytest.mark.parametrize("change", CHANGES)
async def test_what_was_protected_since_the_crash_stays(
    make: Make, capabilities: Capabilities | None, change: str
) -> None:
    store = FakeStore() if capabilities is None else FakeStore(capabilities=capabilities)
    one, two = make(store), make(store)
    await one.write("dump/x", b"backup")
    store.hang("delete")
    with trio.move_on_after(1):
        await CHANGES[change](one)
    store.release("delete")
    await two.close(await two.create("dump/x.protected"))
    one = await one.restarted()
    assert one.stored("dump/x") == b"backup"
    assert store.hidden == []
    assert await one.journal.intents() == []


async def test_a_mark_that_moves_with_its_directory_stops_no_replay(make: Make) -> None:
    mount = make()
    await mount.mkdir("d")
    await mount.write("d/x", b"backup")
    await mount.close(await mount.create("d/x.protected"))
    mount.store.hang("delete")
    with trio.move_on_after(1):
        await mount.rename("d", "e")
    mount.store.release("delete")
    after = await mount.restarted()
    assert after.paths() == ["e/x", "e/x.protected"]


async def test_what_an_unlink_costs(mount: Domain) -> None:
    await mount.write("dump/a", SMALL)
    await mount.write("dump/b", SMALL)
    mount.store.log.clear()
    await mount.unlink("dump/a")
    assert mount.calls() == {"delete": 1}
    mount.store.log.clear()
    await mount.rename("dump/b", "dump/c")
    assert mount.calls() == {"copy": 1, "head": 1, "delete": 1}  # head: is it still what was copied?


async def test_a_foreign_object_in_parts_is_whole_under_both_names_at_worst(schedule: SmallSchedule) -> None:
    """The one window: killed after the copy took effect and before its ETag was recorded."""
    async with trio.open_nursery() as nursery:
        for at in range(40):
            power = Power()
            store, journal = CutStore(power), CutJournal(power)
            options = Options(schedule=schedule, budget=256 * KIB)
            mount = Domain(nursery, store, options, journal)
            upload = await FakeStore.create_upload(store, "pve/dump/a", metadata={})
            parts = [
                await FakeStore.upload_part(store, "pve/dump/a", upload, n, Payload.of(pattern(SMALL_PART, n)))
                for n in (1, 2)
            ]
            await FakeStore.complete_upload(store, "pve/dump/a", upload, parts)
            whole = mount.stored("dump/a")
            was_cut = await cut(mount, power, lambda: mount.rename("dump/a", "dump/b"), at)  # noqa: B023
            after = Domain(nursery, store, options, journal)
            await after.recovery.run()
            assert set(stored(after).values()) == {whole}
            if not was_cut:
                assert mount.paths() == ["dump/b"]
                return


async def test_a_proxys_clock_that_is_behind_stops_no_replay(mount: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a PUT is known from the Date of its answer."""
    put = mount.store.put

    async def behind(*args: object, **kwargs: object) -> ObjectInfo:
        info = await put(*args, **kwargs)  # type: ignore[arg-type]
        return replace(info, modified=info.modified - 2)

    monkeypatch.setattr(mount.store, "put", behind)
    await mount.write("dump/a", SMALL)
    mount.store.hang("delete")
    with trio.move_on_after(1):
        await mount.rename("dump/a", "dump/b")
    mount.store.release("delete")
    after = await mount.restarted()
    assert after.paths() == ["dump/b"]
