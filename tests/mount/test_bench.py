"""The benchmark runs: small amounts of every job, on a link that is slow, with a real store."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from contrib.bench.link import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.mount, pytest.mark.rgw]

AMOUNTS = (
    *("--size=8MiB", "--iso=8MiB", "--files=3", "--reads=4", "--opens=1"),
    *("--rounds=1", "--limit=120"),
)


def compare(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "contrib.bench.compare", *AMOUNTS, "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)


def test_jobs_of_all_kinds_have_results_and_nothing_is_left(tmp_path: Path) -> None:
    # A short path: there are Unix sockets in it.
    with tempfile.TemporaryDirectory(prefix="s3b-", dir="/var/tmp") as work:
        chosen = "--jobs=write,vzdump,read,random,small,mixed"
        done = compare(tmp_path / "out", "--net=10ms", chosen, "--tools=s3fsx,null,boto3", f"--work={work}")
        assert done.returncode == 0, done.stderr
        assert list(Path(work).iterdir()) == []
    said = json.loads((tmp_path / "out" / "results.json").read_text())
    jobs = {tool: {r["job"] for r in said["results"] if r["tool"] == tool} for tool in said["plan"]["tools"]}
    assert {"write", "vzdump", "read", "random 4 KiB cold", "random 1024 KiB warm", "mixed", "mixed ls"} < jobs["s3fsx"]
    assert {f"small {what}" for what in ("write", "list", "stat", "read", "delete")} < jobs["s3fsx"]
    assert jobs["null"] == {"write", "read"}
    assert {"write", "read", "small read"} < jobs["boto3"]
    by_job = {r["job"]: r for r in said["results"] if r["tool"] == "s3fsx"}
    # The bytes went over the link, and the log of the store says how; each way has its delay: 10 ms a round trip.
    assert 8 << 20 < by_job["write"]["sent"] < 10 << 20
    assert 8 << 20 < by_job["read"]["received"] < 10 << 20
    assert by_job["vzdump"]["requests"]["COMPLETE"] == 1
    assert by_job["write"]["rss_peak"] > 20 << 20
    asked = next(r for r in said["results"] if (r["tool"], r["job"]) == ("boto3", "small stat"))
    assert asked["seconds"] > 3 * 0.010
    assert "| tool | MB/s |" in done.stdout
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"s3fsx-bench-{said['pid']}" not in namespaces


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    done = compare(tmp_path / "out", "--jobs=nap")
    assert done.returncode == 2
    assert done.stderr.startswith("compare: no such job: nap; there are write, ")
    assert done.stderr.count("\n") == 1
