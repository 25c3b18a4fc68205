"""The decompressors as processes: on the real clock, as processes know no other."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from s3fsx.browse import filters
from s3fsx.browse.filters import Source, through
from s3fsx.browse.stream import Enough, Sink
from s3fsx.errors import ArchiveDamaged, ConnectionFailed, S3fsxError
from tests.browse.archives import compressed

DATA = random.Random(4).randbytes(3 << 20) + bytes(5 << 20)
PROGRAMS = ["zst", "gz", "lzo", "bz2"]


def source(data: bytes, step: int = 1 << 20) -> Source:
    async def send(sink: Sink) -> None:
        for at in range(0, len(data), step):
            await sink(memoryview(data)[at : at + step])

    return send


async def run(compression: str, data: bytes) -> bytes:
    out = bytearray()
    with trio.fail_after(60):
        await through(compression, source(data), out.extend)
    return bytes(out)


@pytest.mark.parametrize("compression", ["", *PROGRAMS])
async def test_there_and_back(compression: str) -> None:
    assert await run(compression, compressed(DATA, compression)) == DATA


@pytest.mark.parametrize("compression", PROGRAMS)
async def test_a_changed_byte_or_a_missing_end_is_damage_in_the_programs_own_words(compression: str) -> None:
    whole = compressed(DATA, compression)
    for wrong in (whole[:-100], whole[: len(whole) // 2], b"not compressed at all" * 100, b""):
        with pytest.raises(ArchiveDamaged):
            await run(compression, wrong)
    if compression != "bz2":
        changed = bytearray(whole)
        changed[1 << 20] ^= 1
        with pytest.raises(ArchiveDamaged):
            await run(compression, bytes(changed))


@pytest.mark.parametrize("compression", ["", "zst", "gz", "lzo"])
async def test_enough_ends_the_program_and_the_fetching(compression: str) -> None:
    sent = 0
    whole = compressed(random.Random(5).randbytes(12 << 20), compression)

    async def send(sink: Sink) -> None:
        nonlocal sent
        for at in range(0, len(whole), 65536):
            await sink(whole[at : at + 65536])
            sent += 65536

    def take(_: bytes | memoryview) -> None:
        raise Enough

    with trio.fail_after(60):
        await through(compression, send, take)
    assert sent < 8 << 20


async def test_the_stores_failure_comes_out_as_it_is() -> None:
    whole = compressed(DATA, "zst")

    async def send(sink: Sink) -> None:
        await sink(whole[:100_000])
        raise ConnectionFailed("gone")

    with pytest.raises(ConnectionFailed, match="gone"), trio.fail_after(60):
        await through("zst", send, lambda _: None)


async def test_what_the_taker_says_comes_out() -> None:
    def take(_: bytes | memoryview) -> None:
        raise ArchiveDamaged("no")

    with pytest.raises(ArchiveDamaged, match="no"), trio.fail_after(60):
        await through("gz", source(compressed(DATA, "gz")), take)


async def test_a_window_of_2_gib_is_refused() -> None:
    """A frame of one byte, whose header says how much memory it takes: RFC 8878, 3.1.1.1."""
    for log, fine in ((20, True), (31, False)):
        frame = b"\x28\xb5\x2f\xfd\x00" + bytes([(log - 10) << 3]) + b"\x09\x00\x00x"
        if fine:
            assert await run("zst", frame) == b"x"
        else:
            with pytest.raises(ArchiveDamaged, match="memory"):
                await run("zst", frame)


async def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(S3fsxError, match="lzop is not installed: apt-get install lzop"):
        await run("lzo", b"")


@pytest.fixture
def as_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in its place."""

    def put(script: str) -> None:
        program = tmp_path / "zstd"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


async def test_a_program_that_hangs_is_killed(as_zstd: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    as_zstd("exec sleep 600")
    monkeypatch.setattr(filters, "STALLED", 0.5)
    with pytest.raises(S3fsxError, match="zstd has done nothing"):
        await run("zst", DATA)


async def test_a_program_that_is_killed_says_nothing_of_the_archive(as_zstd: Callable[[str], None]) -> None:
    as_zstd("kill -9 $$")
    with pytest.raises(S3fsxError, match="zstd was killed by signal 9") as raised:
        await run("zst", DATA)
    assert not isinstance(raised.value, ArchiveDamaged)


async def test_a_store_that_is_slow_is_no_program_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = compressed(b"slow", "zst"), bytearray()
    monkeypatch.setattr(filters, "STALLED", 0.3)

    async def send(sink: Sink) -> None:
        await sink(whole[:5])
        await trio.sleep(1)
        await sink(whole[5:])

    with trio.fail_after(60):
        await through("zst", send, out.extend)
    assert out == b"slow"


async def test_a_program_has_a_limit_of_memory(as_zstd: Callable[[str], None]) -> None:
    as_zstd("cat >/dev/null; ulimit -v")
    assert int(await run("zst", b"x")) == filters._MEMORY >> 10
