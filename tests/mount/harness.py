"""A real mount for tests: the command as a user types it, in a process of its own, never outliving the test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tests import policy
from tests.checklogs import LogWatch
from tests.s3server import S3Server, S3View

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "s3fsx")
START_LIMIT = 60.0  # seconds until a mount must be there, or must have said why not
STOP_LIMIT = 120.0  # unmounting waits for what is still to be published
WATCHDOG = 300.0  # a system call stuck in a dead mount would hang the whole run: then the daemon is killed


def environment(server: S3Server, **more: str) -> dict[str, str]:
    """What s3fsx may find: keys with the rights of docs/SECURITY.md, and nothing of whoever runs the tests.

    moto knows no rights; there they are the owner's.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3FSX_"))}
    least = server.name != "moto"
    return {
        **clean,
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": server.alt_access_key if least else server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.alt_secret_key if least else server.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


def join_options(options: Mapping[str, object]) -> str:
    """``a=1,b``: True is an option without a value, False one left out."""
    given = {k: v for k, v in options.items() if v is not False}
    return ",".join(k if v is True else f"{k}={v}" for k, v in given.items())


def is_mountpoint(directory: Path) -> bool:
    """From mountinfo, so that a daemon that does not answer cannot hang the question (proc(5): spaces are \\040)."""
    wanted = str(directory)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]) == wanted:
            return True
    return False


def detach(directory: Path) -> None:
    """Takes a mount out of the tree whatever state it is in; a daemon of it sees the end when the last file closes."""
    while is_mountpoint(directory):
        subprocess.run(["umount", "-l", str(directory)], check=True, capture_output=True, timeout=30)


def eventually(condition: Callable[[], bool], what: str, limit: float = 30.0) -> None:
    """For what happens in the background. Fails with ``what`` after limit seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit:.0f} s: {what}"
        time.sleep(0.05)


class Process(Protocol):
    """What a mount needs of subprocess.Popen."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Mount:
    """``s3fsx mount s3://bucket/prefix DIR --foreground`` as a context manager.

    path: the mountpoint. view: the same files as keys, through boto3. options: what ``-o`` says; sizes and times as
    docs/CONFIGURATION.md spells them. home: cache, state, logs; the same for each start, so that ``start`` after
    ``kill9`` is a restart on the same machine.
    """

    watchdog = WATCHDOG

    def __init__(
        self, server: S3Server, bucket: str, prefix: str, home: Path, watch: LogWatch, options: Mapping[str, object]
    ) -> None:
        self.server = server
        self.bucket = bucket
        self.prefix = prefix
        self.view: S3View = server.view(bucket, prefix)
        self.path = home / "mnt"
        self.log_file = home / "s3fsx.log"
        self.output_file = home / "output"
        self.path.mkdir(parents=True)
        self.options: dict[str, object] = {
            "endpoint": server.endpoint,
            "region": server.region,
            "cache_dir": home / "cache",
            "state_dir": home / "state",
            "runtime_dir": home / "run",
            **options,
        }
        self.process: Process | None = None
        self._watchdog: threading.Timer | None = None
        watch.follow(self.log_file)
        policy.grant(server, bucket, prefix, object_lock=server.has_object_lock(bucket))

    @property
    def source(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def start(self) -> None:
        """Returns when the directory is a mountpoint. Fails with the log when the process ends or takes too long."""
        assert self.process is None, "already started"
        arguments = ["mount", self.source, str(self.path), "--foreground", "--log-file", str(self.log_file)]
        self.process = self._launch([*arguments, "-o", join_options(self.options)])
        self._watchdog = threading.Timer(self.watchdog, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        end = time.monotonic() + START_LIMIT
        while not is_mountpoint(self.path):
            assert self.process.poll() is None, f"mount ended with {self.process.returncode}\n{self.output()}"
            assert time.monotonic() < end, f"no mount within {START_LIMIT:.0f} s\n{self.output()}"
            time.sleep(0.02)

    def _launch(self, arguments: Sequence[str]) -> Process:
        with self.output_file.open("ab") as output:
            return subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(self.server),
                cwd="/",
            )

    def umount(self) -> None:
        """An orderly end: umount(8) succeeds, the daemon publishes what it holds and exits with 0."""
        done = subprocess.run(["umount", str(self.path)], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{done.stderr}{self.output()}"
        assert self._wait(STOP_LIMIT) == 0, f"exit status {self.process and self.process.returncode}\n{self.output()}"
        self._forget()

    def restart(self) -> None:
        self.umount()
        self.start()

    def kill9(self) -> None:
        """The power cut. The mountpoint is free afterwards, for the next ``start``."""
        assert self.process is not None
        self.process.kill()
        self._wait(30)
        detach(self.path)
        self._forget()

    def _wait(self, limit: float) -> int | None:
        assert self.process is not None
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            return None

    def _forget(self) -> None:
        assert self._watchdog is not None
        self._watchdog.cancel()
        self._watchdog = self.process = None

    def rss_peak_mib(self) -> float:
        """VmHWM of the daemon: the most it ever held in RAM, MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024

    def cpu_seconds(self) -> float:
        """User and system time of the daemon so far (proc(5): fields 14 and 15, the 12th and 13th after the name)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def output(self) -> str:
        """What a failing test should show: standard output and error, and the end of the log."""
        printed = self.output_file.read_text(errors="replace") if self.output_file.exists() else ""
        return f"--- printed:\n{printed[-4000:]}\n--- log:\n{self.log()[-8000:]}"

    def __enter__(self) -> Mount:
        try:
            self.start()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process is None:
            return
        if error is not None:
            sys.stderr.write(self.output())  # pytest shows it with the failure
        try:
            if error is None:
                self.umount()
        finally:
            self._tear_down()

    def _tear_down(self) -> None:
        """Leaves no process and no mount, whatever went wrong. SIGTERM first: a test may leave uploads to abort."""
        if self.process is not None:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                self.process.send_signal(sign)
                if self._wait(10) is not None:
                    break
            self._forget()
        detach(self.path)
