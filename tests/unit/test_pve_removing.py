"""What is refused before anything is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3fsx.configuration import config
from s3fsx.errors import ConfigError, S3fsxError
from s3fsx.local.journal import Journal
from s3fsx.pve import removing
from s3fsx.pve.files import Text
from s3fsx.pve.host import Host
from s3fsx.pve.places import Places
from s3fsx.pve.removing import Wish, remove
from s3fsx.pve.setting_up import daemon_env
from s3fsx.service import state
from s3fsx.service.state import state_directory


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "pve" / "priv").mkdir(parents=True)
    env = {f"S3FSX_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "PVE", "UNIT")}
    places = Places.of("backup", env)
    Text(places.toml, f'bucket = "backups"\nstate_dir = "{tmp_path}/state"\ncache_dir = "{tmp_path}/cache"\n').put()
    Text(places.link, places.toml, link=True).put()
    Path(places.storage_cfg).write_text("dir: backup\n\tpath /mnt/pve/backup\n")
    return places


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Nothing is installed: any call would be an error of its own."""
    return Host({"PATH": str(tmp_path)}, "node1")


def test_a_store_that_is_down_while_something_waits(
    places: Places, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"endpoint": {"down": True}, "files": {"unpublished_bytes": 4711}}
    monkeypatch.setattr(removing, "read_status", lambda path: document)
    said: list[str] = []
    with pytest.raises(
        S3fsxError, match=r"4\.6 KiB are not in the bucket yet, and the store does not answer"
    ) as raised:
        remove(Wish(), places, host, said.append)
    assert not isinstance(raised.value, ConfigError)  # exit code 1: it may be better later
    assert said == []
    assert Path(places.link).exists()


def test_a_mount_by_hand_that_has_the_journal(
    places: Places, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the unit's, so stopping that does not end it."""
    settings = config.load("backup", env=daemon_env(places)).settings
    calls: list[str] = []
    for name in ("start", "stop", "disable"):
        monkeypatch.setattr(Host, name, lambda self, unit, name=name: calls.append(name))
    monkeypatch.setattr(Host, "is_active", lambda self, unit: True)
    monkeypatch.setattr(Host, "pvesm", lambda self, arguments: calls.append(" ".join(arguments)))
    monkeypatch.setattr(state, "_LOCK_PAUSE", 0.01)
    journal = Journal.open(state_directory(settings))
    try:
        with pytest.raises(S3fsxError, match="is in use by an s3fsx that shows no status"):
            remove(Wish(), places, host, lambda _: None)
    finally:
        journal.close()
    assert calls == ["set backup --disable 1", "stop", "start", "set backup --delete disable"]
    assert Path(state_directory(settings)).is_dir()


@pytest.mark.parametrize("broken", ["bucket = \n", 'bucket = "backups"\ncredentials_file = "/absent.keys"\n'])
def test_a_configuration_that_cannot_be_used_is_not_taken_for_an_empty_journal(
    places: Places, host: Host, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """It would say where the journal is; and what that knows is lost without the keys."""
    calls: list[str] = []
    for name in ("start", "stop", "disable", "reload"):
        monkeypatch.setattr(Host, name, lambda self, *unit, name=name: calls.append(name))
    monkeypatch.setattr(Host, "is_active", lambda self, unit: True)
    monkeypatch.setattr(Host, "pvesm", lambda self, arguments: calls.append(" ".join(arguments)))
    Text(places.keys, "[default]\n").put()
    before = Path(places.toml).read_text()
    Path(places.toml).write_text(broken)
    for wish in (Wish(), Wish(leave=True), Wish(force=True)):
        with pytest.raises(ConfigError, match=r"nothing was changed; mend it, or .* --keep-config") as raised:
            remove(wish, places, host, calls.append)
        assert places.toml in str(raised.value) or places.link in str(raised.value)
        assert "\n" not in str(raised.value)
    assert calls == []
    remove(Wish(keep_config=True), places, host, lambda _: None)
    assert calls == ["set backup --disable 1", "stop", "disable", "remove backup", "reload"]
    assert Path(places.link).exists()
    assert Path(places.keys).exists()
    Path(places.toml).write_text(before)
    remove(Wish(), places, host, lambda _: None)
    assert not Path(places.keys).exists()


def test_a_configuration_that_is_gone(places: Places, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node has removed it, or an earlier attempt: the rest goes."""
    for name in ("start", "stop", "disable", "reload"):
        monkeypatch.setattr(Host, name, lambda self, *unit: None)
    monkeypatch.setattr(Host, "is_active", lambda self, unit: False)
    monkeypatch.setattr(Host, "pvesm", lambda self, arguments: None)
    Path(places.toml).unlink()
    Text(places.keys, "[default]\n").put()
    remove(Wish(), places, host, lambda _: None)
    assert not Path(places.link).is_symlink()
    assert not Path(places.keys).exists()


def test_other_nodes_of_the_cluster(places: Places, host: Host) -> None:
    for node in ("node1", "node2"):
        Text(f"{places.nodes}/{node}", "").put()
    with pytest.raises(ConfigError, match="node2 still mount it: there, first: s3fsx pve remove backup --leave"):
        remove(Wish(), places, host, lambda _: None)


def test_a_storage_that_is_not_ours(places: Places, host: Host) -> None:
    Path(places.storage_cfg).write_text("nfs: backup\n\tpath /mnt/pve/backup\n")
    with pytest.raises(ConfigError, match="backup is a storage of type nfs: pvesm remove backup"):
        remove(Wish(), places, host, lambda _: None)
    with pytest.raises(ConfigError, match="other: no such storage of s3fsx on this node"):
        remove(Wish(), Places("other", True, places.config_dir, places.pve_dir), host, lambda _: None)


def test_no_proxmox(places: Places, host: Host) -> None:
    with pytest.raises(ConfigError, match="pvesm is not installed: this is no Proxmox VE host"):
        remove(Wish(), places, host, lambda _: None)


def test_a_mount_that_began_meanwhile_keeps_its_journal(
    places: Places, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the journal was found empty, and before the directories go."""
    settings = config.load("backup", env=daemon_env(places)).settings
    Journal.open(state_directory(settings)).close()
    begun: list[Journal] = []

    def disable(self: Host, unit: str) -> None:
        begun.append(Journal.open(state_directory(settings)))

    for name in ("start", "stop"):
        monkeypatch.setattr(Host, name, lambda self, unit: None)
    monkeypatch.setattr(Host, "disable", disable)
    monkeypatch.setattr(Host, "reload", lambda self: None)
    monkeypatch.setattr(Host, "is_active", lambda self, unit: True)
    monkeypatch.setattr(Host, "pvesm", lambda self, arguments: None)
    monkeypatch.setattr(state, "_LOCK_PAUSE", 0.01)
    try:
        with pytest.raises(S3fsxError, match="is in use by an s3fsx that shows no status"):
            remove(Wish(), places, host, lambda _: None)
        assert (Path(state_directory(settings)) / "journal.sqlite").exists()
        assert Path(places.toml).exists(), "it is needed to finish what the mount has"
    finally:
        begun[0].close()
    monkeypatch.setattr(Host, "disable", lambda self, unit: None)
    remove(Wish(), places, host, lambda _: None)
    assert not Path(state_directory(settings)).exists()
    assert not Path(places.toml).exists()
