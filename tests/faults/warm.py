"""Starts of s3fsx without its imports, which cost 0.8 s of CPU each: a process that has made them forks for each start.

What runs in the child is the command, ``cli.main`` with its arguments. This module is both sides: tests use ``Warm``,
which runs it as a program.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType


class WarmProcess:
    """One start, as subprocess.Popen shows it."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self._warm = warm
        self._ended = os.pidfd_open(pid)
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("s3fsx", timeout or 0.0)
            self.returncode = self._warm.ask({"wait": self.pid})
            os.close(self._ended)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.returncode is None:  # else the pid may be another's by now
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Warm:
    """A context manager. env: of the process and so of every start."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(env),
            cwd=Path(__file__).parents[2],
            text=True,
        )
        self._lock = threading.Lock()

    def start(self, arguments: Sequence[str], output: Path) -> WarmProcess:
        return WarmProcess(self, self.ask({"arguments": list(arguments), "output": str(output)}))

    def ask(self, request: Mapping[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the process that starts s3fsx has ended"
        return int(answer)

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def _serve() -> None:
    """Requests on stdin, one number per answer on stdout: the pid of a start, the exit status of one that has ended."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                _become(request["arguments"], request["output"])
        print(answer, flush=True)  # noqa: T201


def _become(arguments: list[str], output: str) -> None:
    code: object = 1
    try:
        silence, written = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor, target in ((silence, 0), (written, 1), (written, 2)):
            os.dup2(descriptor, target)
        os.chdir("/")
        code = main(arguments)
    except SystemExit as e:
        code = e.code
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    import s3fsx.service.mount  # noqa: F401  # the command imports it when it mounts
    from s3fsx.cli import main

    _serve()
