"""An administrator's first day on a clean Debian 12: install the package, set up, back up, check, an outage, remove.

``pytest -rP tests/packaging/test_shown.py`` shows the transcript.
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import policy
from tests.metrics.promtool import run as promtool
from tests.packaging.conftest import HERE, run
from tests.s3server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.mount, pytest.mark.rgw]


def free_ports(count: int) -> list[str]:
    """Different ones, of the moment."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


def test_the_first_day(rgw: S3Server, package: Path, tmp_path: Path) -> None:
    bucket = rgw.make_bucket("shown")
    policy.grant(rgw, bucket, "pve/")
    keys = tmp_path / "keys"
    keys.write_text(f"{rgw.alt_access_key}:{rgw.alt_secret_key}\n")
    keys.chmod(0o600)
    tests = HERE.parent
    given = ["packaging/systemctl", "packaging/shown.sh", "mount/stubs.py", "mount/vzdump.py", "browse/archives.py"]
    for path in (package, *(tests / name for name in given)):
        shutil.copy(path, tmp_path)
    port = str(urlsplit(rgw.endpoint).port)
    began = time.monotonic()
    inside = ["sh", "/given/shown.sh", bucket, port, *free_ports(2)]
    out = run([sys.executable, "contrib/debroot.py", "12", "--bind", f"{tmp_path}:/given", "--", *inside])
    sys.stdout.write(out)
    sys.stdout.write(f"{package.name}: {package.stat().st_size} bytes; all of it {time.monotonic() - began:.0f} s\n")
    said = dict(re.findall(r"^== (.*)\n((?:(?!==).*\n)*)", out, re.MULTILINE))
    assert "OK: /mnt/pve/s3-backup\n" in said["pve setup"]
    assert "is_mountpoint yes" in said["pve setup"]
    looked = said["backups, show, verify, drill"]
    assert "name: web\n" in looked  # of the VM
    assert "hostname: mail\n" in looked
    assert looked.count("every byte verified") == 2
    assert "down" in said["an outage"]
    assert " object at 0x" not in out
    assert "left:" not in said["pve remove"]
    promtool("check", "metrics", text=(tmp_path / "metrics").read_text())
    view = rgw.view(bucket, "pve/")
    assert len([key for key in view.keys("dump/") if key.endswith(".zst")]) == 2
    assert view.uploads() == []
    assert rgw.alt_secret_key not in out
