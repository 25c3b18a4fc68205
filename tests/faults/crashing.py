"""A mount that is killed again and again, the programs that use it, and the oracle after each restart:

- what returned success is there, byte for byte, through the mount and through boto3;
- every other object in the bucket is a content that some program meant to have under that name, whole;
- the journal has records of files that wait for their rename and of nothing else, and none when these are renamed;
- no upload of ours is left, and those of others are untouched.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.checklogs import LogWatch
from tests.exchange import Exchange
from tests.faultproxy import FaultProxy, Rule
from tests.faults.ledger import Content, Ledger
from tests.faults.warm import Warm, WarmProcess
from tests.mount.harness import Mount, environment, eventually
from tests.s3server import S3Server

PART = 5 << 20  # S3's smallest
# The deadline: a busy machine must not look like an outage.
OPTIONS = {"part_size": "5MiB", "list_ttl": "0.2s", "attr_ttl": "0.2s", "metadata_deadline": "40s"}
BELOW = "^pve/dump/"  # the keys of programs, not those s3fsx has for itself
START_LIMIT = 60.0  # seconds


def noise(size: int, seed: int) -> bytes:
    """No two contents are alike; the first bytes are those of zstd, for the prediction of names."""
    return (b"\x28\xb5\x2f\xfd" + random.Random(seed).randbytes(size))[:size]


class Program:
    """The calls of one program below dump/, with their promises. A call ends with OSError when the mount is killed."""

    def __init__(self, dump: Path, ledger: Ledger) -> None:
        self.dump = dump
        self.ledger = ledger

    def write(self, name: str, data: bytes, *, flags: int = os.O_TRUNC, waits: bool = False) -> None:
        """Create or truncate; with O_APPEND data is what comes behind the content there is."""
        old = self.ledger.content(name) or b""
        with self.ledger.writing(name, old + data if flags & os.O_APPEND else data, waits=waits):
            fd = os.open(self.dump / name, os.O_WRONLY | os.O_CREAT | flags, 0o644)
            try:
                for start in range(0, len(data), 1 << 20):
                    os.write(fd, data[start : start + (1 << 20)])
            finally:
                os.close(fd)

    def append(self, name: str, data: bytes) -> None:
        self.write(name, data, flags=os.O_APPEND)

    def temporary(self, name: str, data: bytes) -> None:
        self.write(name, data, waits=True)

    def rename(self, old: str, new: str) -> None:
        with self.ledger.renaming({old: new}):
            (self.dump / old).rename(self.dump / new)

    def rename_directory(self, old: str, new: str) -> None:
        below = [name for name in self.ledger.names() if name.startswith(f"{old}/")]
        with self.ledger.renaming({name: new + name.removeprefix(old) for name in below}):
            (self.dump / old).rename(self.dump / new)

    def unlink(self, name: str) -> None:
        with self.ledger.removing(name):
            (self.dump / name).unlink()

    def touch(self, name: str) -> None:
        """As Proxmox makes ``.protected``: opened for reading, created, closed."""
        with self.ledger.writing(name, b""):
            os.close(os.open(self.dump / name, os.O_RDONLY | os.O_CREAT, 0o644))

    def read(self, name: str) -> None:
        """What was promised comes back."""
        assert (self.dump / name).read_bytes() == self.ledger.content(name)


class CrashMount(Mount):
    """Started warm, and with what a kill needs."""

    watchdog = 24 * 3600.0  # the second node lives as long as all kills take

    def __init__(self, server: S3Server, bucket: str, home: Path, watch: LogWatch, endpoint: str, warm: Warm) -> None:
        super().__init__(server, bucket, "pve/", home, watch, {**OPTIONS, "endpoint": endpoint})
        self._warm = warm

    def _launch(self, arguments: Sequence[str]) -> WarmProcess:
        return self._warm.start(arguments, self.output_file)

    def start_under_fire(self) -> bool:
        """A start that may be killed in the middle: whether it came up."""
        try:
            self.start()
        except AssertionError:
            assert self.process is not None
            assert self.process.poll() == -9, self.output()
            self.kill9()
            return False
        return True

    def umount_under_fire(self) -> None:
        """umount(8) returns at once; the daemon dies while it publishes what waits."""
        subprocess.run(["umount", str(self.path)], check=True, capture_output=True, timeout=30)
        assert self._wait(START_LIMIT) == -9, self.output()
        self._forget()

    @property
    def journal_file(self) -> Path:
        (path,) = Path(str(self.options["state_dir"])).glob("*/journal.sqlite")
        return path

    def journal(self) -> dict[str, list[dict[str, object]]]:
        """Every row of every table, read beside the daemon."""
        with contextlib.closing(sqlite3.connect(f"file:{self.journal_file}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {table: [dict(row) for row in db.execute(f"SELECT * FROM {table}")] for table in tables}


@dataclass(frozen=True)
class Kill:
    """The power cut when a request arrives, or when its effect is there and its answer is not."""

    node: Node
    effect: bool

    def run(self, exchange: Exchange) -> None:
        if self.effect:
            exchange.forward()
            exchange.swallow()
        self.node.kill()
        exchange.hang_up()


class Node:
    """One machine. others: uploads in the bucket that are not ours. tally: what the summary of the run shows."""

    def __init__(self, mount: CrashMount, proxy: FaultProxy, tally: Counter[str]) -> None:
        self.mount = mount
        self.proxy = proxy
        self.tally = tally
        self.ledgers: list[Ledger] = []
        self.killed = False
        self.in_test = False
        self.others = self._uploads()

    def program(self) -> Program:
        self.ledgers.append(Ledger())
        return Program(self.mount.path / "dump", self.ledgers[-1])

    def kill(self) -> None:
        """Only the signal: programs are still in their calls."""
        self.killed = True
        self.tally["kills"] += 1
        self.mount.process.kill()  # type: ignore[union-attr]

    @contextlib.contextmanager
    def dying(self, kind: str, *, effect: bool, skip: int = 0) -> Iterator[None]:
        """A block whose calls may fail because the mount is killed at that request, and in which it is killed."""
        with self.proxy.fault(Rule(Kill(self, effect), {kind}, key=BELOW, skip=skip, times=1)):
            with contextlib.suppress(OSError):
                yield
            assert self.killed, f"no {kind} number {skip}"

    def survive(self) -> None:
        """The restart, and everything the oracle says."""
        self.fall()
        self.mount.start()
        self.check()

    def fall(self) -> None:
        self.mount.kill9()
        self.killed = False

    def killed_in_replay(self, skip: int, *, effect: bool) -> bool:
        """A start that is killed at its request number ``skip`` for anything below dump/; False: it came up before."""
        rule = Rule(Kill(self, effect), key=f"{BELOW}|^$", skip=skip + 1, times=1)
        with self.proxy.fault(rule):
            return not self.mount.start_under_fire()

    @contextlib.contextmanager
    def test(self) -> Iterator[Node]:
        """One test's use of the node, which is empty before and after it, also after a test that failed."""
        if self.in_test:
            self.wipe()
        self.in_test = True
        yield self
        for ledger in self.ledgers:
            program = Program(self._dump, ledger)
            for name in ledger.names():
                program.unlink(name)
        self.check()
        self.ledgers.clear()
        self.in_test = False

    def wipe(self) -> None:
        """Nothing of a test that failed is left for the next one to trip over."""
        if self.mount.process is not None:
            self.fall()
        self.proxy.clear()
        self.ledgers.clear()
        shutil.rmtree(str(self.mount.options["state_dir"]), ignore_errors=True)
        view = self.mount.view
        for key in view.keys(""):
            view.delete(key)
        for key, upload in self._uploads() - self.others:
            view.client.abort_multipart_upload(Bucket=view.bucket, Key=key, UploadId=upload)
        self.mount.start()

    # -- the oracle

    def check(self) -> None:
        settled = {row["path"] for row in self.mount.journal()["uploads"]}
        waiting = [
            (ledger, name)
            for ledger in self.ledgers
            for name in sorted(ledger.waiting)
            if f"dump/{name}" in settled and (self._dump / name).exists()
        ]
        self._check_journal({f"dump/{name}" for _, name in waiting})
        ours = self._uploads() - self.others
        assert len(ours) == len(waiting), f"uploads {ours} for {waiting}"
        for ledger, name in waiting:
            self._let_go(Program(self._dump, ledger), name)
        self._check_contents()
        self._check_journal(set())
        assert self._uploads() == self.others, f"{self._uploads()} instead of {self.others}"

    @property
    def _dump(self) -> Path:
        return self.mount.path / "dump"

    def _check_journal(self, paths: set[str]) -> None:
        """Whatever tables there are: what has a path is unfinished."""
        rows = [(table, row) for table, rows in self.mount.journal().items() for row in rows if "path" in row]
        found = {(table, row.get("state"), row["path"]) for table, row in rows}
        assert found == {("uploads", "settled", path) for path in paths}, f"journal: {rows}, waiting: {paths}"

    def _let_go(self, program: Program, name: str) -> None:
        """A file waits for its rename: it gets it, or is deleted."""
        moving = any(name in names for names in program.ledger.moving)
        if program.ledger.is_back(name) and (moving or self.tally["kills"] % 4):
            program.rename(name, name.removesuffix(".tmp").replace(".dat", ".zst"))
        else:
            program.unlink(name)

    def _check_contents(self) -> None:
        stored = {key: self.mount.view.body(f"dump/{key}") for key in self._keys()}
        found = {os.path.relpath(os.path.join(top, f), self._dump) for top, _, fs in os.walk(self._dump) for f in fs}
        assert found == set(stored), f"{sorted(found)} in the mount, {sorted(stored)} in the bucket"
        differ = [name for name, body in stored.items() if (self._dump / name).read_bytes() != body]
        assert not differ, f"{differ}: read through the mount and from the bucket"
        wrong: list[str] = []
        for ledger in self.ledgers:
            own: dict[str, Content] = {name: stored.pop(name, None) for name in ledger.may}
            self.tally["told"] += ledger.told
            ledger.told = 0
            self.tally["bytes"] += 2 * sum(len(content or b"") for content in own.values())
            wrong += ledger.judge(own)
        self.tally["lost"] += len(wrong)
        assert not wrong, "\n".join(wrong)
        assert not stored, f"nobody meant to make {sorted(stored)}"

    def _keys(self) -> list[str]:
        return [k.removeprefix("dump/") for k in self.mount.view.keys("dump/") if not k.endswith("/")]

    def _uploads(self) -> set[tuple[str, str]]:
        view = self.mount.view
        found = view.client.list_multipart_uploads(Bucket=view.bucket).get("Uploads", ())
        return {(u["Key"], u["UploadId"]) for u in found}


class Strangers:
    """What others have begun in the same bucket: a client that is gone, and a second node in the middle of a backup."""

    NAME = "vzdump-lxc-900-2026_11_20-13_15_26.tar"

    def __init__(self, other: CrashMount) -> None:
        self._other = other
        self._body = noise(PART + (1 << 20), 900)
        view = other.view
        key = "pve/dump/vzdump-qemu-901-2026_11_20-13_15_26.vma.zst"
        upload = view.client.create_multipart_upload(Bucket=view.bucket, Key=key)["UploadId"]
        view.client.upload_part(Bucket=view.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"foreign")
        self._fd = os.open(other.path / "dump" / f"{self.NAME}.dat", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(self._fd, self._body[: PART + 1])
        eventually(lambda: len(view.uploads()) == 2, "the other node has begun its upload")

    def finish(self) -> None:
        """The other node's backup comes to its end as if nothing had happened."""
        os.write(self._fd, self._body[PART + 1 :])
        os.close(self._fd)
        dump = self._other.path / "dump"
        (dump / f"{self.NAME}.dat").rename(dump / f"{self.NAME}.zst")
        assert self._other.view.body(f"dump/{self.NAME}.zst") == self._body
        assert self._other.view.uploads() == ["dump/vzdump-qemu-901-2026_11_20-13_15_26.vma.zst"]
        self._other.view.delete(f"dump/{self.NAME}.zst")


@contextlib.contextmanager
def crash_site(s3: S3Server, home: Path, tally: Counter[str]) -> Iterator[Node]:
    """A node to be killed, behind a fault proxy, with strangers in its bucket that must not notice."""
    bucket = s3.make_bucket("crash")
    with contextlib.ExitStack() as stack:
        warm = stack.enter_context(Warm(environment(s3)))
        proxy = stack.enter_context(FaultProxy(s3.endpoint))
        other = CrashMount(s3, bucket, home / "other", LogWatch(), s3.endpoint, warm)
        stack.enter_context(other)
        strangers = Strangers(other)
        mount = CrashMount(s3, bucket, home / "node", LogWatch(), proxy.endpoint, warm)
        with mount:
            yield Node(mount, proxy, tally)
        strangers.finish()
