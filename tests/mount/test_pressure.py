"""Eight writers and eight readers in a memory cgroup of 512 MiB: the daemon stays under memory_budget + 128 MiB.

Ten minutes: S3FSX_TEST_PRESSURE_SECONDS=600.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.cgroup import memory_group
from tests.mount import harness
from tests.mount.conftest import MakeMount
from tests.mount.harness import ROOT

pytestmark = [pytest.mark.mount, pytest.mark.rgw, pytest.mark.slow]

SECONDS = float(os.environ.get("S3FSX_TEST_PRESSURE_SECONDS", "40"))
WRITERS = READERS = 8
BUDGET = 128  # MiB, the default
ABOVE = 128  # MiB


def test_rss_stays_under_the_budget_and_128_mib(make_mount: MakeMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "WATCHDOG", SECONDS + 300)
    mount = make_mount()
    dump = mount.path / "dump"
    with memory_group(512 << 20) as group:
        if group is not None:
            group.add(mount.pid)
        command = [sys.executable, "-m", "tests.mount.pressure", str(dump)]
        traffic = subprocess.Popen(
            [*command, str(SECONDS), str(WRITERS), str(READERS), "1"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            preexec_fn=None if group is None else lambda: group.add(0),
        )
        try:
            out, _ = traffic.communicate(timeout=SECONDS + 240)
        finally:
            traffic.kill()
            traffic.wait()
        report = json.loads(out)
        report["peak_rss_mib"] = round(mount.rss_peak_mib(), 1)
        report["cgroup"] = None if group is None else {"version": group.version, "peak": group.peak}
        oom_kills = 0 if group is None else group.oom_kills
        sys.stdout.write(f"pressure: {json.dumps(report)}\n")  # pytest -s shows it
    assert report["errors"] == []
    assert oom_kills == 0
    assert report["verified"] > 0
    assert report["backups"] >= WRITERS
    assert report["peak_rss_mib"] < BUDGET + ABOVE
    assert mount.view.uploads() == []
