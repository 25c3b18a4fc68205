"""The units under a real systemd: set up, killed, installed again, a power off and a boot, a line in fstab, removed.

``pytest -rP tests/packaging/test_systemd.py`` shows the transcript.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import policy
from tests.packaging.conftest import HERE, run
from tests.s3server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.mount, pytest.mark.rgw]

WAITING = "dump/vzdump-qemu-100-2026_11_26-21_00_00.vma.dat"


@pytest.mark.parametrize("release", os.environ.get("S3FSX_TEST_SYSTEMD", "13").split())
def test_two_boots(rgw: S3Server, package: Path, tmp_path: Path, release: str) -> None:
    bucket = rgw.make_bucket("booted")
    policy.grant(rgw, bucket, "pve/")
    keys = tmp_path / "keys"
    keys.write_text(f"{rgw.alt_access_key}:{rgw.alt_secret_key}\n")
    keys.chmod(0o600)
    tests = HERE.parent
    for path in (package, HERE / "booted.sh", HERE / "day.sh", tests / "mount/stubs.py", tests / "browse/archives.py"):
        shutil.copy(path, tmp_path)
    inside = ["sh", "/given/booted.sh", bucket, str(urlsplit(rgw.endpoint).port)]
    out = run([sys.executable, "contrib/debroot.py", release, "--bind", f"{tmp_path}:/given", "--", *inside])
    sys.stdout.write(out)
    said = dict(re.findall(r"^== (.*)\n((?:(?!==).*\n)*)", out, re.MULTILINE))
    assert "\nenabled\n" in said["pve setup"]
    assert "ready when started: notify" in said["pve setup"]
    assert "restarts: 1\n" in said["the daemon is killed"]
    assert "now served by this version" in said["the package is installed again"]
    timers = said["drill and timers"]
    assert "drill: success\n" in timers
    assert "s3fsx-drill@s3-backup.timer\ns3fsx-lifecycle@s3-backup.timer\n" in timers
    assert "state: failed, status 2, restarts: 0\n" in said["the store's configuration is broken: no endless tries"]
    booted = said["after the boot"]
    assert Path(WAITING).name in booted
    assert "failed: " not in booted
    assert "left: " not in said["pve remove, purge"]
    journal = (tmp_path / "journal").read_text()
    assert rgw.alt_secret_key not in journal + out
    view = rgw.view(bucket, "pve/")
    assert view.body(WAITING) == (tmp_path / "disk").read_bytes()
    assert view.uploads() == []
