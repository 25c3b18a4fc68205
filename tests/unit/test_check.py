from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from s3fsx.errors import AccessDenied, DeadlineExceeded, S3fsxError
from s3fsx.service.check import check
from s3fsx.store.objects import Capabilities
from tests.fakestore import FakeStore


def probing(capabilities: Capabilities | None = None) -> Callable[[], Awaitable[Capabilities]]:
    async def probe() -> Capabilities:
        await trio.lowlevel.checkpoint()
        return capabilities or Capabilities()

    return probe


async def test_every_step_is_told_and_nothing_is_left() -> None:
    store = FakeStore()
    store.poke("p/dump/x", b"x")
    out: list[str] = []
    await check(
        store,
        "p/",
        probe=probing(Capabilities(integrity="sha256", notes=("odd",))),
        tell=lambda event: out.append(f"{event}\n"),
    )
    text = "".join(out)
    for step in ("connect and list", "probe", "write 64 KiB", "rename", "stat", "read", "delete"):
        assert any(line.strip().startswith(step) and line.endswith(" ms\n") for line in out), step
    assert "0 files and 1 directories" in text
    assert "refuses a wrong SHA-256" in text
    assert "note                 odd" in text
    assert store.keys() == ["p/dump/x"]


async def test_read_only_writes_nothing() -> None:
    store = FakeStore()
    out: list[str] = []
    await check(store, "p/", probe=probing(), tell=lambda event: out.append(f"{event}\n"), read_only=True)
    assert "nothing written" in out[-1]
    assert store.count("put") == 0


@pytest.mark.parametrize(
    ("op", "step"),
    [
        ("list_page", "connect and list"),
        ("put", "write 64 KiB"),
        ("copy", "rename"),
        ("head", "stat"),
        ("get_range", "read"),
    ],
)
async def test_a_failure_names_its_step_and_leaves_nothing(op: str, step: str) -> None:
    store = FakeStore()
    store.fail_next(op, AccessDenied("no"))
    with pytest.raises(S3fsxError, match=f"^{step}: no$"):
        await check(store, "p/", probe=probing(), tell=lambda _: None)
    assert store.keys() == []


async def test_objects_that_cannot_be_removed_do_not_hide_the_reason() -> None:
    store = FakeStore()
    store.fail_next("get_range", DeadlineExceeded("slow"))
    store.fail_next("delete", AccessDenied("no delete"), times=3)
    with pytest.raises(S3fsxError, match=r"^rename: no delete$"):
        await check(store, "p/", probe=probing(), tell=lambda _: None)


async def test_bytes_that_come_back_different_are_trouble() -> None:
    store = FakeStore()
    original = store.get_range

    async def flipped(key: str, start: int, length: int, *, etag: str, size: int = 0) -> bytes:
        data = await original(key, start, length, etag=etag)
        return bytes([data[0] ^ 1]) + data[1:]

    store.get_range = flipped  # type: ignore[method-assign]
    with pytest.raises(S3fsxError, match=r"^read: the object has other bytes"):
        await check(store, "", probe=probing(), tell=lambda _: None)
    assert store.keys() == []
