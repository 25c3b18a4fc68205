"""s3fsx beside s3fs and rclone mount, on a private Ceph RGW, as root:

    apt-get install s3fs rclone
    .venv/bin/python -m contrib.bench.compare [--size 2GiB] [--rounds 3] [--tools s3fsx,s3fs] [--out DIR]

Tools take turns, A B C D A B C D, so that what else the machine does hits all of them. Needs about three times the
size in RAM, five with tools that copy. See docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from s3fsx import values
from tests.rgw import RgwUnavailableError, running_rgw

from .jobs import ROOT, Bench, Result, Source, as_json
from .report import table
from .tools import TOOLS, ToolError, version

RAW = "boto3"
SIZE = values.size(16 << 20)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=SIZE.parse, default=2 << 30, help="of the backup (2GiB)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tools", default=",".join([*TOOLS, RAW]), help="in this order; the first is 1.00 (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="directory for JSON and table")
    parser.add_argument("--work", type=Path, help="a directory on a local disk for the tools' caches (/var/tmp)")
    return parser.parse_args()


def check(tools: list[str]) -> None:
    """Raises ToolError with what is missing."""
    if os.geteuid() != 0:
        raise ToolError("must run as root: it mounts and drops the kernel's caches")
    for name in tools:
        if name != RAW and name not in TOOLS:
            raise ToolError(f"no such tool: {name}; there are {', '.join([*TOOLS, RAW])}")
        if name != RAW and shutil.which(TOOLS[name].program) is None:
            raise ToolError(f"{TOOLS[name].program} is missing: apt-get install {TOOLS[name].program}")


def machine() -> dict[str, object]:
    memory = Path("/proc/meminfo").read_text().split()[1]
    model = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "cpu": model[0] if model else platform.machine(),
        "ram_mib": int(memory) >> 10,
        "load": os.getloadavg(),
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip(),
    }


def run(tools: list[str], size: int, rounds: int, work: Path, memory: Path) -> list[Result]:
    """All rounds; prints each result as it comes. A tool that fails is reported and has no result in that round."""
    results: list[Result] = []
    say(f"writing {size >> 20} MiB of incompressible data to {memory}")
    source = Source.make(memory / "source", size)
    # Deleted objects stay for ten seconds and more (RGW's garbage collection): room for a few of them, and copies.
    with running_rgw(work / "rgw", size_gib=8 + 6 * -(-size // 2**30)) as server:
        bench = Bench(server, source, work)
        for number in range(1, rounds + 1):
            for name in tools:
                try:
                    made = bench.raw(number) if name == RAW else bench.round(TOOLS[name], number)
                except ToolError as e:
                    say(f"round {number}: {e}")
                    made = []
                for result in made:
                    say(
                        f"round {number} {name:14} {result.job:5} {result.mb_s:6.0f} MB/s "
                        f"{result.cpu_s_per_gib:5.2f} CPU-s/GiB {result.rss_peak >> 20:5} MiB RSS "
                        f"{result.disk_peak >> 20:5} MiB disk"
                    )
                results += made
                collect_garbage(work / "rgw")
        server.client.close()
    return results


def collect_garbage(cluster: Path) -> None:
    """Now and not while the next tool is measured."""
    subprocess.run(
        ["radosgw-admin", "-c", str(cluster / "ceph.conf"), "gc", "process", "--include-all"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    time.sleep(1)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up, as Ctrl-C does
    options = arguments()
    tools = options.tools.split(",")
    try:
        check(tools)
        facts = machine()
        with (
            tempfile.TemporaryDirectory(prefix="s3fsx-bench-", dir=options.work or "/var/tmp") as work,
            tempfile.TemporaryDirectory(prefix="s3fsx-bench-", dir="/dev/shm") as memory,
        ):
            results = run(tools, options.size, options.rounds, Path(work), Path(memory))
    except (ToolError, RgwUnavailableError) as e:
        say(f"compare: {e}")
        return 1
    versions = {name: version(TOOLS[name]) for name in tools if name in TOOLS}
    text = table(results)
    options.out.mkdir(parents=True, exist_ok=True)
    everything = {"machine": facts, "versions": versions, "size": options.size, "results": [*map(as_json, results)]}
    (options.out / "results.json").write_text(json.dumps(everything, indent=1) + "\n")
    (options.out / "table.md").write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0 if len(results) == 2 * len(tools) * options.rounds else 1


if __name__ == "__main__":
    sys.exit(main())
