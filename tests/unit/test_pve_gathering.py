"""From flags, answers and what is there to what shall be set up; without a store, pvesm or systemctl."""

from __future__ import annotations

import builtins
import getpass
import os
from pathlib import Path

import pytest

from s3fsx.errors import ConfigError, S3fsxError
from s3fsx.pve.asking import Terminal
from s3fsx.pve.files import Text
from s3fsx.pve.gathering import Given, gather
from s3fsx.pve.places import Places
from s3fsx.pve.setting_up import Wish
from s3fsx.pve.steps import Steps

ENV = {"S3FSX_ACCESS_KEY": "AKIA", "S3FSX_SECRET_KEY": "hunter2"}
CEPH = Given(provider="ceph", endpoint="https://rgw", bucket="backups")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "pve" / "priv").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    env = {"S3FSX_CONFIG_DIR": str(tmp_path / "etc"), "S3FSX_PVE_DIR": str(tmp_path / "pve")}
    return Places.of("backup", env)


def wish(given: Given, places: Places, env: dict[str, str] = ENV) -> Wish:
    return gather(given, places, Terminal(interactive=False), env)[0]


def replaced(given: Given, **changes: object) -> Given:
    import dataclasses

    return dataclasses.replace(given, **changes)  # type: ignore[arg-type]


def test_flags(places: Places) -> None:
    found = wish(replaced(CEPH, prefix="/pve", content="iso,backup", nodes="b,a", options=("list_ttl=2,ro",)), places)
    assert found.settings == {
        "bucket": "backups",
        "prefix": "pve/",
        "endpoint": "https://rgw",
        "region": "us-east-1",
        "addressing": "path",
        "list_ttl": "2s",
        "read_only": "true",
    }
    assert (found.keys and found.keys.secret_key) == "hunter2"
    assert found.storage is not None
    assert (found.storage.path, found.storage.content, found.storage.nodes) == (
        "/mnt/pve/backup",
        ("backup", "iso"),
        ("a", "b"),
    )
    assert "hunter2" not in repr(found)


def test_a_preset_fills_in_what_the_store_needs(places: Places) -> None:
    found = wish(Given(provider="r2", account="0abc", bucket="backups"), places)
    assert found.settings["endpoint"] == "https://0abc.r2.cloudflarestorage.com"
    assert (found.settings["part_profile"], found.settings["region"]) == ("uniform", "auto")
    found = wish(Given(provider="r2", account="0abc", bucket="backups", options=("part_size=16M",)), places)
    assert found.settings["part_size"] == "16MiB"
    assert "endpoint" not in wish(Given(provider="aws", region="eu-west-1", bucket="backups"), places).settings


def test_a_second_run_keeps_what_it_does_not_name(places: Places) -> None:
    first = wish(replaced(CEPH, prefix="pve", options=("part_size=16M",), prune="keep-last=3"), places)
    Path(places.toml).parent.mkdir(mode=0o700)
    from s3fsx.pve.plan import toml

    Text(places.toml, toml({**first.settings, "credentials_file": places.keys})).put()
    Text(places.keys, "A:B\n").put()
    assert first.storage is not None
    lines = ["dir: backup", "\tpath /mnt/pve/backup", "\tcontent backup", "\tprune-backups keep-last=3"]
    Path(places.storage_cfg).write_text("\n".join(lines))
    again = wish(Given(), places, {})
    assert (again.settings, again.storage, again.keys) == (first.settings, first.storage, None)
    changed = wish(Given(bucket="other", content="iso"), places, {})
    assert changed.settings == {**first.settings, "bucket": "other"}
    assert changed.storage is not None
    assert (changed.storage.content, changed.storage.prune) == (("iso",), "keep-last=3")


def test_a_configuration_made_by_hand_is_taken_over(places: Places) -> None:
    Text(places.link, 'bucket = "backups"\nendpoint = "https://rgw"\nlist_ttl = 9\naccess_key = "A"\n').put()
    assert wish(Given(), places).settings == {"bucket": "backups", "endpoint": "https://rgw", "list_ttl": "9s"}
    Text(places.link, 'bucket = "backups"\nsecret_key = "hunter2"\n').put()
    with pytest.raises(ConfigError, match=r"backup.toml: secret_key is in it: move the keys into another file"):
        wish(Given(), places)


def test_answers_of_a_person(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typos = {"wasaby": "provider 'wasaby' is not known", "backup,iso,vm": "vm", "keep-lost=2": "keep-lost"}
    where = ["wasaby", "wasabi", "eu-central-1", "", "backups", "", "AKIA"]
    answers = iter([*where, "backup,iso,vm", "", "keep-lost=2", "keep-last=2"])
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return next(answers)

    monkeypatch.setattr(builtins, "input", answer)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "hunter2")
    found, notes = gather(Given(), places, Terminal(interactive=True), {})
    assert found.settings == {
        "bucket": "backups",
        "prefix": "pve/",
        "endpoint": "https://s3.eu-central-1.wasabisys.com",
        "region": "eu-central-1",
    }
    assert (found.keys and found.keys.secret_key) == "hunter2"
    assert [prompt.partition(" ")[0].rstrip(":") for prompt in asked] == [
        *("provider", "provider"),
        "region,",
        *("bucket", "bucket"),
        "prefix",
        "access",
        *("content", "content"),
        *("prune", "prune"),
    ]
    assert found.storage is not None
    assert (found.storage.content, found.storage.prune) == (("backup",), "keep-last=2")
    assert any("90 days" in note for note in notes)
    said = "".join(capsys.readouterr())
    assert "hunter2" not in said
    assert all(told in said for told in typos.values()), said


def test_whoever_ends_the_input_is_told_the_flag(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(builtins, "input", ended)
    with pytest.raises(ConfigError, match="no answer: --provider NAME, or --endpoint URL"):
        gather(Given(), places, Terminal(interactive=True), {})


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (Given(), "provider .* is missing: --provider NAME, or --endpoint URL"),
        (Given(provider="ceph"), "endpoint of Ceph RGW is missing: --endpoint URL"),
        (Given(provider="wasabi", bucket="backups"), "region, such as eu-central-1, .* is missing: --region NAME"),
        (Given(provider="r2", bucket="backups"), "Cloudflare R2: the account is needed: --account"),
        (Given(provider="aws"), "bucket is missing: --bucket NAME"),
        (replaced(CEPH, endpoint="rgw:7480"), "--endpoint: endpoint = 'rgw:7480': use a URL"),
        (replaced(CEPH, prefix="a//b"), "--prefix: prefix = 'a//b': use a key prefix"),
        (replaced(CEPH, content="vm"), "content vm: use some of backup,import,iso,snippets,vztmpl"),
        (replaced(CEPH, content="rootdir"), "content rootdir: disks of guests do not work on s3fsx"),
        (replaced(CEPH, prune="keep-last=0"), "keeps nothing; every backup would go"),
        (replaced(CEPH, prune="keep-all=1,keep-last=1"), "keep-all=1 stands alone"),
        (replaced(CEPH, prune="last=3"), "prune-backups 'last=3': use keep-last=N"),
        (replaced(CEPH, nodes="-d"), "node '-d': letters"),
        (replaced(CEPH, mountpoint="relative"), "mountpoint 'relative': an absolute path"),
        (replaced(CEPH, mountpoint="/srv/../etc"), "mountpoint '/srv/../etc': an absolute path"),
        (replaced(CEPH, options=("secret_key=hunter2",)), "-o: secret_key is refused, as every user can read"),
        (replaced(CEPH, options=("access_key=x",)), "-o: access_key is refused"),
        (replaced(CEPH, options=("proxy=http://u:hunter2@p",)), "-o: proxy is refused"),
        (replaced(CEPH, options=("prt_size=1",)), "unknown setting 'prt_size'; did you mean 'part_size'"),
        (replaced(CEPH, keys_file="/nowhere"), "--keys-file /nowhere: no such file"),
        (replaced(CEPH, join=True), "--join takes everything from what the first node has written"),
    ],
)
def test_bad_input(places: Places, given: Given, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as raised:
        wish(given, places)
    assert "hunter2" not in str(raised.value)


def test_without_keys(places: Places) -> None:
    with pytest.raises(ConfigError, match="no keys: --keys-file FILE"):
        wish(CEPH, places, {})
    assert wish(replaced(CEPH, no_keys=True), places, ENV).keys is None
    assert wish(CEPH, places, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).keys is not None


def test_keys_that_others_may_read(places: Places, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("A:hunter2\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=f"has mode 0644: chmod 600 {file}"):
        wish(replaced(CEPH, keys_file=str(file)), places)


def test_without_a_cluster_all_is_in_etc(tmp_path: Path) -> None:
    places = Places.of("backup", {"S3FSX_CONFIG_DIR": "/etc/s3fsx", "S3FSX_PVE_DIR": str(tmp_path)})
    assert (places.toml, places.link, places.keys) == (
        "/etc/s3fsx/backup.toml",
        "/etc/s3fsx/backup.toml",
        "/etc/s3fsx/backup.keys",
    )
    with pytest.raises(ConfigError, match="this is no node of a Proxmox cluster"):
        wish(Given(join=True), places)


class TestFiles:
    @pytest.fixture(autouse=True)
    def pmxcfs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The cluster's file system refuses to change modes and owners."""

        def refused(*_: object, **__: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        for name in ("chmod", "fchmod", "chown", "fchown", "fsync"):
            monkeypatch.setattr(os, name, refused)

    def test_a_file_is_put_and_put_back(self, tmp_path: Path) -> None:
        text = Text(str(tmp_path / "a" / "b" / "file"), "new\n")
        undo = text.put()
        assert text.is_there()
        assert (tmp_path / "a" / "b" / "file").stat().st_mode & 0o777 == 0o600
        assert Text(text.path, "other").is_there() is False
        again = Text(text.path, "newer").put()
        again()
        assert text.is_there()
        undo()
        assert list(tmp_path.iterdir()) == []

    def test_a_link_replaces_a_file_and_gives_it_back(self, tmp_path: Path) -> None:
        path = tmp_path / "x.toml"
        path.write_text("own")
        link = Text(str(path), "/etc/pve/priv/s3fsx/x.toml", link=True)
        undo = link.put()
        assert link.is_there()
        assert os.readlink(path) == link.content
        undo()
        assert (path.is_symlink(), path.read_text()) == (False, "own")

    def test_what_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "rename", fails)
        with pytest.raises(OSError, match="No space left"):
            Text(str(tmp_path / "a" / "file"), "x").put()
        assert list(tmp_path.iterdir()) == []


def test_steps_are_undone_last_first() -> None:
    said: list[str] = []
    done: list[str] = []

    def step(name: str) -> None:
        steps.do(name, lambda: lambda: done.append(name))

    def fails() -> None:
        raise ConfigError("no")

    def all_of_them() -> None:
        with steps:
            steps.afterwards("restart", lambda: done.append("restart"))
            step("one")
            steps.do("two", lambda: fails)
            step("three")
            raise ConfigError("the cause")

    steps = Steps(said.append)
    with pytest.raises(ConfigError, match="the cause"):
        all_of_them()
    assert done == ["three", "one", "restart"]
    assert said[-4:] == ["undone: three", "NOT undone: two (no)", "undone: one", "undone: restart"]


def test_a_dry_run_does_nothing() -> None:
    said: list[str] = []
    with Steps(said.append, dry=True) as steps:
        steps.do("write x", lambda: pytest.fail("done"))
        steps.afterwards("restart", lambda: pytest.fail("undone"))
    assert said == ["would write x"]


def test_a_full_disk_is_one_line() -> None:
    def fails() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(S3fsxError, match=r"^write x: No space left on device$"):
        Steps(lambda _: None).do("write x", fails)
