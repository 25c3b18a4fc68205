"""The programs that are compared: how each is mounted, with its own defaults wherever it has one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mount.harness import detach, environment, is_mountpoint
from tests.s3server import S3Server

START_LIMIT = 60.0  # seconds
STOP_LIMIT = 120.0


class ToolError(Exception):
    """One line: which program did not do what."""


@dataclass(frozen=True)
class Tool:
    """command(server, bucket, mountpoint, home) stays in the foreground; it keeps all its files in home."""

    name: str
    program: str
    command: Callable[[S3Server, str, Path, Path], list[str]]
    version: tuple[str, ...]


def _s3fsx(server: S3Server, bucket: str, mountpoint: Path, home: Path) -> list[str]:
    directories = ",".join(f"{name}_dir={home / name}" for name in ("cache", "state", "runtime"))
    options = f"endpoint={server.endpoint},region={server.region},{directories}"
    command = [sys.executable, "-m", "s3fsx", "mount", f"s3://{bucket}", str(mountpoint), "--foreground"]
    return [*command, "-o", options]


def _s3fs(server: S3Server, bucket: str, mountpoint: Path, home: Path) -> list[str]:
    keys, staging = home / "passwd", home / "tmp"
    _private(keys, f"{server.access_key}:{server.secret_key}\n")
    staging.mkdir()
    options = f"use_path_request_style,url={server.endpoint},endpoint={server.region},passwd_file={keys}"
    return ["s3fs", bucket, str(mountpoint), "-f", "-o", f"{options},tmpdir={staging}"]


def _rclone(mode: str) -> Callable[[S3Server, str, Path, Path], list[str]]:
    def command(server: S3Server, bucket: str, mountpoint: Path, home: Path) -> list[str]:
        config = home / "rclone.conf"
        values = {
            "type": "s3",
            "provider": "Ceph",
            "endpoint": server.endpoint,
            "region": server.region,
            "access_key_id": server.access_key,
            "secret_access_key": server.secret_key,
        }
        _private(config, "[bench]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()))
        places = ["--config", str(config), "--cache-dir", str(home / "cache")]
        return ["rclone", "mount", f"bench:{bucket}", str(mountpoint), *places, "--vfs-cache-mode", mode]

    return command


def _private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("s3fsx", sys.executable, _s3fsx, (sys.executable, "-m", "s3fsx", "--version")),
        Tool("s3fs", "s3fs", _s3fs, ("s3fs", "--version")),
        Tool("rclone-writes", "rclone", _rclone("writes"), ("rclone", "version")),
        Tool("rclone-off", "rclone", _rclone("off"), ("rclone", "version")),
    )
}


@dataclass(frozen=True)
class Mounted:
    """A running mount. home: all it keeps on local disk, logs left out."""

    path: Path
    pid: int
    home: Path


def version(tool: Tool) -> str:
    done = subprocess.run(tool.version, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.partition("\n")[0].strip()


@contextmanager
def mounted(tool: Tool, server: S3Server, bucket: str, directory: Path) -> Iterator[Mounted]:
    """A fresh mount with nothing cached, in directory (which must not exist). Takes it down whatever happens.

    Raises ToolError with the end of the program's output when it does not mount, or does not end.
    """
    path, home, output = directory / "mnt", directory / "home", directory / "output"
    path.mkdir(parents=True)
    home.mkdir()
    with output.open("wb") as sink:
        process = subprocess.Popen(
            tool.command(server, bucket, path, home),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**environment(server), "TMPDIR": str(home)},
            cwd="/",
        )
    try:
        _until(lambda: is_mountpoint(path), process, START_LIMIT, f"{tool.name} does not mount", output)
        yield Mounted(path, process.pid, home)
        subprocess.run(["umount", str(path)], check=True, capture_output=True, timeout=STOP_LIMIT)
        process.wait(STOP_LIMIT)
    except (subprocess.SubprocessError, OSError) as e:
        said = getattr(e, "stderr", None) or b""
        raise ToolError(f"{tool.name}: {e} {said.decode(errors='replace')}{_tail(output)}") from e
    finally:
        _end(process)
        detach(path)


def _until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], limit: float, what: str, output: Path
) -> None:
    end = time.monotonic() + limit
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise ToolError(f"{what} (exit status {process.returncode}){_tail(output)}")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    for end in (process.terminate, process.kill):
        if process.poll() is None:
            end()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue


def _tail(output: Path) -> str:
    return "\n" + output.read_text(errors="replace")[-2000:]
