"""s3fsx pve setup and remove, with stubs of pvesm and systemctl that check what they are given and really mount."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3fsx.kernel.mountpoint import mounted
from tests import policy
from tests.checklogs import LogWatch
from tests.mount.harness import detach, eventually
from tests.mount.pvehost import PveHost
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw]


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = s3.make_bucket("pve")
    policy.grant(s3, name, "pve/")
    return name


@pytest.fixture
def host(s3: S3Server, tmp_path: Path, log_watch: LogWatch) -> Iterator[PveHost]:
    (tmp_path / "pve" / "priv").mkdir(parents=True, mode=0o700)
    with PveHost(s3, tmp_path / "node1", tmp_path / "pve", log_watch) as host:
        yield host


@pytest.fixture
def flags(s3: S3Server, bucket: str, host: PveHost) -> list[str]:
    """What a first setup needs, but for the keys."""
    return [
        *("setup", "backup", "--provider", "ceph", "--endpoint", s3.endpoint, "--region", s3.region),
        *("--bucket", bucket, "--prefix", "pve", "--mountpoint", str(host.mountpoint)),
    ]


@pytest.fixture
def keys(s3: S3Server, tmp_path: Path) -> str:
    file = tmp_path / "keys"
    file.write_text(f"{s3.alt_access_key}:{s3.alt_secret_key}\n")
    file.chmod(0o600)
    return str(file)


def ok(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, err) == (0, ""), f"{code}\n{out}\n{err}"
    return out


def test_the_life_of_a_storage(s3: S3Server, bucket: str, host: PveHost, flags: list[str], keys: str) -> None:
    """Tried dry, set up, set up again, changed, left, joined, removed: with nothing but the bucket left."""
    nothing = host.files()
    out = ok(host.run(*flags, "--keys-file", keys, "--prune-backups", "keep-last=3", "--dry-run"))
    assert "would pvesm add dir backup --path" in out
    assert f'    bucket = "{bucket}"' in out
    assert host.files() == nothing
    assert not host.mountpoint.exists()

    out = ok(host.run(*flags, "--keys-file", keys, "--prune-backups", "keep-last=3"))
    refused = "SHA-256" if s3.name == "rgw" else "CRC-32"
    assert f"integrity            the store refuses a wrong {refused} of a part" in out
    assert ("may not see the bucket's lifecycle rules" in out) is (s3.name == "rgw")  # the gateway's users may
    assert out.endswith(f"OK: {host.mountpoint}\n")
    (storage,) = host.storages().values()
    assert (storage.kind, dict(storage.properties)) == (
        "dir",
        {
            "path": str(host.mountpoint),
            "is_mountpoint": "yes",
            "shared": "1",
            "content": "backup",
            "prune-backups": "keep-last=3",
        },
    )
    home = host.pve / "priv" / "s3fsx"
    assert (host.config / "backup.toml").readlink() == home / "backup.toml"
    for file in ("backup.toml", "backup.keys"):
        assert stat.S_IMODE((home / file).stat().st_mode) == 0o600
    assert s3.alt_secret_key in (home / "backup.keys").read_text()
    shown = out + "".join(text for name, text in host.files().items() if not name.endswith(".keys"))
    assert s3.alt_secret_key not in shown + str(host.calls())
    (host.mountpoint / "dump" / "note").write_text("kept")
    assert [o["Key"] for o in s3.client.list_objects_v2(Bucket=bucket)["Contents"]] == ["pve/dump/note"]

    out = ok(host.run("setup", "backup"))
    assert out.count("as it should be") == 5  # configuration, link, drop-in, unit, storage
    assert {call[1] for call in host.calls()} == {"cat", "is-active", "is-enabled"}
    (host.home / "enabled-backup").unlink()
    assert "systemctl enable s3fsx@backup.service" in ok(host.run("setup", "backup"))
    assert (host.home / "enabled-backup").exists()
    host.calls()

    code, out, err = host.run("setup", "backup", "--prune-backups", "keep-last=5")
    assert (code, err) == (
        2,
        "s3fsx: the storage is there with other settings than prune-backups keep-last=5; --force changes them\n",
    )
    ok(host.run("setup", "backup", "--prune-backups", "keep-last=5", "-o", "list_ttl=1s", "--force"))
    assert host.storages()["backup"].properties["prune-backups"] == "keep-last=5"
    assert 'list_ttl = "1s"' in (home / "backup.toml").read_text()
    assert ["systemctl", "restart", "s3fsx@backup.service"] in host.calls()
    assert (host.mountpoint / "dump" / "note").read_text() == "kept"

    (host.mountpoint / "dump" / "a").write_text("of the first")
    ok(host.run("remove", "backup", "--leave"))
    assert str(host.mountpoint) not in mounted()
    assert list(host.storages()) == ["backup"]
    assert (home / "backup.toml").exists()
    host.calls()
    out = ok(host.run("setup", "backup", "--join"))
    assert f"link {host.config / 'backup.toml'}" in out
    assert (host.mountpoint / "dump" / "a").read_text() == "of the first"
    assert [call for call in host.calls() if call[0] == "pvesm"] == []
    (host.mountpoint / "dump" / "a").unlink()

    (home / "backup.nodes" / "elsewhere").touch()
    code, _, err = host.run("remove", "backup")
    assert (code, err.startswith("s3fsx: elsewhere still mount it: there, first: s3fsx pve remove backup --leave")) == (
        2,
        True,
    )
    (home / "backup.nodes" / "elsewhere").unlink()

    out = ok(host.run("remove", "backup"))
    assert out.endswith(f"s3://{bucket}/pve/ is as it was\n")
    assert host.storages() == {}
    assert {k: v for k, v in host.files().items() if not k.endswith("storage.cfg")} == nothing
    assert not host.mountpoint.exists()
    assert list((host.home / "state_dir").iterdir()) == []
    assert not (host.home / "enabled-backup").exists()
    assert [o["Key"] for o in s3.client.list_objects_v2(Bucket=bucket)["Contents"]] == ["pve/dump/note"]


@pytest.mark.parametrize("cluster", [True, False])
def test_what_fails_is_undone(host: PveHost, flags: list[str], keys: str, cluster: bool) -> None:
    """Also without the cluster's file system, where all is in /etc/s3fsx."""
    if not cluster:
        (host.pve / "priv").rmdir()
    before = host.files()
    (host.home / "pvesm-fails").touch()
    code, out, err = host.run(*flags, "--keys-file", keys)
    assert (code, err) == (1, "s3fsx: pvesm add dir: create storage failed: got lock request timeout\n")
    assert out.count("undone: ") >= 5
    written = (host.pve / "priv" / "s3fsx" if cluster else host.config) / "backup.keys"
    assert f"undone: write {written}\n" in out
    assert "NOT undone" not in out
    assert host.files() == before
    assert not host.mountpoint.exists()
    assert not (host.home / "enabled-backup").exists()


def test_a_bucket_that_is_not_there(host: PveHost, flags: list[str], keys: str, s3: S3Server) -> None:
    before = host.files()
    flags[flags.index("--bucket") + 1] = "no-such-bucket"
    code, _, err = host.run(*flags, "--keys-file", keys)
    assert (code, err) == (
        1,
        f"s3fsx: bucket 'no-such-bucket' does not exist at {s3.endpoint}: create it, or check bucket and endpoint\n",
    )
    assert host.files() == before
    assert {call[1] for call in host.calls()} <= {"cat", "is-active"}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--content", "backup,images"], "content images: disks of guests do not work on s3fsx"),
        (["-o", "storage_class=GLACIER"], "storage_class GLACIER: notes, protection marks and backups could not be"),
    ],
)
def test_bad_input_is_one_line(host: PveHost, flags: list[str], keys: str, more: list[str], line: str) -> None:
    before = host.files()
    code, _, err = host.run(*flags, "--keys-file", keys, *more)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"s3fsx: {line}")
    assert host.files() == before


def test_what_is_in_the_way(s3: S3Server, bucket: str, host: PveHost, flags: list[str], keys: str) -> None:
    flags += ["--keys-file", keys]
    host.mountpoint.mkdir(parents=True)
    (host.mountpoint / "vzdump-qemu-100.vma").touch()
    assert "not empty ('vzdump-qemu-100.vma' and so on), and the mount would hide" in host.run(*flags)[2]
    (host.mountpoint / "vzdump-qemu-100.vma").unlink()

    other = host.config / "other.toml"
    other.write_text(f'endpoint = "{s3.endpoint}"\nbucket = "{bucket}"\nprefix = "pve/sub"\n')
    assert "other.toml is for the same keys" in host.run(*flags)[2]
    other.unlink()

    (host.pve / "storage.cfg").write_text("nfs: backup\n\tpath /mnt/pve/backup\n\n")
    assert "backup is a storage of type nfs already: choose another name" in host.run(*flags)[2]
    (host.pve / "storage.cfg").write_text("dir: backup\n\tpath /srv/other\n\n")
    assert "the storage backup has the path /srv/other, not" in host.run(*flags)[2]
    (host.pve / "storage.cfg").unlink()

    (host.home / "no-unit").touch()
    assert "the unit s3fsx@backup.service is not installed" in host.run(*flags)[2]
    assert "no keys: --keys-file FILE" in host.run(*flags[:-2])[2]


def test_a_rule_that_deletes_backups(s3: S3Server, bucket: str, host: PveHost, flags: list[str]) -> None:
    """Keys that may see the rules: a rule of the bucket that would delete what Proxmox believes to have."""
    rule = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}
    s3.client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    keys = f"access_key = '{s3.access_key}'\nsecret_key = '{s3.secret_key}'\n"
    code, _, err = host.run(*flags, "--keys-file", "-", stdin=keys)
    assert (code, err) == (
        2,
        "s3fsx: the bucket's lifecycle rule tidy deletes objects after 30 days, backups among them (--force does it "
        "all the same)\n",
    )
    assert str(host.mountpoint) not in mounted()


def test_what_is_not_in_the_bucket_is_not_removed(s3: S3Server, host: PveHost, flags: list[str], keys: str) -> None:
    """A backup that waits for vzdump's rename when the daemon dies: the journal has it, remove leaves everything."""
    ok(host.run(*flags, "--keys-file", keys))
    name = "vzdump-qemu-100-2026_11_20-13_15_26.vma"
    (host.mountpoint / "dump" / f"{name}.dat").write_bytes(b"\x28\xb5\x2f\xfd" + os.urandom(9 << 20))
    os.kill(_daemon(host), signal.SIGKILL)
    eventually(lambda: _dead(host.mountpoint), "the daemon's end")
    detach(host.mountpoint)
    code, _, err = host.run("remove", "backup")
    assert code == 1
    assert f"dump/{name}.dat is not finished in the bucket" in err
    assert "nothing was removed" in err
    assert host.storages()["backup"].properties.get("disable") is None
    assert (host.pve / "priv" / "s3fsx" / "backup.keys").exists()
    ok(host.run("setup", "backup"))
    (host.mountpoint / "dump" / f"{name}.dat").rename(host.mountpoint / "dump" / f"{name}.zst")
    ok(host.run("remove", "backup"))
    assert list((host.home / "state_dir").iterdir()) == []


def test_a_storage_of_another_plugin_is_taken_over(s3: S3Server, bucket: str, host: PveHost) -> None:
    """Shown without its keys; set up beside the old one, which stays."""
    where = s3.endpoint.removeprefix("http://")
    section = f"""s3: old
\tendpoint {where}
\tuse_ssl 0
\tregion {s3.region}
\tbucket {bucket}
\tprefix pve/
\taccess_key {s3.alt_access_key}
\tsecret_key {s3.alt_secret_key}
\tcontent backup,images
\tmax_backups 4
\tfrobnicate 7

"""
    (host.pve / "storage.cfg").write_text(section)
    s3.client.put_object(Bucket=bucket, Key="pve/dump/vzdump-qemu-100-2026_11_20-13_15_26.vma.zst", Body=b"old")
    out = ok(host.run("import"))
    assert "old: of the Perl S3 plugin, as s3fsx storage old-s3fsx" in out
    assert "  note: frobnicate: not known, left out\n" in out
    assert f"  s3fsx pve setup old-s3fsx --endpoint {s3.endpoint} --region {s3.region} --bucket {bucket}" in out
    assert s3.alt_secret_key not in out
    assert host.calls() == []

    out = ok(host.run("import", "old", "--as", "backup", "--mountpoint", str(host.mountpoint), "--apply"))
    assert s3.alt_secret_key not in out + str(host.calls())
    assert [name for name in host.storages() if name == "old"] == ["old"]
    assert host.storages()["backup"].properties["prune-backups"] == "keep-last=4"
    assert os.listdir(host.mountpoint / "dump") == ["vzdump-qemu-100-2026_11_20-13_15_26.vma.zst"]
    ok(host.run("remove", "backup"))
    assert list(host.storages()) == ["old"]

    (host.pve / "storage.cfg").write_text("dir: local\n\tpath /var/lib/vz\n")
    assert host.run("import")[::2] == (
        2,
        f"s3fsx: {host.pve}/storage.cfg: no storage of an S3 plugin in it (types s3, s3fsx)\n",
    )
    assert host.run("import", "nobody")[2] == f"s3fsx: {host.pve}/storage.cfg: no storage 'nobody' in it\n"


def _daemon(host: PveHost) -> int:
    from s3fsx.service.status import read_status, socket_path

    pid = read_status(socket_path(str(host.home / "runtime_dir"), str(host.mountpoint)))["pid"]
    assert isinstance(pid, int)
    return pid


def _dead(path: Path) -> bool:
    from s3fsx.kernel.mountpoint import is_dead

    return is_dead(str(path))
