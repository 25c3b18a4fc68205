from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from s3fsx.errors import S3fsxError
from s3fsx.kernel import callers
from s3fsx.kernel.callers import Callers, Killed


def process(proc: Path, pid: int, tid: int, pending: str, *files: str, end: tuple[str, int, int] = ("D", 0, 0)) -> None:
    """files: open for writing, those that begin with "<" for reading. end: state, flags, exit code."""
    task = proc / str(pid) / "task" / str(tid)
    task.mkdir(parents=True)
    (task / "status").write_text(f"Name:\tzstd\nSigPnd:\t{pending}\nShdPnd:\t0000000000000000\n")
    state, flags, code = end
    (task / "stat").write_text(f"{tid} (a) b) {state} 1 1 1 0 -1 {flags} " + "0 " * 42 + f"{code}\n")
    (proc / str(pid) / "fd").mkdir(exist_ok=True)
    for number, file in enumerate(files):
        (proc / str(pid) / "fd" / str(number)).symlink_to(file.removeprefix("<"))
        (proc / str(pid) / "fdinfo").mkdir(exist_ok=True)
        access = "0100000" if file.startswith("<") else "0100001"
        (proc / str(pid) / "fdinfo" / str(number)).write_text(f"pos:\t0\nflags:\t{access}\n")


def test_those_with_a_pending_sigkill_are_found(tmp_path: Path) -> None:
    process(tmp_path, 7, 7, "0000000000000000", "/mnt/dump/a")
    process(tmp_path, 8, 8, "0000000000004000", "/mnt/dump/b")  # SIGTERM
    process(tmp_path, 9, 10, "0000000000000100", "/mnt/dump/c", "/mnt/dump/d (deleted)", "pipe:[1]", "</mnt/dump/e")
    (tmp_path / "11").mkdir()
    alive = "0000000000000000"
    process(tmp_path, 12, 12, alive, end=("S", 4, 0))  # ends by itself
    process(tmp_path, 13, 13, alive, end=("S", 4, 1 << 8))  # with exit(1)
    process(tmp_path, 14, 14, alive, end=("Z", 4, 9))  # has ended
    process(tmp_path, 15, 15, alive, end=("D", 0, 9))
    process(tmp_path, 16, 16, alive, end=("D", 4, 9))  # killed, closing its files
    found = sorted(callers.killed(tmp_path), key=lambda thread: thread.pid)
    assert found.pop() == Killed(16, 16, frozenset())
    assert found == [Killed(10, 9, frozenset({"/mnt/dump/c", "/mnt/dump/d", "pipe:[1]"}))]


def test_a_process_that_ends_while_it_is_looked_at_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen as FileNotFoundError of /proc/PID/task on a busy node; it ended the mount."""
    process(tmp_path, 7, 7, "0000000000000100")
    process(tmp_path, 8, 8, "0000000000000100")
    listed = os.listdir

    def vanishing(path: Path) -> list[str]:
        if path.name == "task" and path.parent.name == "7":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", vanishing)
    assert [thread.pid for thread in callers.killed(tmp_path)] == [8]


def test_the_real_proc_can_be_read() -> None:
    """A process that lives is none of them. (One that is stuck: tests/mount/test_dstate.py.)"""
    assert os.getpid() not in {thread.pid for thread in callers.killed()}


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> list[Killed]:
    found: list[Killed] = []

    async def at_once(function: object) -> list[Killed]:
        await trio.lowlevel.checkpoint()
        return found

    monkeypatch.setattr("trio.to_thread.run_sync", at_once)
    return found


@pytest.mark.parametrize(
    "thread",
    [Killed(10, 9, frozenset({"/mnt/dump/a"})), Killed(5, 5, frozenset()), Killed(6, 5, frozenset())],
    ids=["has the file open", "opened it", "a thread of who opened it"],
)
async def test_the_call_of_a_killed_program_ends(dead: list[Killed], thread: Killed, autojump_clock: MockClock) -> None:
    calls, begun = Callers("/mnt"), trio.current_time()
    dead.append(thread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.watch)
        with pytest.raises(S3fsxError, match="dump/a: its program was killed"), calls.waits("dump/a", 5):
            await trio.sleep(1000)
        assert trio.current_time() - begun < 20
        nursery.cancel_scope.cancel()


async def test_others_go_on(dead: list[Killed], autojump_clock: MockClock) -> None:
    calls = Callers("/mnt")
    dead.append(Killed(10, 9, frozenset({"/mnt/dump/b", "/other/dump/a"})))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.watch)
        with calls.waits("dump/a", 5):
            await trio.sleep(100)
        nursery.cancel_scope.cancel()
