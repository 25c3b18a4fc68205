"""What every job gets: the bucket with its contents, mounts of the tool whose turn it is, and a way to measure."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .data import Data
from .link import Link, Route
from .meter import Cost, Meter
from .result import Result
from .tools import LOCAL, Access, Mounted, Tool, ToolError, mounted

POLL = 0.02


@dataclass(frozen=True)
class Amounts:
    """size, iso: bytes of the backup and the ISO image. files, entries, backups: how many small files are written, are
    in the long directory, are pruned. reads: random reads of each size. opens: first bytes. limit: seconds that one
    mount of a tool may take."""

    size: int = 4 << 30
    iso: int = 1 << 30
    files: int = 1000
    entries: int = 10_000
    backups: int = 1000
    reads: int = 200
    opens: int = 5
    limit: float = 300.0


class Measurement:
    """Of a job under way. seconds: set by the job, or the sum of the steps. size: see Result. ours: requests by kind
    that the job itself made, to look whether the bucket has it."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self.seconds: float | None = None
        self.size = 0
        self.ours: Counter[str] = Counter()
        self._last = time.monotonic()

    def start(self) -> None:
        self._last = time.monotonic()

    def step(self, name: str) -> None:
        """What happened since the last one, or since the start, was this."""
        now = time.monotonic()
        self.steps[name] = now - self._last
        self._last = now


@dataclass
class Bench:
    """One condition of the network. directory: on a local disk. results: grows with each ``measure``."""

    access: Access
    link: Link
    route: Route
    label: str
    data: Data
    amounts: Amounts
    directory: Path
    results: list[Result] = field(default_factory=list)
    _numbers: int = 0

    @property
    def client(self) -> Any:
        """boto3 on the store's side of the link."""
        return self.access.server.client

    @property
    def bucket(self) -> str:
        return self.access.bucket

    def fresh(self) -> Path:
        """A directory where no mount has left anything."""
        self._numbers += 1
        return self.directory / f"{self.label.replace(' ', '-')}-{self._numbers}"

    @contextmanager
    def mounted(self, tool: Tool) -> Iterator[Mounted]:
        """A mount with nothing cached, by the tool or the kernel. The local directory is always the same."""
        drop_caches()
        if tool.name == LOCAL:
            try:
                yield Mounted(self.directory / LOCAL, None, self.directory / LOCAL, stores=False)
            except (OSError, subprocess.SubprocessError, ValueError) as e:
                raise ToolError(f"{LOCAL}: {e}") from e
            return
        with mounted(tool, self.access, self.fresh(), self.amounts.limit) as mount:
            yield mount

    @contextmanager
    def measure(self, tool: str, job: str, number: int, mount: Mounted | None = None) -> Iterator[Measurement]:
        """Measures the block, whose result is added when it succeeds. Without a mount the cost is that of nobody."""
        server, bucket = self.access.server, self.bucket
        measurement = Measurement()
        mark = server.mark(bucket)
        before = self.link.counters()
        if mount and mount.pid is not None:
            with Meter(mount.pid, [mount.home]) as meter:
                measurement.start()
                yield measurement
            cost = meter.cost()
        else:
            measurement.start()
            yield measurement
            cost = Cost(0.0, 0, 0)
        wire = self.link.counters() - before
        requests = server.requests_since(mark, bucket)
        requests.subtract(measurement.ours)
        seconds = sum(measurement.steps.values()) if measurement.seconds is None else measurement.seconds
        self.add(tool, job, number, seconds, cost, measurement, requests, wire.sent, wire.received)

    def add(
        self,
        tool: str,
        job: str,
        number: int,
        seconds: float,
        cost: Cost,
        measurement: Measurement,
        requests: Counter[str],
        sent: int,
        received: int,
    ) -> None:
        asked = {kind: count for kind, count in sorted(requests.items()) if count > 0}
        self.results.append(
            Result(
                self.label,
                tool,
                job,
                number,
                max(seconds, 1e-9),
                measurement.size,
                cost.cpu_s,
                cost.rss_peak,
                cost.disk_peak,
                measurement.steps,
                asked,
                sent,
                received,
            )
        )

    def sizes(self, prefix: str, ours: Counter[str]) -> dict[str, int]:
        """Keys below prefix and the size of each, as the bucket has them now. Counts the requests into ours."""
        found: dict[str, int] = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            ours["LIST"] += 1
            found |= {entry["Key"]: entry["Size"] for entry in page.get("Contents", ())}
        return found

    def await_bucket(self, prefix: str, true: Callable[[dict[str, int]], bool], what: str, ours: Counter[str]) -> None:
        """Until what the bucket has below prefix is as it should. Raises ToolError after the limit."""
        end = time.monotonic() + self.amounts.limit
        while not true(self.sizes(prefix, ours)):
            if time.monotonic() > end:
                raise ToolError(f"not in the bucket {self.amounts.limit:.0f} s later: {what}")
            time.sleep(POLL)

    @contextmanager
    def cleared(self, prefix: str) -> Iterator[None]:
        """Nothing is below prefix at the start, or what a tool that failed has left would pass for the next one's; and
        nothing afterwards."""
        self._delete(prefix)
        try:
            yield
        finally:
            self._delete(prefix)

    def _delete(self, prefix: str) -> None:
        """Everything below prefix, unfinished uploads too, by the owner."""
        for upload in self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix).get("Uploads", ()):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                self.client.delete_object(Bucket=self.bucket, Key=entry["Key"])


def drop_caches() -> None:
    """The kernel's: pages, names, inodes. Dirty pages would stay, so they are written first."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def call(command: list[str], limit: float) -> str:
    """Standard output of a program. Raises ToolError, with its error output, when it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as e:
        raise ToolError(f"{command[0]}: not done after {limit:.0f} s") from e
    if done.returncode:
        raise ToolError(f"{command[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout
