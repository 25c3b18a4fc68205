"""The raw limits that are not a mount: plain boto3 on the same store, and on a store that does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from .bench import Bench, Measurement
from .data import BACKUP
from .link import ROOT
from .metadata import LONG_DIRECTORY
from .meter import Cost
from .raw import Task
from .tools import ToolError

OWN_KEY = "private/boto3.raw"
SMALL_PREFIX = "private/boto3-small/"


def _boto3(bench: Bench, job: str, task: Task) -> dict[str, Any]:
    command = [*bench.access.prefix, sys.executable, "-m", "contrib.bench.raw", job]
    try:
        done = subprocess.run(
            command,
            input=task.to_json(),
            capture_output=True,
            text=True,
            env=bench.access.environment(),
            cwd=ROOT,
            timeout=bench.amounts.limit,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise ToolError(f"boto3: {job} not done after {bench.amounts.limit:.0f} s") from e
    if done.returncode:
        raise ToolError(f"boto3: {done.stderr[-1000:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _task(bench: Bench, key: str, prefix: str, number: int, endpoint: str | None = None) -> Task:
    where = (endpoint or bench.access.endpoint, bench.access.server.region, bench.bucket)
    return Task(*where, str(bench.data.path), bench.data.count, key, prefix, number)


def _run(bench: Bench, number: int, job: str, shown: str, task: Task, *, size: int = 0) -> None:
    """Adds a result for the job, or, when it has such, for each of its steps that has a name of its own."""
    mark = bench.access.server.mark(bench.bucket)
    before = bench.link.counters()
    said = _boto3(bench, job, task)
    wire = bench.link.counters() - before
    requests = bench.access.server.requests_since(mark, bench.bucket)
    m = Measurement()
    m.size = size
    cost = Cost(said["cpu_s"], said["rss_peak"], 0)
    if job == "small":
        for name, seconds in said["steps"].items():
            bench.add("boto3", name, number, seconds, Cost(0, said["rss_peak"], 0), m, Counter(), 0, 0)
        return
    m.steps = said["steps"]
    seconds = m.steps["first byte"] if job == "first" else said["seconds"]
    bench.add("boto3", shown, number, seconds, cost, m, requests, wire.sent, wire.received)


def write(bench: Bench, number: int) -> None:
    with bench.cleared(OWN_KEY):
        _run(bench, number, "write", "write", _task(bench, OWN_KEY, "", 0), size=bench.data.size)


def read(bench: Bench, number: int) -> None:
    _run(bench, number, "read", "read", _task(bench, BACKUP, "", 0), size=bench.data.size)


def first_byte(bench: Bench, number: int) -> None:
    _run(bench, number, "first", "first byte", _task(bench, BACKUP, "", bench.amounts.opens))


def small_files(bench: Bench, number: int) -> None:
    _run(bench, number, "small", "", _task(bench, "", SMALL_PREFIX, bench.amounts.files))


def long_list(bench: Bench, number: int) -> None:
    _run(bench, number, "list", "list cold", _task(bench, "", f"{LONG_DIRECTORY}/", bench.amounts.entries))


def _sink(job: str) -> Callable[[Bench, int], None]:
    def run(bench: Bench, number: int) -> None:
        command = [sys.executable, "-m", "contrib.bench.sink", bench.link.address, str(bench.data.size)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                endpoint = f"http://{bench.link.address}:{int(process.stdout.readline())}"
                before = bench.link.counters()
                said = _boto3(bench, job, _task(bench, "sink", "", 0, endpoint))
                wire = bench.link.counters() - before
            finally:
                process.stdin.close()
        m = Measurement()
        m.size = bench.data.size
        cost = Cost(said["cpu_s"], said["rss_peak"], 0)
        bench.add("sink", job, number, said["seconds"], cost, m, Counter(), wire.sent, wire.received)

    return run


Limit = dict[str, Callable[[Bench, int], None]]
LIMITS: dict[str, Limit] = {
    "boto3": {"write": write, "read": read, "first": first_byte, "small": small_files, "list": long_list},
    "sink": {"write": _sink("write"), "read": _sink("read")},
}
