"""The metadata cache on a real disk: a miss at worst, never a wrong answer and never code."""

from __future__ import annotations

import pickle
import stat
from dataclasses import replace
from pathlib import Path

import diskcache
import pytest

from s3fsx.errors import ConfigError
from s3fsx.local.cache import _BACKLOG, MetadataCache, _key
from s3fsx.store.objects import ObjectInfo

MIB = 1 << 20
INFO = ObjectInfo("pve/snippets/a", 3, "e1", 1000.0, metadata={"mode": "33261", "ä": "€"})


async def test_what_was_put_is_found_before_and_after_it_is_written(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    cache.put(INFO)
    assert await cache.get_many([INFO]) == {INFO.key: INFO.metadata}
    await cache.flush()
    await cache.flush()  # nothing left to write
    assert await cache.get_many([INFO]) == {INFO.key: INFO.metadata}
    cache.close()
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    assert await cache.get_many([replace(INFO, metadata=None), replace(INFO, key="other")]) == {INFO.key: INFO.metadata}
    assert (cache.hits, cache.misses) == (1, 1)
    cache.close()


@pytest.mark.parametrize("change", [{"etag": "e2"}, {"modified": 1001.0}, {"key": "pve/snippets/b"}])
async def test_another_version_misses(tmp_path: Path, change: dict[str, object]) -> None:
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    cache.put(INFO)
    await cache.flush()
    assert await cache.get_many([replace(INFO, **change)]) == {}  # type: ignore[arg-type]
    cache.close()


async def test_milliseconds_do_not_matter(tmp_path: Path) -> None:
    """LIST tells them, HEAD does not."""
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    cache.put(INFO)
    assert await cache.get_many([replace(INFO, modified=1000.987)]) == {INFO.key: INFO.metadata}
    cache.close()


async def test_unknown_metadata_is_not_stored(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    cache.put(replace(INFO, metadata=None))
    await cache.flush()
    assert await cache.get_many([INFO]) == {}
    cache.close()


async def test_the_backlog_is_bounded(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    for i in range(_BACKLOG + 100):
        cache.put(replace(INFO, key=f"k{i}"))
    assert len(cache._waiting) == _BACKLOG
    await cache.flush()
    assert cache._waiting == {}
    cache.close()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    "value",
    [b"not json", b"[1]", b'{"mode": 1}', "text", 7, 1.5, {"mode": "33261"}, Bomb()],
    ids=lambda v: type(v).__name__,
)
async def test_what_somebody_else_put_there_is_a_miss(tmp_path: Path, value: object) -> None:
    """Whoever can write the directory could otherwise run code in the mount."""
    with diskcache.Cache(str(tmp_path)) as theirs:  # diskcache's own Disk pickles
        theirs.set(_key(INFO), value)
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    assert await cache.get_many([INFO]) == {}
    cache.close()


def test_nothing_but_bytes_is_stored(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    with pytest.raises(TypeError):
        cache._disk.set("k", {"a": 1})
    cache.close()
    assert pickle.PROTO not in b"".join(p.read_bytes() for p in tmp_path.glob("*.val"))


async def test_it_stays_within_its_size(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), MIB)
    for batch in range(10):
        for i in range(300):
            cache.put(replace(INFO, key=f"k{batch}-{i}", metadata={"filler": "x" * 1000}))
        await cache.flush()
    assert cache._disk.volume() < 2 * MIB
    cache.close()


async def test_a_broken_disk_costs_a_miss_and_no_more(tmp_path: Path) -> None:
    cache = MetadataCache(str(tmp_path), 10 * MIB)
    cache.put(INFO)
    await cache.flush()
    cache._disk._sql("DROP TABLE Cache").fetchall()
    assert await cache.get_many([INFO]) == {}
    cache.put(INFO)
    await cache.flush()
    cache.close()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cache_dir"):
        MetadataCache(str(tmp_path / "file" / "cache"), MIB)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    MetadataCache(str(tmp_path / "cache"), MIB).close()
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
