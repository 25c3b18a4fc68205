"""What another user of this machine can prepare where a root daemon is going to write. Needs root, as the mounts do."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import diskcache
import pytest

from s3fsx import safepath
from s3fsx.errors import ConfigError, S3fsxError
from s3fsx.local.blockcache import BlockCache
from s3fsx.local.cache import MetadataCache, _key
from s3fsx.local.journal import Journal
from s3fsx.service.status import serve_status
from s3fsx.store.objects import ObjectInfo
from s3fsx.transfer.memory import Budget

OTHER = 4711
MIB = 1 << 20
INFO = ObjectInfo("dump/a", 1, "e", 1000.0, metadata={"mode": "33188"})


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """The worst one."""
    before = os.umask(0)
    yield
    os.umask(before)


def journal(directory: Path) -> None:
    Journal.open(str(directory)).close()


def cache(directory: Path) -> None:
    MetadataCache(str(directory), 32 * MIB).close()


def blocks(directory: Path) -> None:
    BlockCache(str(directory), MIB, 0, ("images",), Budget(64 * MIB)).close()


def listing(directory: Path) -> list[tuple[str, int, int, bytes]]:
    """All that is below: names, modes, owners, contents."""
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((str(path), status.st_mode, status.st_uid, content))
    return found


both = pytest.mark.parametrize("opened", [journal, cache, blocks], ids=["state_dir", "cache_dir", "blocks"])
Opened = Callable[[Path], None]


@both
def test_everything_made_is_for_us_alone(tmp_path: Path, opened: Opened) -> None:
    opened(tmp_path / "a" / "b" / "c")
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@both
def test_what_is_ours_and_too_open_is_closed(tmp_path: Path, opened: Opened) -> None:
    opened(tmp_path / "d")
    (tmp_path / "d").chmod(0o755)
    for path in (tmp_path / "d").iterdir():
        path.chmod(0o644)
    opened(tmp_path / "d")
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert all(
        stat.S_IMODE(p.stat().st_mode) == 0o600 for p in (tmp_path / "d").glob("*") if p.suffix in (".db", ".sqlite")
    )


def planted_link(here: Path, there: Path) -> None:
    here.symlink_to(there)
    os.lchown(here, OTHER, OTHER)


def own_link(here: Path, there: Path) -> None:
    here.symlink_to(there)


def dangling_link(here: Path, there: Path) -> None:
    here.symlink_to(there / "nothing")


def of_another_user(here: Path, there: Path) -> None:
    here.mkdir(mode=0o700)
    os.chown(here, OTHER, OTHER)


def for_everybody(here: Path, there: Path) -> None:
    here.mkdir()
    here.chmod(0o777)


def sticky(here: Path, there: Path) -> None:
    here.mkdir()
    here.chmod(0o1777)


def a_file(here: Path, there: Path) -> None:
    here.write_text("")


@both
@pytest.mark.parametrize(
    "plant", [planted_link, own_link, dangling_link, of_another_user, for_everybody, sticky, a_file]
)
def test_a_directory_that_is_not_ours_is_refused(
    tmp_path: Path, opened: Opened, plant: Callable[[Path, Path], None]
) -> None:
    tmp_path.chmod(0o1777)
    target = tmp_path / "victim"
    target.mkdir(mode=0o755)
    plant(tmp_path / "d", target)
    before = listing(tmp_path)
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "d")
    assert "\n" not in str(caught.value)
    assert any(word in str(caught.value) for word in ("rm ", "chmod ", "chown ", "name one below")), caught.value
    assert listing(tmp_path) == before


@both
@pytest.mark.parametrize("plant", [planted_link, of_another_user, for_everybody])
def test_nor_is_one_below_such(tmp_path: Path, opened: Opened, plant: Callable[[Path, Path], None]) -> None:
    tmp_path.chmod(0o1777)
    target = tmp_path / "victim"
    target.mkdir(mode=0o755)
    plant(tmp_path / "d", target)
    before = listing(tmp_path)
    with pytest.raises(ConfigError, match=r"not safe, .*(chown|chmod)"):
        opened(tmp_path / "d" / "below" / "it")
    assert listing(tmp_path) == before


@both
def test_below_a_directory_with_the_sticky_bit_and_links_of_root_it_is_fine(tmp_path: Path, opened: Opened) -> None:
    """/tmp, and /var/lib on another disk."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "link").symlink_to(tmp_path / "tmp")
    opened(tmp_path / "link" / "d")


def link_to_secret(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def hard_link_to_secret(path: Path, secret: Path) -> None:
    os.link(secret, path)


def fifo(path: Path, secret: Path) -> None:
    os.mkfifo(path)


def device(path: Path, secret: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def directory(path: Path, secret: Path) -> None:
    path.mkdir()


def unix_socket(path: Path, secret: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def foreign_file(path: Path, secret: Path) -> None:
    path.write_text("")
    os.chown(path, OTHER, OTHER)


@pytest.mark.parametrize(
    "plant", [link_to_secret, hard_link_to_secret, fifo, device, directory, unix_socket, foreign_file]
)
@pytest.mark.parametrize(
    ("opened", "name"),
    [
        (journal, "lock"),
        (journal, "journal.sqlite"),
        (journal, "journal.sqlite-wal"),
        (journal, "journal.sqlite-shm"),
        (cache, "cache.db"),
        (cache, "cache.db-wal"),
    ],
)
def test_a_file_that_was_planted_is_refused(
    tmp_path: Path, opened: Opened, name: str, plant: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's own")
    secret.chmod(0o644)
    place = tmp_path / "d"
    place.mkdir(mode=0o700)
    plant(place / name, secret)
    with pytest.raises(ConfigError) as caught:
        opened(place)
    assert f"rm {place / name}" in str(caught.value)
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("root's own", 0o644)


@pytest.mark.parametrize("plant", [planted_link, of_another_user, for_everybody, sticky])
async def test_the_status_socket(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    os.chmod(tmp_path, 0o1777)
    os.mkdir(tmp_path / "victim", mode=0o755)
    plant(tmp_path / "d", tmp_path / "victim")
    before = listing(tmp_path)
    with pytest.raises(S3fsxError, match="runtime_dir"):
        await serve_status(str(tmp_path / "d" / "x.sock"), dict)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("plant", [link_to_secret, hard_link_to_secret, fifo, directory, unix_socket, foreign_file])
def test_a_log_file_in_a_directory_for_everybody(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    tmp_path.chmod(0o1777)
    secret = tmp_path / "secret"
    secret.write_text("root's own")
    plant(tmp_path / "log", secret)
    with pytest.raises(ConfigError, match=f"rm {tmp_path / 'log'}"):
        safepath.log_file(str(tmp_path / "log"))


def test_a_log_file_elsewhere(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=f"chmod go-w {tmp_path}"):
        safepath.log_file(str(tmp_path / "log"))
    tmp_path.chmod(0o755)
    safepath.log_file(str(tmp_path / "log"))
    (tmp_path / "log").symlink_to(tmp_path / "disk2")  # root's own, where only root can make one
    safepath.log_file(str(tmp_path / "log"))
    safepath.log_file("/dev/null")


# What somebody with a moment in the cache directory leaves there: a miss.


async def misses(place: Path) -> bool:
    opened = MetadataCache(str(place), 32 * MIB)
    try:
        return await opened.get_many([INFO]) == {}
    finally:
        opened.close()


def rows(place: Path, change: Callable[[sqlite3.Connection], object]) -> None:
    made = diskcache.Cache(str(place))
    made.set(_key(INFO), b"{}")
    made.close()
    with sqlite3.connect(place / "cache.db") as db:
        change(db)
    db.close()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4096], ids=range(3))
async def test_a_database_of_garbage_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache.db").write_bytes(content)
    assert await misses(tmp_path)
    opened = MetadataCache(str(tmp_path), 32 * MIB)
    opened.put(INFO)
    await opened.flush()
    assert await opened.get_many([INFO]) == {INFO.key: INFO.metadata}
    opened.close()
    opened = MetadataCache(str(tmp_path), 32 * MIB)
    assert await opened.get_many([INFO]) == {INFO.key: INFO.metadata}
    opened.close()


@pytest.mark.parametrize(
    "value",
    [b"x" * (40 * MIB), b"{" * 60_000, b"[" * 60_000, b'{"a": 1}', b'{"a": {"b": "c"}}', b"\xff", b"null", b""],
    ids=range(8),
)  # fmt: skip
async def test_a_value_that_is_not_ours_misses(tmp_path: Path, value: bytes) -> None:
    rows(tmp_path, lambda db: db.execute("UPDATE Cache SET value = ?", (value,)))
    assert await misses(tmp_path)


@pytest.mark.parametrize("mode", [2, 3, 4])
async def test_a_row_that_names_a_file_is_not_followed(tmp_path: Path, mode: int) -> None:
    """Binary, text and pickle: neither read nor, when it is evicted or replaced, deleted."""
    secret = tmp_path / "secret"
    secret.write_text('{"mode": "1"}')
    place = tmp_path / "cache"
    place.mkdir(mode=0o700)
    rows(place, lambda db: db.execute("UPDATE Cache SET mode = ?, filename = '../secret', value = NULL", (mode,)))
    assert await misses(place)
    opened = MetadataCache(str(place), 32 * MIB)
    opened.put(INFO)
    await opened.flush()
    opened._disk.clear()
    opened.close()
    assert secret.exists()
