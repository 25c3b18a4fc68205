"""The jobs: a backup as vzdump writes it, the same read back, and both by plain boto3 as the limit to approach."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from botocore.exceptions import ClientError

from tests import policy
from tests.mount.harness import environment
from tests.s3server import S3Server

from .meter import Meter
from .tools import Mounted, Tool, ToolError, mounted

IO = 128 << 10  # what zstd writes and reads per call
ROOT = Path(__file__).parents[2]
KEY = "dump/vzdump-qemu-100-2026_01_01-00_00_00.vma.zst"
TEMPORARY = "dump/vzdump-qemu-100-2026_01_01-00_00_00.vma.dat"
IN_BUCKET_LIMIT = 300.0  # seconds after the rename; what is not there then counts as lost
POLL = 0.02
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Source:
    """The backup: incompressible bytes in memory (path is on tmpfs), beginning as a zstd stream does."""

    path: Path
    size: int
    sha256: str

    @classmethod
    def make(cls, path: Path, size: int) -> Source:
        digest = hashlib.sha256()
        with path.open("wb") as file:
            left = size
            while left:
                block = os.urandom(min(left, 4 << 20))
                if left == size:
                    block = ZSTD_MAGIC + block[len(ZSTD_MAGIC) :]
                digest.update(block)
                file.write(block)
                left -= len(block)
        return cls(path, size, digest.hexdigest())


@dataclass(frozen=True)
class Result:
    """One job of one tool in one round. Seconds, bytes; rates are MB/s (10^6). steps: seconds of each step."""

    tool: str
    job: str
    round: int
    size: int
    mb_s: float
    cpu_s_per_gib: float
    rss_peak: int
    disk_peak: int
    steps: dict[str, float]
    requests: dict[str, int]


class Bench:
    """Runs jobs against one bucket; the landing zone of reads is faulted in once, so that it costs no reader time."""

    def __init__(self, server: S3Server, source: Source, directory: Path) -> None:
        self._server = server
        self._source = source
        self._directory = directory
        self._bucket = server.make_bucket("bench")
        policy.grant(server, self._bucket, "")
        self._numbers = 0
        self._landing = mmap.mmap(-1, source.size)
        for page in range(0, source.size, mmap.PAGESIZE):
            self._landing[page] = 1

    def round(self, tool: Tool, number: int) -> list[Result]:
        """Write, cold read, delete. Raises ToolError."""
        with mounted(tool, self._server, self._bucket, self._fresh()) as mount:
            written = self._write(tool, mount, number)
        _drop_caches()
        with mounted(tool, self._server, self._bucket, self._fresh()) as mount:
            read = self._read(tool, mount, number)
        self._server.client.delete_object(Bucket=self._bucket, Key=KEY)
        return [written, read]

    def raw(self, number: int) -> list[Result]:
        """The same bytes with boto3 alone: 4 threads x 8 MiB parts, payload signed."""
        results = []
        for job in ("write", "read"):
            mark = self._server.mark(self._bucket)
            arguments = [self._server.endpoint, self._server.region, self._bucket, KEY, str(self._source.path)]
            done = subprocess.run(
                [sys.executable, "-m", "contrib.bench.raw", job, *arguments],
                capture_output=True,
                text=True,
                env=environment(self._server),
                cwd=ROOT,
                timeout=600,
                check=False,
            )
            if done.returncode:
                raise ToolError(f"boto3: {done.stderr[-2000:]}")
            said = json.loads(done.stdout)
            results.append(
                self._result(
                    "boto3",
                    job,
                    number,
                    said["seconds"],
                    said["cpu_s"],
                    (said["rss_peak"], 0),
                    {"in_bucket" if job == "write" else "read": said["seconds"]},
                    self._server.requests_since(mark, self._bucket),
                )
            )
        self._server.client.delete_object(Bucket=self._bucket, Key=KEY)
        return results

    def _fresh(self) -> Path:
        self._numbers += 1
        return self._directory / f"mount{self._numbers}"

    def _write(self, tool: Tool, mount: Mounted, number: int) -> Result:
        temporary, final = mount.path / TEMPORARY, mount.path / KEY
        final.parent.mkdir(exist_ok=True)
        mark = self._server.mark(self._bucket)
        steps: dict[str, float] = {}
        with Meter(mount.pid, [mount.home]) as meter:
            start = last = time.monotonic()

            def step(name: str) -> None:
                nonlocal last
                now = time.monotonic()
                steps[name] = now - last
                last = now

            target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                _copy_to(self._source.path, target)
                step("write")
            finally:
                os.close(target)
            step("close")
            os.rename(temporary, final)
            step("rename")
            asked = self._await_object(tool, start)
            step("in_bucket_after")
        steps["in_bucket"] = last - start
        requests = self._server.requests_since(mark, self._bucket)
        requests["HEAD"] -= asked
        cost = meter.cost()
        return self._result(
            tool.name,
            "write",
            number,
            steps["in_bucket"],
            cost.cpu_s,
            (cost.rss_peak, cost.disk_peak),
            steps,
            requests,
        )

    def _await_object(self, tool: Tool, start: float) -> int:
        """Until the object is whole under its final name; how many HEADs that took (they are ours, not the tool's)."""
        asked = 0
        limit = time.monotonic() + IN_BUCKET_LIMIT
        while time.monotonic() < limit:
            asked += 1
            try:
                if self._server.client.head_object(Bucket=self._bucket, Key=KEY)["ContentLength"] == self._source.size:
                    return asked
            except ClientError as e:
                if e.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
            time.sleep(POLL)
        raise ToolError(f"{tool.name}: {KEY} is not whole in the bucket {IN_BUCKET_LIMIT:.0f} s after the rename")

    def _read(self, tool: Tool, mount: Mounted, number: int) -> Result:
        mark = self._server.mark(self._bucket)
        with Meter(mount.pid, [mount.home]) as meter:
            start = time.monotonic()
            received = _copy_from(mount.path / KEY, self._landing)
            seconds = time.monotonic() - start
        cost = meter.cost()
        with memoryview(self._landing) as view:
            same = received == self._source.size and hashlib.sha256(view).hexdigest() == self._source.sha256
        if not same:
            raise ToolError(f"{tool.name}: read back {received} bytes that are not what was written")
        requests = self._server.requests_since(mark, self._bucket)
        peaks = (cost.rss_peak, cost.disk_peak)
        return self._result(tool.name, "read", number, seconds, cost.cpu_s, peaks, {"read": seconds}, requests)

    def _result(
        self,
        tool: str,
        job: str,
        number: int,
        seconds: float,
        cpu_s: float,
        peaks: tuple[int, int],
        steps: dict[str, float],
        requests: Counter[str],
    ) -> Result:
        size = self._source.size
        asked = {kind: count for kind, count in sorted(requests.items()) if count}
        return Result(tool, job, number, size, size / seconds / 1e6, cpu_s / (size / 2**30), *peaks, steps, asked)


def as_json(result: Result) -> dict[str, object]:
    return asdict(result)


def _copy_to(source: Path, target: int) -> None:
    buffer = memoryview(bytearray(IO))
    with source.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            sent = 0
            while sent < got:
                sent += os.write(target, buffer[sent:got])


def _copy_from(source: Path, landing: mmap.mmap) -> int:
    done = 0
    with source.open("rb", buffering=0) as file, memoryview(landing) as view:
        while done < len(view) and (got := file.readinto(view[done : done + IO])):
            done += got
    return done


def _drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("3")
