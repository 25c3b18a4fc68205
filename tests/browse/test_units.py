"""The unit of the drill, as systemd would run it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"


@pytest.mark.parametrize("collected", [True, False])
def test_the_drills_command(tmp_path: Path, collected: bool) -> None:
    text = (UNITS / "s3fsx-drill@.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
    assert f"ReadWritePaths=-{environment['METRICS']}\n" in text
    metrics = tmp_path / "node-exporter"
    if collected:
        metrics.mkdir()
    program = tmp_path / "s3fsx"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    # systemd.service(5): %i is the name, $$ a dollar.
    words = [word.replace("%i", "s3-backup").replace("$$", "$") for word in shlex.split(line)]
    done = subprocess.run(
        words,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment, "METRICS": str(metrics)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    expected = ["drill", "s3-backup", "--random"]
    if collected:
        expected += ["--textfile", f"{metrics}/s3fsx_drill_s3-backup.prom"]
    assert done.stdout.splitlines() == expected


def test_the_timer_spreads_the_drills() -> None:
    text = (UNITS / "s3fsx-drill@.timer").read_text()
    for line in ("RandomizedDelaySec=6h", "Persistent=yes", "WantedBy=timers.target"):
        assert f"\n{line}\n" in text
