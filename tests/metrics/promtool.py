"""Prometheus' own checker, from Debian's package ``prometheus``: only the program, no service."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3fsx-test"


def promtool() -> str:
    """Its path; fetched where it is not there. Fails with what apt-get said."""
    found = shutil.which("promtool") or shutil.which("promtool", path=str(CACHE))
    if found:
        return found
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        done = subprocess.run(
            ["apt-get", "download", "prometheus"], cwd=directory, capture_output=True, text=True, check=False
        )
        packages = list(Path(directory).glob("prometheus_*.deb"))
        assert packages, f"promtool is needed: apt-get install prometheus\n{done.stdout}{done.stderr}"
        subprocess.run(["dpkg-deb", "-x", packages[0], directory], check=True)
        os.replace(Path(directory) / "usr/bin/promtool", CACHE / "promtool")
    return str(CACHE / "promtool")


def run(*arguments: str, text: str | None = None) -> str:
    """Fails when it finds anything."""
    done = subprocess.run([promtool(), *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
