"""What a person types, and which bucket that is. No mount is looked into: mountinfo says it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s3fsx.browse import source
from s3fsx.commands import buckets
from s3fsx.errors import ConfigError
from s3fsx.kernel import mountpoint
from s3fsx.kernel.mountpoint import Entry


@pytest.fixture(autouse=True)
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Instead of /etc/s3fsx."""
    for name in list(os.environ):
        if name.startswith("S3FSX_"):
            monkeypatch.delenv(name)
    directory = tmp_path / "etc"
    directory.mkdir()
    monkeypatch.setenv("S3FSX_CONFIG_DIR", str(directory))
    (directory / "pve1.toml").write_text('bucket = "one"\nprefix = "pve/"\nendpoint = "http://127.0.0.1:1"\n')
    (directory / "pve2.toml").write_text('bucket = "two"\n')
    (directory / "s3fsx.toml").write_text("")
    return directory


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Entry]:
    """What mountinfo says."""
    table: dict[str, Entry] = {"/": Entry("ext4", "/dev/sda", None)}
    monkeypatch.setattr(mountpoint, "table", lambda: table)
    return table


def mounted(path: str, name: str) -> dict[str, Entry]:
    return {path: Entry(mountpoint.FSTYPE, name, 0)}


@pytest.mark.parametrize(
    ("text", "bucket", "prefix", "path"),
    [
        ("pve1", "one", "pve/", ""),
        ("pve1:dump", "one", "pve/", "dump"),
        ("pve1:/dump//x/", "one", "pve/", "dump/x"),
        ("s3://bucket", "bucket", "", ""),
        ("s3://bucket/p/q:dump/x", "bucket", "p/q/", "dump/x"),
    ],
)
def test_a_source(mounts: dict[str, Entry], text: str, bucket: str, prefix: str, path: str) -> None:
    found = source.resolve(text)
    assert (found.settings.bucket, found.settings.prefix, found.path) == (bucket, prefix, path)


def test_a_path_in_a_mount_of_a_file_of_settings(mounts: dict[str, Entry]) -> None:
    mounts |= mounted("/mnt/somewhere", "s3://one/pve/")
    found = source.resolve("/mnt/somewhere/dump/x")
    assert (found.settings.bucket, found.settings.endpoint, found.path) == ("one", "http://127.0.0.1:1", "dump/x")
    assert source.resolve("/mnt/somewhere").path == ""


def test_a_storage_of_proxmox_that_is_mounted(mounts: dict[str, Entry]) -> None:
    mounts |= mounted("/mnt/pve/store", "s3://two/")
    assert source.resolve("store:backup/x").settings.bucket == "two"
    assert source.resolve("pve1:backup/x").settings.bucket == "one"


def test_a_mount_without_a_file(mounts: dict[str, Entry], tmp_path: Path) -> None:
    mounts |= mounted("/mnt/x", "s3://three/p/")
    with pytest.raises(ConfigError, match=r"/mnt/x: s3://three/p/ is mounted .*no daemon answers.*give SOURCE and -o"):
        source.resolve("/mnt/x", [f"runtime_dir={tmp_path}"])


def test_a_path_elsewhere(mounts: dict[str, Entry], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not in a mount of s3fsx"):
        source.resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("vzdump-qemu-100", "", "vzdump-qemu-100"),
        ("dump/x.vma", "", "dump/x.vma"),
        ("pve1:backup/x.vma", "pve1", "backup/x.vma"),
        ("s3://b/p:x.vma", "s3://b/p", "x.vma"),
        ("/mnt/x/dump/x.vma", "/mnt/x/dump", "x.vma"),
        ("/dump/x.vma", "", "/dump/x.vma"),
    ],
)
def test_a_backup(mounts: dict[str, Entry], text: str, place: str, name: str) -> None:
    mounts |= mounted("/mnt/x", "s3://one/pve/")
    assert source.split(text) == (place, name)


def test_the_only_one(mounts: dict[str, Entry], etc: Path) -> None:
    with pytest.raises(ConfigError, match=r"which bucket\? --source one of pve1, pve2$"):
        source.only()
    (etc / "pve2.toml").unlink()
    assert source.only() == "pve1"
    mounts |= mounted("/mnt/a", "s3://one/pve/")
    assert source.only() == "/mnt/a"
    mounts |= mounted("/mnt/b", "s3://two/")
    with pytest.raises(ConfigError, match="--source one of /mnt/a, /mnt/b"):
        source.only()


def test_none_at_all(mounts: dict[str, Entry], etc: Path) -> None:
    for file in etc.iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"--source s3://BUCKET\[/PREFIX\]$"):
        source.only()


@pytest.mark.parametrize(
    ("path", "is_backup"),
    [
        ("vzdump-qemu-100-2026_11_20-13_15_26.vma", True),
        ("dump/x.vma.zst", True),
        ("backup/x.tar", True),
        ("qemu-100", True),
        ("dump/x.log", False),
        ("template/iso/x.iso", False),
        ("template/x.tar", False),
    ],
)
def test_which_paths_are_backups(path: str, is_backup: bool) -> None:
    assert buckets.is_backup(path) == is_backup


def test_progress_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    progress = buckets.Progress("x", 100)
    progress(50)
    progress.end()
    assert capsys.readouterr().err == ""
    assert buckets.describe("x", 1 << 20, 4 << 20, 1 << 20) == "x  1.0 MiB of 4.0 MiB   25 %  1.0 MiB/s  3.0 s left"
    assert buckets.describe("x", 0, 0, 0) == "x  0 B of 0 B  0 B/s"


def test_a_path_from_where_one_stands(
    mounts: dict[str, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts |= mounted(str(tmp_path / "pve1"), "s3://one/pve/")
    monkeypatch.chdir(tmp_path)
    assert source.resolve("pve1/dump").path == "dump"
    assert source.split("pve1/dump/x") == ("pve1/dump", "x")
    assert source.split("dump/x") == ("", "dump/x")  # in no mount from here: in the bucket
    with pytest.raises(ConfigError):
        source.resolve("elsewhere/dump")
