"""Days of backups in minutes, with everything that can go wrong: does s3fsx keep what it promised? As root:

    .venv/bin/python -m contrib.soak [--minutes 30] [--seed 1] [--out DIR]
    .venv/bin/python -m contrib.soak --source s3-backup      # a bucket of yours: see below

Two nodes mount one bucket. On the first, guests are backed up as vzdump does it (VMs and a container: .dat, early
closes, rename to .zst, notes, protected, log), pruned by keep-last, ISO images are uploaded, replaced and removed; on
both, backups are restored and compared; on the second, the directory is listed all the time. Meanwhile, at moments
drawn from the seed, the store is stopped (SIGSTOP) or killed and started again, the first node's daemon is killed
(kill -9) and mounted again, or unmounted cleanly. df is asked twice a second.

It ends with a ledger: what was written, acknowledged, verified, injected and survived, how slow df was at worst, and
what must be 0: lost, damaged, half visible, hangs, errors without a fault, left-over uploads. It is printed as JSON and
written to DIR/ledger.json with the logs of both nodes. Exit code 1 when one of those is not 0, 2 when the run could not
be made.

Without --source it starts a Ceph RGW of its own (contrib/rgw.py; some GiB of RAM). With --source, what ``s3fsx mount``
takes and with the same configuration, it works below a prefix of its own there, which it deletes in the end; nothing is
done to that store, only the daemon is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from s3fsx.errors import S3fsxError

from .content import Content
from .ledger import Ledger
from .node import DfProbe, Node, SoakError, environment, is_mountpoint
from .store import Bucket, Rgw, own_rgw, wait_for
from .traffic import Gate, Guest, Images, Observer, Restorer, Worker

# Short limits, so that an outage of seconds is one and much happens in an hour. Only for our own store.
LIMITS = {
    "connect_timeout": "1s",
    "read_timeout": "3s",
    "metadata_deadline": "5s",
    "read_deadline": "10s",
    "write_deadline": "20s",
    "publish_deadline": "40s",
    "list_ttl": "1s",
    "attr_ttl": "1s",
}
FAULT_EVERY = (6.0, 18.0)  # seconds
OUTAGE = (1.0, 20.0)
GRACE = 12.0  # seconds after a fault in which errors still belong to it: promised are 10 until it is found to be over
DF_HANG = 15.0
GARBAGE_EVERY = 60.0
UPLOADS_GONE = 200.0  # an upload that could not be aborted is tried again every 60 s


@dataclass
class Soak:
    """One run. rgw: None for a given bucket, which gets no faults."""

    ledger: Ledger
    draw: random.Random
    nodes: tuple[Node, Node]
    bucket: Bucket
    rgw: Rgw | None
    gate: Gate
    workers: list[Worker]

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=worker.loop, daemon=True) for worker in self.workers]
        probe = DfProbe(self.nodes[0].path)
        self.df_at = time.monotonic()
        df = threading.Thread(target=self._watch_df, args=(probe,), daemon=True)
        watch = threading.Thread(target=self._watch_hangs, daemon=True)
        end = time.monotonic() + seconds
        try:
            for thread in (*threads, df, watch):
                thread.start()
            self._disturb(end)
            say("time is up: letting everybody finish")
            self.gate.finish()
            for thread in threads:
                thread.join(self.bucket.hang + 30)
        finally:
            self.gate.finish()
            probe.close()
        self.final_check()

    # -- faults

    def _disturb(self, end: float) -> None:
        kinds = ["kill", "kill", "remount"] + (["stop", "stop", "restart"] if self.rgw else [])
        told = garbage = time.monotonic()
        while True:
            pause = time.monotonic() + self.draw.uniform(*FAULT_EVERY)
            while time.monotonic() < min(pause, end):
                time.sleep(0.5)
                for node in self.nodes:
                    node.sample()
                if time.monotonic() - told > 15:
                    told = time.monotonic()
                    say(self.progress())
            if time.monotonic() >= end:
                return
            kind = self.draw.choice(kinds)
            if kind == "kill":
                self._kill()
            elif kind == "remount":
                self._remount()
            else:
                self._outage(kind)
            if self.rgw and time.monotonic() - garbage > GARBAGE_EVERY:
                garbage = time.monotonic()
                self.rgw.collect_garbage()

    def _fault(self, kind: str) -> None:
        self.gate.fault_since, self.gate.fault_until = time.monotonic(), float("inf")
        self.ledger.fault(kind)

    def _fault_over(self) -> None:
        self.gate.fault_until = time.monotonic() + GRACE

    def _outage(self, kind: str) -> None:
        assert self.rgw is not None
        seconds = self.draw.uniform(*OUTAGE)
        self._fault(kind)
        begun = time.monotonic()
        if kind == "stop":
            self.rgw.stop()
            try:
                time.sleep(seconds)
            finally:
                self.rgw.go_on()
        else:
            self.rgw.kill()
            time.sleep(seconds)
            self.rgw.restart()
        self.ledger.add("outages")
        self.ledger.add("outage_seconds", round(time.monotonic() - begun))
        self._fault_over()

    def _kill(self) -> None:
        """kill -9 of the first node's daemon, in the middle of whatever it does, and the next mount."""
        node = self.nodes[0]
        self._fault("kill")
        node.kill()
        if not self.gate.shut(self.bucket.hang):
            self.ledger.found("hangs", "not everybody got an error when the daemon was killed")
        node.detach()
        node.mount()
        self._fault_over()
        self.ledger.add("kills_survived")
        self.check_listing(node)
        self.gate.open()

    def _remount(self) -> None:
        """A clean unmount when everybody has finished what he was at, and the next mount."""
        node = self.nodes[0]
        if self.gate.shut(self.bucket.hang):
            self.ledger.fault("remount")
            node.umount()
            node.mount()
            self.check_listing(node)
        else:
            self.ledger.found("hangs", "not everybody was done before an unmount")
        self.gate.open()

    # -- looking

    def check_listing(self, node: Node) -> None:
        """Nothing of what was promised is missing after a restart, and nothing has another size."""
        for directory in ("dump", "template/iso"):
            try:
                sizes = {f"{directory}/{e.name}": e.stat().st_size for e in os.scandir(node.path / directory)}
            except OSError as e:
                if not self.gate.excuses(time.monotonic()):
                    self.ledger.found("errors_without_a_fault", f"listing after a mount: {e}")
                return
            self._compare(sizes, directory, "after a mount")

    def _compare(self, sizes: dict[str, int], directory: str, when: str) -> None:
        with self.ledger.lock:
            for path, content in self.ledger.files(f"{directory}/").items():
                if path not in sizes:
                    self.ledger.found("lost", f"{path}: acknowledged, not there {when}")
                elif sizes[path] != content.size:
                    self.ledger.found("damaged", f"{path}: {sizes[path]} of {content.size} bytes {when}")
            for path, size in sizes.items():
                if path in self.ledger.acknowledged or not path.startswith(f"{directory}/"):
                    continue
                possible = self.ledger.uncertain.get(path)
                if possible is None or size not in [content.size for content in possible.contents]:
                    self.ledger.found("half_visible", f"{path}: {size} bytes {when}")

    def final_check(self) -> None:
        """Past every mount: what is in the bucket, byte by byte."""
        say("unfinished uploads go")
        root = self.nodes[0].path
        for pattern in ("dump/*.dat", "dump/*.tmp.*", "template/iso/*.tmp_dwnl.*"):
            for temporary in root.glob(pattern):  # of jobs that could not tidy up after a kill
                self.workers[0].unlink(root, str(temporary.relative_to(root)))
        if not wait_for(lambda: not self.bucket.uploads(), UPLOADS_GONE):
            for key in self.bucket.uploads():
                self.ledger.found("left_over_uploads", key)
        for node in self.nodes:
            node.umount()
        say("comparing everything in the bucket")
        sizes = self.bucket.sizes()
        for directory in ("dump", "template/iso"):
            self._compare(sizes, directory, "in the end")
        for path, content in self.ledger.files("").items():
            if path in sizes:
                self._check_object(path, [content])
        for path, possible in self.ledger.uncertain.items():
            if path in sizes:
                self._check_object(path, [c for c in possible.contents if c.size == sizes[path]])
            elif not possible.absent:
                self.ledger.found("lost", f"{path}: was being replaced, and neither the old nor the new is there")
        self.ledger.add("files_compared_in_the_end", len(sizes))
        for key in self.bucket.uploads():
            self.ledger.found("left_over_uploads", f"{key}, after the unmount")

    def _check_object(self, path: str, contents: list[Content]) -> None:
        differences = [self.bucket.difference(path, content) for content in contents]
        if "" not in differences:
            self.ledger.found("damaged", f"{path}: {', '.join(differences)}")
        else:
            self.ledger.add("bytes_verified", contents[differences.index("")].size)

    def _watch_df(self, probe: DfProbe) -> None:
        while (answer := probe.next()) is not None:
            seconds, blocks = answer
            self.df_at = time.monotonic()
            if blocks >= 0:
                self.ledger.at_worst("worst_df_ms", seconds * 1000)
                self.ledger.add("df_asked")
                self.ledger.add("df_said_inactive", blocks == 0)

    def _watch_hangs(self) -> None:
        """A system call that lasts longer than every deadline together. The daemon's end frees whoever hangs in it."""
        while not self.gate.over.wait(1):
            now = time.monotonic()
            stuck = [w for w in self.workers if w.busy_since is not None and now - w.busy_since > self.bucket.hang]
            for worker in stuck:
                self.ledger.found("hangs", f"{worker.name}: {worker.doing} for {self.bucket.hang:.0f} s")
            if now - self.df_at > DF_HANG and is_mountpoint(self.nodes[0].path):
                self.ledger.found("hangs", f"df for {now - self.df_at:.0f} s")
                self.df_at = now

    def progress(self) -> str:
        counts, faults = self.ledger.counts, self.ledger.faults
        return (
            f"{counts['backups']} backups, {counts['images']} images, {counts['restores']} restores, "
            f"{counts['bytes_written'] >> 20} MiB written, {counts['bytes_verified'] >> 20} MiB verified, "
            f"faults {dict(faults)}, df {self.ledger.worst.get('worst_df_ms', 0):.0f} ms at worst, "
            f"RSS {max(n.rss_peak for n in self.nodes) >> 20} MiB, findings {dict(self.ledger.findings)}"
        )


def team(ledger: Ledger, gate: Gate, seed: int, nodes: tuple[Node, Node], settled: float) -> list[Worker]:
    def common(name: str, number: int) -> tuple[str, Ledger, Gate, random.Random]:
        return name, ledger, gate, random.Random(seed * 1000 + number)

    first, second = (node.path for node in nodes)
    guests = [Guest(*common(f"guest {100 + n}", n), root=first, vmid=100 + n, container=n == 2) for n in range(4)]
    return [
        *guests,
        Images(*common("images", 10), root=first),
        Restorer(*common("restore 1", 20), roots=(first, second), settled=settled),
        Restorer(*common("restore 2", 21), roots=(second,), settled=settled),
        Observer(*common("second node", 30), root=second, settled=settled),
    ]


def soak(options: argparse.Namespace, work: Path, stack: ExitStack) -> Ledger:
    rgw: Rgw | None = None
    if options.source:
        source, env = options.source, environment()
        prefix = f"s3fsx-soak-{int(time.time())}"
        limits: dict[str, object] = {"prefix": prefix}
    else:
        rgw, source, env = stack.enter_context(own_rgw(work, options.gib))
        limits = dict(LIMITS)
    try:
        bucket = Bucket(source, [f"{k}={v}" for k, v in limits.items()], env)
    except S3fsxError as e:
        raise SoakError(str(e)) from None
    stack.callback(bucket.close)
    if rgw is not None:
        bucket.create()
    else:
        stack.callback(bucket.delete_all)
    nodes = (Node(work / "node1", source, limits, env), Node(work / "node2", source, limits, env))
    stack.callback(keep_logs, nodes, options.out)
    for node in nodes:
        stack.callback(node.tear_down)
        node.mount()
    ledger, gate = Ledger(options.seed), Gate()
    workers = team(ledger, gate, options.seed, nodes, bucket.settled)
    run = Soak(ledger, random.Random(options.seed), nodes, bucket, rgw, gate, workers)
    run.run(options.minutes * 60)
    for node in nodes:
        ledger.at_worst("peak_rss_mib", node.rss_peak / 2**20)
    return ledger


def keep_logs(nodes: tuple[Node, Node], out: Path) -> None:
    for number, node in enumerate(nodes, 1):
        if node.log.exists():
            shutil.copy(node.log, out / f"node{number}.log")
        for journal in node.path.parent.glob("state/*/journal.sqlite"):
            shutil.copy(journal, out / f"node{number}.journal")


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main() -> int:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=summary + rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1, help="draws sizes, faults and their moments (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("soak-results"), help="directory for ledger and logs")
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp"), help="where mounts and server live (%(default)s)"
    )
    parser.add_argument("--source", help="a bucket of yours, as s3fsx mount takes it")
    parser.add_argument("--gib", type=int, default=16, help="room of our own store, in RAM as it fills (%(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        say("soak: must run as root: it mounts")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up, as Ctrl-C does
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="s3fsx-soak-", dir=options.work) as work, ExitStack() as stack:
            ledger = soak(options, Path(work), stack)
    except SoakError as e:
        say(f"soak: {e}")
        return 2
    report = json.dumps(ledger.report(), indent=1)
    (options.out / "ledger.json").write_text(report + "\n")
    sys.stdout.write(report + "\n")
    return 0 if ledger.good else 1


if __name__ == "__main__":
    sys.exit(main())
