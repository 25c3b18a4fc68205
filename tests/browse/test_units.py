"""The units of the drill and the lifecycle, as systemd would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from s3fsx.cli import build_parser

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


@pytest.mark.parametrize("options", ["", "--keep-warm 5 -o credentials_file=/etc/s3fsx/keys"])
def test_the_lifecycles_command_is_one_that_the_parser_takes(options: str) -> None:
    text = (UNITS / "s3fsx-lifecycle@.service").read_text()
    assert "\nEnvironment=OPTIONS=\n" in text
    (line,) = re.findall(r"^ExecStart=/usr/bin/env s3fsx (.*)$", text, re.MULTILINE)
    # systemd.service(5): $OPTIONS as a word of its own is split at spaces, and nothing where it is empty.
    words = [word for each in line.split() for word in (options.split() if each == "$OPTIONS" else [each])]
    args = build_parser().parse_args([word.replace("%i", "s3-backup") for word in words])
    assert (args.name, args.transition_days, args.glacier_days, args.remove) == ("s3-backup", 0, 0, False)
    assert args.keep_warm == (5 if options else 3)
    assert args.options == (["credentials_file=/etc/s3fsx/keys"] if options else [])


def test_the_lifecycle_runs_every_day() -> None:
    text = (UNITS / "s3fsx-lifecycle@.timer").read_text()
    for line in ("OnCalendar=*-*-* 11:00", "Persistent=yes", "WantedBy=timers.target"):
        assert f"\n{line}\n" in text
