"""The storage type of contrib/pve, with stand-ins of Proxmox' modules (tests/perl), mounting a real bucket."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3fsx.kernel.mountpoint import mounted
from s3fsx.pve.storagecfg import Section
from s3fsx.service.status import read_status, socket_path
from tests import policy
from tests.checklogs import LogWatch
from tests.mount.harness import ROOT
from tests.mount.pvehost import PveHost
from tests.s3server import S3Server

PLUGIN = ROOT / "contrib" / "pve" / "S3fsxPlugin.pm"
PERL = ["perl", f"-I{ROOT / 'tests' / 'perl'}", "-MPVE::Storage", "-MJSON::PP"]
HEAD = f"""
my $class = 'PVE::Storage::Custom::S3fsxPlugin';
PVE::Storage::load($class, '{PLUGIN}');
PVE::Storage::Plugin->init();
"""


def perl(script: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PERL, "-e", script],
        capture_output=True,
        text=True,
        env=env or dict(os.environ),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("version", ["10", "11", "12", "13", "14"])
def test_it_loads_in_each_version_of_the_api(version: str) -> None:
    """10 is PVE 8.0, 13 a recent PVE 9, 14 is yet to come."""
    env = {**os.environ, "STUB_APIVER": version}
    check = subprocess.run([*PERL[:-1], "-wc", PLUGIN], capture_output=True, text=True, check=False, env=env)
    assert check.stderr == f"{PLUGIN} syntax OK\n"
    done = perl(HEAD + "print $class->api(), ' ', join(',', sort keys %{$class->options()});", env)
    assert done.stderr == ""
    api, _, options = done.stdout.partition(" ")
    assert api == min(version, "13")
    wanted = "access_key bucket connection_timeout endpoint glacier_days kms_key_id lifecycle_enabled secret_key"
    wanted += " max_concurrent_uploads multipart_chunk_size prefix region server_side_encryption storage_class"
    wanted += " transition_days"
    assert set(wanted.split()) <= set(options.split(","))


def test_beside_another_s3_plugin() -> None:
    """Two plugins that declare one property take down every storage of the node; ours gives way."""
    other = """
package Other; our @ISA = ('PVE::Storage::Plugin');
sub type { 's3' } sub plugindata { {} } sub options { { bucket => {} } }
sub properties { { bucket => { description => 'theirs' }, endpoint => {} } }
package main; Other->register();
"""
    done = perl(other + HEAD + "print PVE::Storage::Plugin->private()->{propertyList}->{bucket}->{description}")
    assert (done.stdout, done.stderr) == ("theirs", "")


class Storage:
    """A section of storage.cfg, and the methods of the plugin on it."""

    def __init__(self, host: PveHost, scfg: dict[str, Any], version: str = "13") -> None:
        self.host = host
        self.scfg = scfg
        self.env = {**host.environment, "STUB_APIVER": version}

    def call(self, method: str, *arguments: object) -> tuple[Any, str]:
        """What it returned, and what it died of."""
        given = json.dumps([self.scfg, list(arguments)])
        more = "%{$more->[0]}" if method in ("on_add_hook", "on_update_hook") else "@$more"  # these take %sensitive
        script = f"""{HEAD}
{{ no warnings 'once'; no strict 'refs';
${{"${{class}}::PRIV_DIR"}} = '{self.host.pve}/priv/storage'; ${{"${{class}}::CONFIG_DIR"}} = '{self.host.config}';
${{"${{class}}::UNIT_DIR"}} = '{self.host.units}'; ${{"${{class}}::RUNTIME_DIR"}} = '{self.host.home}/runtime_dir'; }}
my ($scfg, $more) = @{{decode_json(<<'EOT')}};
{given}
EOT
my @got = eval {{ $class->{method}('backup', $scfg, {more}) }};
print encode_json({{ got => \\@got, died => "$@", scfg => $scfg }});
"""
        done = perl(script, self.env)
        assert done.returncode == 0, done.stderr
        self.warned = done.stderr
        answer = json.loads(done.stdout.rpartition("\n")[2])
        self.scfg = answer["scfg"]
        return answer["got"], answer["died"]

    def ok(self, method: str, *arguments: object) -> list[Any]:
        got, died = self.call(method, *arguments)
        assert died == "", self.warned
        return list(got)


@pytest.fixture
def host(s3: S3Server, tmp_path: Path, log_watch: LogWatch) -> Iterator[PveHost]:
    (tmp_path / "pve" / "priv").mkdir(parents=True, mode=0o700)
    with PveHost(s3, tmp_path / "node1", tmp_path / "pve", log_watch) as host:
        yield host


@pytest.fixture
def section(s3: S3Server, host: PveHost) -> dict[str, Any]:
    bucket = s3.make_bucket("plugin")
    policy.grant(s3, bucket, "pve/")
    return {
        "type": "s3fsx",
        "bucket": bucket,
        "endpoint": s3.endpoint,
        "region": s3.region,
        "prefix": "pve/",
        "path": str(host.mountpoint),
        "multipart_chunk_size": 64,
        "max_concurrent_uploads": 4,
        "connection_timeout": 7,
        "content": {"backup": 1, "iso": 1},
    }


@pytest.mark.mount
@pytest.mark.rgw
def test_add_activate_status_deactivate_remove(s3: S3Server, host: PveHost, section: dict[str, Any]) -> None:
    storage = Storage(host, section)
    keys = {"access_key": s3.alt_access_key, "secret_key": s3.alt_secret_key}
    storage.ok("on_add_hook", keys)
    file = host.pve / "priv" / "storage" / "backup.s3fsx"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == f'access_key = "{keys["access_key"]}"\nsecret_key = "{keys["secret_key"]}"\n'
    assert storage.ok("status", {}) == []

    storage.ok("activate_storage", {})
    assert mounted()[str(host.mountpoint)] == "fuse.s3fsx"
    config = host.config / "backup.toml"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert 'memory_budget = "256MiB"' in config.read_text()
    assert s3.alt_secret_key not in config.read_text() + str(host.calls())
    total, avail, used, active = map(int, storage.ok("status", {}))
    assert (total, active) == (1 << 50, 1)
    assert used + avail == total
    (host.mountpoint / "dump" / "a.log").write_text("kept")

    storage.ok("activate_storage", {})
    assert host.calls() == []
    storage.scfg["max_concurrent_uploads"] = 5
    storage.ok("activate_storage", {})
    assert "new settings count from the next mount on: systemctl restart s3fsx@backup.service" in storage.warned

    pid = read_status(socket_path(str(host.home / "runtime_dir"), str(host.mountpoint)))["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        assert storage.ok("status", {}) == []
        assert "its daemon does not answer" in storage.call("activate_storage", {})[1]
        assert time.monotonic() - start < 30  # 2 s each, and two perls on a busy machine
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(storage.ok("status", {})) == 4

    storage.ok("deactivate_storage", {})
    assert str(host.mountpoint) not in mounted()
    assert storage.ok("status", {}) == []
    listed = s3.client.list_objects_v2(Bucket=section["bucket"])["Contents"]
    assert [item["Key"] for item in listed] == ["pve/dump/a.log"]
    storage.ok("on_delete_hook")
    assert not file.exists()
    assert not config.exists()


@pytest.mark.mount
@pytest.mark.rgw
@pytest.mark.expect_log("no credentials found")
def test_a_mount_that_does_not_come(host: PveHost, section: dict[str, Any]) -> None:
    """The unit fails: the storage is inactive, says where to look, and nothing is written to the root disk."""
    storage = Storage(host, section | {"bucket": "no-such-bucket"})
    _, died = storage.call("activate_storage", {})
    assert died == (
        "unable to activate storage 'backup' - not mounted yet; journalctl -u s3fsx@backup.service shows why\n"
    )
    assert not (host.mountpoint / "dump").exists()
    assert storage.ok("status", {}) == []


def test_keys_before_api_11_do_not_reach_storage_cfg(s3: S3Server, host: PveHost, section: dict[str, Any]) -> None:
    """There they come with the other properties."""
    storage = Storage(host, section | {"access_key": "AKIA", "secret_key": "hunter2"}, "10")
    storage.ok("on_add_hook", {})
    assert not {"access_key", "secret_key"} & set(storage.scfg)
    file = host.pve / "priv" / "storage" / "backup.s3fsx"
    assert "hunter2" in file.read_text()
    storage.scfg = {"secret_key": "hunter3"}
    storage.ok("on_update_hook", {})
    assert (storage.scfg, file.read_text()) == ({}, 'access_key = "AKIA"\nsecret_key = "hunter3"\n')
    storage.scfg = {"access_key": 'a"b'}
    assert storage.call("on_update_hook", {})[1] == "access_key: characters that no key has\n"


@pytest.mark.rgw
def test_lifecycle(s3: S3Server, host: PveHost, section: dict[str, Any]) -> None:
    if s3.name == "gateway":
        pytest.skip("no other storage class to move to: a rule with a transition is 501")
    more = {"lifecycle_enabled": 1, "transition_days": 30, "glacier_days": 365}
    storage = Storage(host, section | more)
    storage.ok("on_add_hook", {"access_key": s3.access_key, "secret_key": s3.secret_key})
    found = s3.client.get_bucket_lifecycle_configuration(Bucket=section["bucket"])["Rules"]
    assert {rule["ID"] for rule in found} == {"s3fsx-backup-ia", "s3fsx-backup-cold"}
    storage.ok("on_update_hook_full", {"lifecycle_enabled": 0}, [], {})
    with pytest.raises(s3.client.exceptions.ClientError, match="NoSuchLifecycleConfiguration"):
        s3.client.get_bucket_lifecycle_configuration(Bucket=section["bucket"])

    (host.pve / "priv" / "storage" / "backup.s3fsx").unlink()
    refused = Storage(host, section | more)
    _, died = refused.call("on_add_hook", {"access_key": s3.alt_access_key, "secret_key": s3.alt_secret_key})
    assert died == "lifecycle rules of backup: exit code 1\n"
    assert not (host.pve / "priv" / "storage" / "backup.s3fsx").exists()


def test_its_sections_can_be_taken_over() -> None:
    from s3fsx.pve.plugins import OURS, translate

    found = translate(Section("s3fsx", "x", {"bucket": "bbb", "path": "/mnt/pve/x", "transition_days": "3"}))
    assert found.plugin == OURS
