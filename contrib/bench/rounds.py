"""All of it: each network, each round, each job, each tool in turn."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests import policy
from tests.rgw import running_rgw
from tests.s3server import S3Server

from . import backup, data, metadata, randomread, together
from .bench import Amounts, Bench
from .limits import LIMITS
from .link import Condition, Link, Route, running_link
from .report import figure
from .result import Result
from .tools import LOCAL, TOOLS, Access, Tool, ToolError, mounted

PREPARE_LIMIT = 600.0  # seconds
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """writes: whether RGW has garbage of its size afterwards. needs: what of the prepared contents it reads."""

    run: Callable[[Bench, Tool, int], None]
    writes: bool = False
    needs: str = ""


JOBS = {
    "write": Job(backup.write, writes=True),
    "vzdump": Job(backup.vzdump, writes=True),
    "read": Job(backup.read, needs=data.BACKUP),
    "read4": Job(backup.read4, needs=data.BACKUP),
    "zstd": Job(backup.zstd, needs=data.BACKUP),
    "first": Job(backup.first_byte, needs=data.BACKUP),
    "random": Job(randomread.run, needs=data.ISO),
    "small": Job(metadata.small_files),
    "list": Job(metadata.long_list, needs=metadata.LONG_DIRECTORY),
    "prune": Job(metadata.prune),
    "mixed": Job(together.run, writes=True, needs=data.BACKUP),
}


@dataclass(frozen=True)
class Plan:
    """tools: names of TOOLS and LIMITS, in turn. tls: whether https, one after the other."""

    tools: Sequence[str]
    jobs: Sequence[str]
    conditions: Sequence[Condition]
    tls: Sequence[bool]
    rounds: int
    amounts: Amounts

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "tls": list(self.tls)}


def run(plan: Plan, work: Path, memory: Path, results: list[Result], how: dict[str, str], say: Say) -> int:
    """Adds to results, and to how (what made each network), as they come: an interrupted run has what it has. How many
    jobs failed.

    Raises LinkError, RgwUnavailableError, and ToolError when not even the contents could be prepared.
    """
    amounts = plan.amounts
    say(f"making {amounts.size >> 20} MiB of incompressible data")
    made = data.make(memory, amounts.size)
    gib = -(-made.size // 2**30)
    failed = 0
    # Deleted objects stay until the garbage is collected: room for two more backups, and a copy of each.
    with running_link() as link, running_rgw(work / "rgw", size_gib=8 + 6 * gib, address=link.address) as server:
        bucket = server.make_bucket("bench")
        policy.grant(server, bucket, "")
        _prepare(plan, server, link, bucket, made, work, say)
        for condition in plan.conditions:
            for tls in plan.tls:
                endpoint = server.tls_endpoint if tls else server.endpoint
                assert endpoint is not None
                port = urlsplit(endpoint).port
                assert port is not None
                with link.condition(condition, port) as route:
                    scheme = "https" if tls else "http"
                    where = f"{scheme}://{route.host}:{route.port}"
                    access = Access(server, bucket, where, server.ca_file if tls else None, made.size, link.prefix)
                    label = condition.name + (" tls" if tls else "")
                    how[label] = route.how
                    say(f"network {label}: {route.how}, {where}")
                    failed += _rounds(plan, Bench(access, link, route, label, made, amounts, work, results), say)
        server.client.close()
    return failed


def _rounds(plan: Plan, bench: Bench, say: Say) -> int:
    failed = 0
    for number in range(1, plan.rounds + 1):
        for name in plan.jobs:
            for tool in plan.tools:
                todo = _turn(tool, name, bench.route)
                if todo is None:
                    continue
                start, before = time.monotonic(), len(bench.results)
                try:
                    todo(bench, number)
                except ToolError as e:
                    failed += 1
                    say(f"round {number} {bench.label} {name} FAILED: {e}")
                if JOBS[name].writes:
                    collect_garbage(bench.directory / "rgw")
                for result in bench.results[before:]:
                    say(_line(result))
                say(f"    {tool} {name}: {time.monotonic() - start:.1f} s in all")
    return failed


def _turn(tool: str, job: str, route: Route) -> Callable[[Bench, int], None] | None:
    """What this tool has to do for this job, None for nothing."""
    if tool in LIMITS:
        # The relay leads to RGW: nothing delays what goes to the sink.
        return None if tool == "sink" and "relay" in route.how else LIMITS[tool].get(job)
    mount = TOOLS[tool]
    if mount.jobs is not None and job not in mount.jobs:
        return None
    return lambda bench, number: JOBS[job].run(bench, mount, number)


def _line(r: Result) -> str:
    unit = " MB/s" if r.size else ""
    cost = f"{r.cpu_s:.2f} CPU-s, {r.rss_peak >> 20} MiB RSS, {r.disk_peak >> 20} MiB disk"
    return f"round {r.round} {r.link:10} {r.job:20} {r.tool:14} {figure(r.seconds, r.size):>9}{unit:5} {cost}"


def _prepare(plan: Plan, server: S3Server, link: Link, bucket: str, made: data.Data, work: Path, say: Say) -> None:
    """What the jobs find in the bucket. s3fsx writes the large files, so that it verifies what it reads of them."""
    wanted = {JOBS[name].needs for name in plan.jobs}
    direct = Access(server, bucket, server.endpoint, None, made.size)
    nowhere = Route(Condition("none"), link.address, 0, "direct")
    bench = Bench(direct, link, nowhere, "prepare", made, plan.amounts, work)
    large = {data.BACKUP: made.size, data.ISO: min(plan.amounts.iso, made.size)}
    if wanted & large.keys():
        say(f"writing {', '.join(sorted(wanted & large.keys()))}")
        with mounted(TOOLS["s3fsx"], direct, bench.fresh(), PREPARE_LIMIT) as mount:
            for name in sorted(wanted & large.keys()):
                (mount.path / name).parent.mkdir(parents=True, exist_ok=True)
                data.write(mount.path / name, made, large[name])
    local = work / LOCAL
    if LOCAL in plan.tools and data.ISO in wanted:
        (local / data.ISO).parent.mkdir(parents=True)
        data.write(local / data.ISO, made, large[data.ISO])
    if metadata.LONG_DIRECTORY in wanted:
        say(f"writing {plan.amounts.entries} entries")
        metadata.fill_long(bench, local)
    os.sync()


def collect_garbage(cluster: Path) -> None:
    """Now and not while the next tool is measured."""
    subprocess.run(
        ["radosgw-admin", "-c", str(cluster / "ceph.conf"), "gc", "process", "--include-all"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    time.sleep(1)
