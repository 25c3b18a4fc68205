"""The Ceph RGW of one pytest session: contrib/rgw.py run, which goes when the pipe to it does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.s3server import S3Server

SCRIPT = Path(__file__).parent.parent / "contrib" / "rgw.py"
PYTHON = "/usr/bin/python3"  # the distribution's: python3-rados is compiled for it


class RgwUnavailableError(Exception):
    """Not a reason to skip: what needs a real S3 server is not tested without one."""


@contextmanager
def running_rgw(directory: Path, *, size_gib: int = 8, address: str = "127.0.0.1") -> Iterator[S3Server]:
    """A fresh RGW in directory, with a request log, on an address of this machine.

    Raises RgwUnavailableError, with what to install.
    """
    process = subprocess.Popen(
        [PYTHON, str(SCRIPT), "run", "--dir", str(directory), "--size", str(size_gib), "--address", address, "--log"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is for pytest, which then closes the pipe
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            raise RgwUnavailableError(process.stderr.read().strip())
        info = json.loads(line)
        server = S3Server(
            name="rgw",
            **{k: v for k, v in info.items() if k not in {"ca_file", "log_path"}},
            ca_file=Path(info["ca_file"]),
            log_path=Path(info["log_path"]),
        )
        try:
            yield server
        finally:
            process.stdin.close()
            process.wait(30)
