"""contrib.soak works and finds nothing: a minute of it. By hand for as long as one likes, see its --help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.harness import ROOT

pytestmark = [pytest.mark.mount, pytest.mark.rgw, pytest.mark.slow]

MINUTES = 0.7
LIMIT = 600.0  # seconds; at the end it waits for uploads that could not be aborted, which are tried again every 60 s


def test_soak(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "contrib.soak", "--minutes", str(MINUTES), "--seed", "2", "--gib", "6"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--work", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert ledger["findings"] == []
    assert ledger["backups"] > 0
    assert ledger["bytes_verified"] > 0
    assert sum(ledger["faults"].values()) > 0
    sys.stdout.write(f"soak: {json.dumps(ledger)}\n")  # pytest -s shows it
