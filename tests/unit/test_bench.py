"""The benchmark's arithmetic: a wrong figure there would be believed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from contrib.bench.jobs import Result

from contrib.bench.meter import Meter, cpu_ticks, disk_bytes, high_water
from contrib.bench.report import table


def result(tool: str, number: int, mb_s: float, cpu: float, **steps: float) -> Result:
    requests = {"COPY PART": 1, "HEAD": 2, "PUT PART": 16}
    return Result(tool, "write", number, 1 << 27, mb_s, cpu, 100 << 20, 0, steps, requests)


def test_cpu_counts_own_and_waited_for_children_whatever_the_name() -> None:
    assert cpu_ticks("12 (a) b (c) S 1 12 12 0 -1 4194304 1 2 3 4 100 20 3 1 20 0 4 0 99") == 124


def test_high_water_is_bytes_and_zero_for_a_zombie() -> None:
    assert high_water("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n") == 2 << 20
    assert high_water("Name:\tx\nState:\tZ (zombie)\n") == 0


def test_a_deleted_file_that_is_still_open_counts_as_local_disk(tmp_path: Path) -> None:
    with (tmp_path / "staged").open("wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        linked = disk_bytes(os.getpid(), [tmp_path])
        (tmp_path / "staged").unlink()
        assert disk_bytes(os.getpid(), [tmp_path]) == linked >= 1 << 20
    assert disk_bytes(os.getpid(), [tmp_path]) == 0


def test_a_meter_sees_what_a_process_spends_and_not_what_it_held_before(tmp_path: Path) -> None:
    program = """
import sys, time
held = bytearray(64 << 20); del held
print(flush=True); sys.stdin.readline()
end = time.process_time() + 0.2
while time.process_time() < end: pass
print(flush=True); sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        with Meter(process.pid, [tmp_path]) as meter:
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
        process.communicate(b"\n", timeout=30)
    assert 0.15 < meter.cost().cpu_s < 2
    assert 1 << 20 < meter.cost().rss_peak < 48 << 20


def test_the_table_has_medians_spread_and_ratios_to_the_first_tool() -> None:
    rounds = [result("ours", n, mb_s, 2.0, write=1.0, in_bucket=1.5) for n, mb_s in enumerate((90, 100, 400))]
    text = table([*rounds, result("theirs", 0, 50, 3.0)])
    ours, theirs = (line for line in text.splitlines() if "ours" in line or "theirs" in line)
    assert ours.startswith("| ours | 100 | 90-400 | 1.00 | 2.00 | 1.00 | 100 | 0 | 1.00 | - | - | 1.50 |")
    assert theirs.startswith("| theirs | 50 | 50-50 | 0.50 | 3.00 | 1.50 |")
    assert theirs.endswith("| 16 PUT PART, 2 other | 1 COPY PART |")
