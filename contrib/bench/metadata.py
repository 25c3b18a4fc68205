"""Small files, long directories, pruning."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .bench import Bench, call, drop_caches
from .tools import Mounted, Tool, ToolError

SMALL = 4 << 10
SMALL_DIRECTORY = "snippets"
LONG_DIRECTORY = "many"
WRITERS = 16


def small_files(bench: Bench, tool: Tool, number: int) -> None:
    """Written, listed, stat'ed, read, deleted, one after the other. The kernel's caches are dropped before the listing,
    the stats and the reading, which would not ask the tool for anything otherwise. Deleted is what the bucket no
    longer has, written what it has."""
    count = bench.amounts.files
    body = os.urandom(SMALL)
    names = [f"bench-{n:05}.conf" for n in range(count)]
    prefix = f"{SMALL_DIRECTORY}/bench-"
    with bench.cleared(prefix), bench.mounted(tool) as mount:
        directory = mount.path / SMALL_DIRECTORY
        directory.mkdir(exist_ok=True)
        with bench.measure(tool.name, "small write", number, mount) as m:
            for name in names:
                _write(directory / name, body)
            m.step("write")
            if mount.stores:
                bench.await_bucket(
                    prefix, lambda found: list(found.values()) == [SMALL] * count, f"{count} small files", m.ours
                )
                m.step("in bucket")
        drop_caches()
        with bench.measure(tool.name, "small list", number, mount) as m:
            _list(bench, tool, directory, count)
            m.step("list")
        drop_caches()
        with bench.measure(tool.name, "small stat", number, mount) as m:
            if any(os.stat(directory / name).st_size != SMALL for name in names):
                raise ToolError(f"{tool.name}: stat says another size than was written")
            m.step("stat")
        drop_caches()
        with bench.measure(tool.name, "small read", number, mount) as m:
            if any((directory / name).read_bytes() != body for name in names):
                raise ToolError(f"{tool.name}: a small file has other contents than was written")
            m.step("read")
        with bench.measure(tool.name, "small delete", number, mount) as m:
            for name in names:
                os.unlink(directory / name)
            m.step("delete")
            if mount.stores:
                bench.await_bucket(prefix, lambda found: not found, "that the small files are gone", m.ours)
                m.step("in bucket")


def _write(path: Path, body: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(body)


def long_list(bench: Bench, tool: Tool, number: int) -> None:
    """``ls -l`` of many entries on a new mount, and at once again."""
    with bench.mounted(tool) as mount:
        for state in ("cold", "warm"):
            with bench.measure(tool.name, f"list {state}", number, mount) as m:
                _list(bench, tool, mount.path / LONG_DIRECTORY, bench.amounts.entries)
                m.step("list")


def _list(bench: Bench, tool: Tool, directory: Path, count: int) -> None:
    lines = call(["ls", "-l", str(directory)], bench.amounts.limit).splitlines()
    if len(lines) != count + 1:  # "total" stands above
        raise ToolError(f"{tool.name}: {len(lines) - 1} entries listed, not {count}")


def fill_long(bench: Bench, directory: Path) -> None:
    """The entries of ``long_list``, in the bucket and in a local directory."""
    names = [f"{LONG_DIRECTORY}/entry-{n:06}.conf" for n in range(bench.amounts.entries)]
    put_all(bench, names)
    (directory / LONG_DIRECTORY).mkdir(parents=True, exist_ok=True)
    for name in names:
        _write(directory / name, b"x")


def put_all(bench: Bench, keys: list[str]) -> None:
    def put(key: str) -> None:
        bench.client.put_object(Bucket=bench.bucket, Key=key, Body=b"x")

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(put, keys))


def prune(bench: Bench, tool: Tool, number: int) -> None:
    """``ls`` and ``rm`` of so many backups that another client wrote, to the point where the bucket has none."""
    stem = "dump/vzdump-qemu-300-"
    times = [f"{n // 3600:02}_{n // 60 % 60:02}_{n % 60:02}" for n in range(bench.amounts.backups)]
    keys = [f"{stem}2025_01_01-{time}.vma.zst" for time in times]
    with bench.cleared(stem):
        put_all(bench, keys)
        with bench.mounted(tool) as mount:
            _prune(bench, tool, number, mount, stem, keys)


def _prune(bench: Bench, tool: Tool, number: int, mount: Mounted, stem: str, keys: list[str]) -> None:
    paths = [str(mount.path / key) for key in keys]
    with bench.measure(tool.name, "prune", number, mount) as m:
        _named(call(["ls", str(mount.path / "dump")], bench.amounts.limit), mount, keys, tool)
        m.step("list")
        call(["rm", "--", *paths], bench.amounts.limit)
        m.step("delete")
        bench.await_bucket(stem, lambda found: not found, "that the pruned backups are gone", m.ours)
        m.step("in bucket")


def _named(listing: str, mount: Mounted, keys: list[str], tool: Tool) -> None:
    missing = {Path(key).name for key in keys} - set(listing.split())
    if missing:
        raise ToolError(f"{tool.name}: {len(missing)} of {len(keys)} backups are not in the listing of {mount.path}")
