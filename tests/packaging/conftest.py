"""The package, built once for all of these tests."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
LIMIT = 900  # seconds: debootstrap, and apt, from a mirror that may be slow


def run(command: list[str], *, limit: float = LIMIT) -> str:
    """What it said; the limit is in seconds."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        out, err = process.communicate(timeout=limit)
    except BaseException as e:  # a Ctrl-C, too
        os.killpg(process.pid, signal.SIGTERM)  # all of them: debroot ends what it started and throws its copy away
        out, err = process.communicate(timeout=60)
        if not isinstance(e, subprocess.TimeoutExpired):
            raise
    assert process.returncode == 0, f"{' '.join(command)}: {process.returncode}\n{out[-30000:]}{err[-4000:]}"
    return out


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built, and found clean by lintian."""
    directory = tmp_path_factory.mktemp("package")
    (line,) = run(["sh", "contrib/build-deb.sh", str(directory)]).split()
    assert Path(line).parent == directory
    return Path(line)
