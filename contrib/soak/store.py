"""The store under the soak: a Ceph RGW of its own that can be stopped and killed, or a given bucket, left in peace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s3fsx.configuration.config import load, to_s3_options
from s3fsx.s3.client import ANSWERED, ClientMaker

from .content import BLOCK, Content
from .node import SoakError, environment

_SCRIPT = Path(__file__).parents[1] / "rgw.py"
_PYTHON = "/usr/bin/python3"  # the distribution's: python3-rados is compiled for it
BUCKET = "soak"
_PIECE = 8 << 20  # a whole object would be in memory at once


class Rgw:
    """contrib/rgw.py run: it goes when the pipe to it does."""

    def __init__(self, directory: Path, gib: int) -> None:
        self.directory = directory
        self._common = ["--dir", str(directory), "--size", str(gib)]
        self._process = subprocess.Popen(
            [_PYTHON, str(_SCRIPT), "run", *self._common],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise SoakError(self._process.stderr.read().strip())
        self.info: dict[str, str] = json.loads(line)

    @property
    def _pid(self) -> int:
        return int((self.directory / "rgw.pid").read_text())

    def stop(self) -> None:
        """It accepts connections and says nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def restart(self) -> None:
        done = subprocess.run(
            [_PYTHON, str(_SCRIPT), "up", *self._common], capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise SoakError(f"radosgw does not come back: {done.stderr.strip()}")

    def collect_garbage(self) -> None:
        """Deleted objects stay in its memory until this runs."""
        command = ["radosgw-admin", "-c", str(self.directory / "ceph.conf"), "gc", "process", "--include-all"]
        subprocess.run(command, capture_output=True, timeout=120, check=False)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


class Bucket:
    """The truth: the bucket past every mount. source, options and environment as the nodes have them."""

    def __init__(self, source: str, options: list[str], env: dict[str, str]) -> None:
        settings = load(source, options, env=env).settings
        self.bucket, self.prefix = settings.bucket, settings.prefix
        self.budget = settings.memory_budget
        self.hang = settings.publish_deadline + settings.write_deadline + 60.0
        self.settled = 3 * settings.list_ttl + 10.0
        self._client: Any = ClientMaker(to_s3_options(settings))("slow")

    def create(self) -> None:
        self._client.create_bucket(Bucket=self.bucket)

    def sizes(self) -> dict[str, int]:
        """Path -> bytes of every object, s3fsx's own and the markers of directories left out."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        entries = (entry for page in pages for entry in page.get("Contents", ()))
        found = {entry["Key"].removeprefix(self.prefix): int(entry["Size"]) for entry in entries}
        return {path: size for path, size in found.items() if not path.endswith("/") and not path.startswith(".s3fsx/")}

    def _pieces(self, key: str) -> Iterator[bytes]:
        size = self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        for start in range(0, size, _PIECE):
            wanted = f"bytes={start}-{min(start + _PIECE, size) - 1}"
            yield self._client.get_object(Bucket=self.bucket, Key=key, Range=wanted)["Body"].read()

    def difference(self, path: str, content: Content) -> str:
        """What is wrong with an object; "" when it is what it must be, byte by byte."""
        index, rest = 0, b""
        for piece in self._pieces(self.prefix + path):
            rest += piece
            while len(rest) >= BLOCK or (rest and index * BLOCK + len(rest) >= content.size):
                expected = content.block(index) if index < content.blocks else b""
                if rest[:BLOCK] != expected:
                    return f"other bytes in block {index} of {content.blocks}"
                rest, index = rest[BLOCK:], index + 1
        return "" if index == content.blocks and not rest else f"ends in block {index} of {content.blocks}"

    def uploads(self) -> list[str]:
        """Unfinished multipart uploads, each with what it takes to find out where it comes from."""
        answer = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        return [self._describe(upload) for upload in answer.get("Uploads", ())]

    def _describe(self, upload: Any) -> str:
        key = upload["Key"]
        try:
            answer = self._client.list_parts(Bucket=self.bucket, Key=key, UploadId=upload["UploadId"])
            parts: list[object] = [part["Size"] for part in answer.get("Parts", ())]
        except ANSWERED as e:
            parts = [str(e)]
        return f"{key} ({upload['UploadId']}, begun {upload['Initiated']:%H:%M:%S}, parts {parts})"

    def delete_all(self) -> None:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                self._client.delete_object(Bucket=self.bucket, Key=entry["Key"])

    def close(self) -> None:
        self._client.close()


@contextmanager
def own_rgw(directory: Path, gib: int) -> Iterator[tuple[Rgw, str, dict[str, str]]]:
    """(server, source, environment); the keys are in a file of mode 0600."""
    rgw = Rgw(directory / "rgw", gib)
    try:
        config = directory / "etc"
        config.mkdir(mode=0o700)
        text = "".join(f'{name} = "{rgw.info[name]}"\n' for name in ("endpoint", "region", "access_key", "secret_key"))
        with open(os.open(config / f"{BUCKET}.toml", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(f'bucket = "{BUCKET}"\nprefix = "pve/"\n{text}')
        env = {k: v for k, v in environment().items() if not k.startswith(("AWS_", "S3FSX_"))}
        yield rgw, BUCKET, {**env, "S3FSX_CONFIG_DIR": str(config)}
    finally:
        rgw.close()


def wait_for(condition: Any, limit: float) -> bool:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True
