"""The benchmark's arithmetic: a wrong figure there would be believed."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from contrib.bench import data, sink
from contrib.bench.compare import arguments, plan
from contrib.bench.link import CONDITIONS, ROOT, shaping
from contrib.bench.meter import Meter, cpu_ticks, disk_bytes, high_water
from contrib.bench.randomread import SIZES, percentile, places
from contrib.bench.report import figure, paired_ratio, table
from contrib.bench.result import Result
from contrib.bench.targets import rows, target_table
from contrib.bench.tools import ToolError

MIB = 1 << 20


def result(tool: str, number: int, mb_s: float, cpu: float = 0.1, *, job: str = "write", **steps: float) -> Result:
    """128 MiB at mb_s, for cpu seconds per GiB."""
    size = 1 << 27
    requests = {"COPY PART": 1, "HEAD": 2, "PUT PART": 16}
    seconds = size / mb_s / 1e6
    return Result(
        "plain", tool, job, number, seconds, size, cpu / 8, 100 * MIB, 0, steps, requests, 130 * MIB, MIB
    )  # fmt: skip


def timed(tool: str, job: str, *seconds: float, link: str = "plain") -> list[Result]:
    return [Result(link, tool, job, n, s, 0, 0.1, 50 * MIB, 0, {}, {}, 0, 0) for n, s in enumerate(seconds)]


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
    rounds = [result("ours", n, mb_s, 2.0, write=1.0) for n, mb_s in enumerate((90, 100, 400))]
    text = table([*rounds, result("theirs", 0, 45, 3.0, copy=0.25)])
    ours, theirs = (line for line in text.splitlines() if "ours" in line or "theirs" in line)
    assert ours.startswith("| ours | 100 | 90-400 | 1.00 | 2.00 | 100 | 0 | 1 | - |")
    assert theirs.startswith("| theirs | 45 | 45-45 | 0.50 | 3.00 | 100 | 0 | - | 0.25 |")
    assert theirs.endswith("| 16 PUT PART, 2 HEAD | 1 COPY PART | 130.0 | 1.0 |")


def test_times_are_shown_as_such_and_their_spread_begins_with_the_best() -> None:
    text = table(timed("ours", "list cold", 0.2, 0.1, 3.0))
    assert "**list cold**, plain" in text
    assert "| ours | 200 ms | 100 ms-3.00 s | 1.00 |" in text
    assert figure(0.0001234, 0) == "0.123 ms"
    assert figure(4, 10**6) == "0.2"


def test_a_ratio_is_of_pairs_and_against_the_best_of_the_others() -> None:
    ours = [result("ours", n, mb_s) for n, mb_s in enumerate((100, 300, 500))]
    theirs = [result("b", 0, 50), result("b", 1, 100), result("c", 1, 200), result("c", 7, 999)]
    assert paired_ratio(ours, theirs) == pytest.approx((2.0 + 1.5) / 2)
    assert paired_ratio(ours, [result("c", 7, 999)]) is None


def test_targets_that_are_met_missed_and_not_measured() -> None:
    link = "1gbit-30ms"
    payload = CONDITIONS[link].payload
    assert payload is not None
    results = [
        *[result(tool, 0, mb_s, 3.0) for tool, mb_s in (("s3fsx", 160), ("s3fs", 100), ("rclone-off", 110))],
        *timed("s3fsx", "list cold", 1.0),
        *timed("s3fs", "list cold", 2.0),
        *timed("s3fsx", "random 4 KiB warm", 0.004),
        *timed("local", "random 4 KiB warm", 0.001),
        *timed("s3fsx", "first byte", 0.049, link="30ms"),
        replace(result("s3fsx", 0, payload / 1e6 * 0.96, job="read"), link=link),
    ]
    found = {(row.number, row.link, row.target.split(":")[0]): row for row in rows(results)}
    writes = [row for row in rows(results) if row.number == 1]
    assert [(row.seen, row.met) for row in writes] == [("1.45x", False), ("not measured", None)]
    assert found[4, "plain", "list cold"].met
    assert found[3, "plain", "random 4 KiB warm"].met is False
    assert found[2, "30ms", "first byte within 50 ms"].met
    assert found[6, link, "read"].met
    assert [row.met for row in rows(results) if "CPU" in row.target and row.link == "plain"] == [False]
    assert "| 6 | 1gbit-30ms | read: at least 95% of the 119.6 MB/s that TCP has there | 96.0% | yes |" in (
        target_table(results)
    )


def test_percentiles_are_values_that_were_seen() -> None:
    assert [percentile([4, 1, 3, 2], p) for p in (0, 50, 75, 76, 100)] == [1, 2, 3, 4, 4]


def test_random_reads_stay_in_their_part_of_the_file_and_repeat_for_the_same_seed() -> None:
    size, block = 30 << 20, 64 << 10
    chosen = places(size, block, (1, 2), 50, 7)
    assert chosen == places(size, block, (1, 2), 50, 7) != places(size, block, (1, 2), 50, 8)
    assert len(set(chosen)) == 50
    assert all(size // 3 <= offset < 2 * size // 3 and offset % block == 0 for offset in chosen)
    last = places(size, SIZES[2], (2, 3), 1000, 7)
    assert sorted(last) == [n << 20 for n in range(20, 30)]


def test_shaping_puts_the_delay_above_the_limit_and_only_what_is_wanted() -> None:
    both = shaping(CONDITIONS["1gbit-30ms"], "v", netem=True)
    assert [" ".join(command) for command in both] == [
        "qdisc add dev v root handle 1: netem delay 15ms limit 200000",
        "qdisc add dev v parent 1:1 handle 10: tbf rate 1000mbit burst 256kb limit 8mb",
    ]
    assert [command[4:7] for command in shaping(CONDITIONS["1gbit-30ms"], "v", netem=False)] == [
        ["root", "handle", "1:"]
    ]
    assert shaping(CONDITIONS["plain"], "v", netem=True) == []


def test_the_backup_is_a_zstd_stream_of_any_length_and_what_is_read_is_compared(tmp_path: Path) -> None:
    made = data.make(tmp_path, 3 << 20)
    twice = data.Data(made.path, made.unit, 2, "")
    path = tmp_path / "twice.zst"
    data.write(path, twice, twice.size)
    assert path.stat().st_size == twice.size == 2 * made.size
    plain = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True, check=True).stdout
    assert len(plain) == 6 << 20
    assert plain[: 3 << 20] == plain[3 << 20 :]
    data.read(path, twice, data.IO, twice.size)
    across = twice.piece(made.size - 5, 10)
    assert across == path.read_bytes()[made.size - 5 : made.size + 5]
    with path.open("r+b") as file:
        file.seek(8 * data.IO)
        file.write(b"wrong")
    with pytest.raises(ValueError, match="not what was written"):
        data.read(path, twice, 0, twice.size)
    os.truncate(path, 100)
    with pytest.raises(ValueError, match="the file ends at 100"):
        data.read(path, None, 0, twice.size)


def test_the_sink_understands_heads_and_ranges() -> None:
    head = b"PUT /b/k?partNumber=1 HTTP/1.1\r\nContent-Length: 12\r\nExpect: 100-continue"
    assert sink.parse(head) == (
        "PUT", "/b/k?partNumber=1", {"content-length": "12", "expect": "100-continue"},
    )  # fmt: skip
    assert sink.byte_range("bytes=5-9", 100) == (5, 10)
    assert sink.byte_range("bytes=90-", 100) == (90, 100)
    assert sink.byte_range("bytes=90-200", 100) == (90, 100)
    assert sink.byte_range("", 100) == (0, 100)


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[int]:
    """A program of the benchmark that prints its port and ends with its standard input."""
    command = [sys.executable, "-m", f"contrib.bench.{module}", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(30) == 0


def test_the_relay_delays_both_ways_and_changes_nothing() -> None:
    delay = 0.05
    with (
        serving("sink", "127.0.0.1", str(3 << 20)) as store,
        serving("relay", "127.0.0.1", str(store), str(delay)) as port,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        start = time.monotonic()
        connection.request("PUT", "/b/k", body=bytes(3 << 20))
        assert connection.getresponse().read() == b""
        assert time.monotonic() - start >= 4 * delay  # the handshake's round trip, and the request's
        start = time.monotonic()
        connection.request("GET", "/b/k", headers={"Range": "bytes=1-2000000"})
        assert connection.getresponse().read() == bytes(2_000_000)
        assert time.monotonic() - start >= 2 * delay
        connection.close()


def test_bad_input_is_refused_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for given, said in (("--jobs=nap", "no such job: nap"), ("--net=3g", "network: 3g"), ("--tools=nfs", "tool: nfs")):
        with pytest.raises(ToolError, match=said):
            plan(arguments([given]))
    chosen = plan(arguments(["--quick", "--entries=5", "--tls=both", "--tools=s3fsx,boto3"]))
    assert (chosen.rounds, chosen.amounts.entries, chosen.amounts.size) == (1, 5, 256 << 20)
    assert list(chosen.tls) == [False, True]
    with pytest.raises(SystemExit):
        arguments(["--size=lots"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ToolError, match="must run as root"):
        plan(arguments([]))
