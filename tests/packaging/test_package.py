"""The Debian package: built, installed in a clean Debian with what Debian has, used, upgraded, removed.

contrib/test-deb.sh runs the whole real-mount suite in the same way.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.packaging.conftest import HERE, ROOT, run
from tests.s3server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.mount, pytest.mark.rgw]


@pytest.mark.parametrize("template", sorted((ROOT / "contrib/systemd").iterdir()), ids=lambda path: path.name)
def test_systemd_understands_the_units(tmp_path: Path, template: Path) -> None:
    for each in template.parent.iterdir():  # a timer's service, too
        shutil.copy(each, tmp_path / each.name.replace("@", "@pve1"))
    unit = tmp_path / template.name.replace("@", "@pve1")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_changelog_has_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = (ROOT / "contrib/debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"s3fsx ({project['version']}-")


@pytest.mark.parametrize("release", ["12", "13"])
def test_it_is_installed_used_upgraded_and_removed(rgw: S3Server, package: Path, tmp_path: Path, release: str) -> None:
    bucket = rgw.make_bucket("package")
    for name in ("pve1", "pve2"):
        (tmp_path / f"{name}.toml").write_text(
            f'bucket = "{bucket}"\nprefix = "{name}/"\nendpoint = "{rgw.endpoint}"\nregion = "{rgw.region}"\n'
            f'access_key = "{rgw.access_key}"\nsecret_key = "{rgw.secret_key}"\n'
        )
    for path in (package, HERE / "systemctl", HERE / "inside.sh"):
        shutil.copy(path, tmp_path)
    out = run(
        [sys.executable, "contrib/debroot.py", release, "--bind", f"{tmp_path}:/given", "--", "sh", "/given/inside.sh"]
    )
    sys.stdout.write(out)  # the transcript, where something below fails
    said = dict(re.findall(r"^== (.*?)(?: after \d+ s)?\n((?:(?!==).*\n)*)", out, re.MULTILINE))
    assert "in use and goes on with the former version" in said["an upgrade while a backup is written"]
    assert "/mnt/pve/pve1: now served by this version" in said["an upgrade while nothing is in use"]
    assert "not removed: " in said["a removal while a file is open"]
    unfinished = said["a removal with something unfinished"]
    assert "is kept: a journal of what is unfinished" in unfinished
    assert "dump/vzdump-qemu-102-2026_11_20-13_15_26.vma" in unfinished
    # The configuration that the admin made, and nothing else; what mkdir and mount(8) were told is /mnt.
    assert re.findall(r"^left: (.*)$", out, re.MULTILINE) == ["/etc/s3fsx"]
    assert re.findall(r"^kept: (.*)$", out, re.MULTILINE) == ["pve1.toml", "pve2.toml"]
    archives = [f"dump/vzdump-qemu-{number}-2026_11_20-13_15_26.vma" for number in (100, 101, 102)]
    disk = (tmp_path / "disk").read_bytes()
    for archive, view in zip(archives, [rgw.view(bucket, "pve1/")] * 2 + [rgw.view(bucket, "pve2/")], strict=True):
        assert view.body(archive) == disk
        assert view.uploads() == []
    marks = [f"{archives[0]}.notes", f"{archives[0]}.protected"]
    assert sorted(rgw.view(bucket, "pve1/").keys("dump/vzdump")) == sorted([*archives[:2], *marks])
