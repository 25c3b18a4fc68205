"""s3fsx beside s3fs and rclone mount, on a private Ceph RGW, as root:

    apt-get install s3fs zstd iproute2
    .venv/bin/pip install '.[bench]'
    .venv/bin/python -m contrib.bench.compare --quick
    .venv/bin/python -m contrib.bench.compare [--net plain,30ms] [--jobs write,read] [--tools s3fsx,s3fs] [--out DIR]

Tools take turns at each job, A B C A B C, so that what else the machine does hits all of them. See docs/BENCHMARKS.md.
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
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from s3fsx.configuration import values
from tests.rgw import RgwUnavailableError

from . import plot
from .bench import Amounts
from .limits import LIMITS
from .link import CONDITIONS, ROOT, LinkError
from .report import table
from .result import Result, as_json
from .rounds import JOBS, Plan, run
from .targets import target_table
from .tools import TOOLS, ToolError, version

SIZE = values.size(1 << 20)
QUICK = Amounts(256 << 20, 256 << 20, 100, 1000, 100, 40, 3, 60.0)
EVERYTHING = [*TOOLS, *LIMITS]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    full = Amounts()
    parser.add_argument("--quick", action="store_true", help="small amounts and one round: minutes")
    parser.add_argument("--net", default="plain", help=f"of {','.join(CONDITIONS)} (%(default)s)")
    parser.add_argument("--tls", choices=("no", "yes", "both"), default="no", help="https (%(default)s)")
    parser.add_argument("--jobs", default=",".join(JOBS), help="(%(default)s)")
    parser.add_argument("--tools", help=f"the first is 1.00; of {','.join(EVERYTHING)} (those that are installed)")
    parser.add_argument("--rounds", type=int, help="(3; quick: 1)")
    for name, what in (
        ("size", "the backup (4GiB; quick: 256MiB)"),
        ("iso", "the ISO image (1GiB; quick: 256MiB)"),
    ):
        parser.add_argument(f"--{name}", type=_size, help=f"size of {what}")
    for name in ("files", "entries", "backups", "reads", "opens"):
        parser.add_argument(f"--{name}", type=_count, help=f"({getattr(full, name)}; quick: {getattr(QUICK, name)})")
    parser.add_argument(
        "--limit", type=float, help=f"seconds a tool may take ({full.limit:.0f}; quick: {QUICK.limit:.0f})"
    )
    parser.add_argument("--show", type=Path, nargs="+", metavar="DIR", help="measure nothing: earlier runs, together")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="for JSON, tables, plot (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="on a local disk, for caches (%(default)s)")
    return parser.parse_args(given)


def _size(text: str) -> int:
    try:
        return int(SIZE.parse(text))
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("not a number of at least 1")
    return int(text)


def plan(options: argparse.Namespace) -> Plan:
    """Raises ToolError with what is wrong or missing."""
    if os.geteuid() != 0:
        raise ToolError(
            "must run as root: it mounts, makes a network namespace, drops the kernel's caches and resets other "
            "processes' peak memory"
        )
    if shutil.which("zstd") is None:
        raise ToolError("zstd is missing: apt-get install zstd")
    tools = _chosen(options.tools, EVERYTHING, "tool") if options.tools else [*filter(_installed, EVERYTHING)]
    for name in tools:
        if not _installed(name):
            raise ToolError(f"{TOOLS[name].program} is missing, which {name} needs: see docs/BENCHMARKS.md")
    amounts = QUICK if options.quick else Amounts()
    given = {name: getattr(options, name) for name in vars(amounts)}
    return Plan(
        tools,
        _chosen(options.jobs, JOBS, "job"),
        [CONDITIONS[name] for name in _chosen(options.net, CONDITIONS, "network")],
        {"no": (False,), "yes": (True,), "both": (False, True)}[options.tls],
        options.rounds or (1 if options.quick else 3),
        replace(amounts, **{name: value for name, value in given.items() if value is not None}),
    )


def _chosen(text: str, known: Collection[str], what: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise ToolError(f"no such {what}: {name}; there are {', '.join(known)}")
    return names


def _installed(name: str) -> bool:
    return name in LIMITS or TOOLS[name].path() is not None


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


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def save(out: Path, facts: dict[str, object], results: list[Result]) -> str:
    """The tables; JSON, Markdown and the plot are in out."""
    text = f"{table(results)}\n\n{target_table(results)}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({**facts, "results": [*map(as_json, results)]}, indent=1) + "\n")
    (out / "table.md").write_text(text)
    try:
        plot.draw(results, out / "plot.svg")
    except ImportError:
        say("no plot without matplotlib: pip install '.[bench]'")
    return text


def show(directories: Sequence[Path], out: Path) -> int:
    """One table of several runs, each of which had its own --out."""
    try:
        runs = [json.loads((directory / "results.json").read_text()) for directory in directories]
        results = [Result(**result) for run in runs for result in run.pop("results")]
    except (OSError, ValueError, KeyError, TypeError) as e:
        say(f"compare: no results of this benchmark: {e}")
        return 2
    sys.stdout.write(save(out, {"runs": runs}, results))
    return 0


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up, as Ctrl-C does
    options = arguments()
    if options.show:
        return show(options.show, options.out)
    results: list[Result] = []
    how: dict[str, str] = {}
    try:
        todo = plan(options)
        versions = {name: version(TOOLS[name]) for name in todo.tools if name in TOOLS}
        facts = {"pid": os.getpid(), "machine": machine(), "versions": versions, "plan": todo.as_json(), "network": how}
        with (
            tempfile.TemporaryDirectory(prefix="s3fsx-bench-", dir=options.work) as work,
            tempfile.TemporaryDirectory(prefix="s3fsx-bench-", dir="/dev/shm") as memory,
        ):
            failed = run(todo, Path(work), Path(memory), results, how, say)
    except (ToolError, LinkError, RgwUnavailableError) as e:
        say(f"compare: {e}")
        return 2
    except KeyboardInterrupt:
        say("compare: interrupted")
        failed = 1
    if results:
        sys.stdout.write(save(options.out, facts, results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
