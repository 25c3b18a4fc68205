"""The package, built once for all of these tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
LIMIT = 900  # seconds: debootstrap, and apt, from a mirror that may be slow


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built, and found clean by lintian."""
    directory = tmp_path_factory.mktemp("package")
    (line,) = run(["sh", "contrib/build-deb.sh", str(directory)]).split()
    assert Path(line).parent == directory
    return Path(line)
