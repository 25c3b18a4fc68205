"""The programs that are compared: how each is mounted, with its own defaults wherever it has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.mount.harness import detach, environment, is_mountpoint
from tests.s3server import S3Server

from .data import BACKUP
from .link import ROOT

START_LIMIT = 60.0  # seconds
STOP_LIMIT = 120.0


class ToolError(Exception):
    """One line: which program did not do what."""


@dataclass(frozen=True)
class Access:
    """The store as the tools see it. endpoint: with scheme and port. ca_file: of an https endpoint. size: of the backup
    in it, bytes. prefix: what runs a command on the tools' side of the link."""

    server: S3Server
    bucket: str
    endpoint: str
    ca_file: Path | None
    size: int
    prefix: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The owner's keys, and how programs of different make learn of the authority."""
        keys = {"AWS_ACCESS_KEY_ID": self.server.access_key, "AWS_SECRET_ACCESS_KEY": self.server.secret_key}
        names = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        return environment(self.server, **keys, **{name: str(self.ca_file) for name in names if self.ca_file})


Command = Callable[[Access, Path, Path], list[str]]


@dataclass(frozen=True)
class Tool:
    """command(access, mountpoint, home) stays in the foreground; it keeps all its files in home. version: arguments."""

    name: str
    program: str
    command: Command
    version: tuple[str, ...]
    jobs: frozenset[str] | None = None  # the only ones that make sense; None for all
    stores: bool = True  # False: nothing arrives in a bucket, and what is read is zeros

    def path(self) -> str | None:
        """Of the environment this runs in first: that is where pip puts rclone."""
        own = Path(sys.executable).with_name(self.program)
        return str(own) if own.exists() else shutil.which(self.program)


def _s3fsx(access: Access, mountpoint: Path, home: Path) -> list[str]:
    directories = ",".join(f"{name}_dir={home / name}" for name in ("cache", "state", "runtime"))
    options = f"endpoint={access.endpoint},region={access.server.region},{directories}"
    if access.ca_file:
        options += f",ca_file={access.ca_file}"
    return ["-m", "s3fsx", "mount", f"s3://{access.bucket}", str(mountpoint), "--foreground", "-o", options]


def _s3fs(access: Access, mountpoint: Path, home: Path) -> list[str]:
    keys, staging = home / "passwd", home / "tmp"
    _private(keys, f"{access.server.access_key}:{access.server.secret_key}\n")
    staging.mkdir(exist_ok=True)
    options = f"use_path_request_style,url={access.endpoint},endpoint={access.server.region},passwd_file={keys}"
    return [access.bucket, str(mountpoint), "-f", "-o", f"{options},tmpdir={staging}"]


def _rclone(mode: str) -> Command:
    def command(access: Access, mountpoint: Path, home: Path) -> list[str]:
        config = home / "rclone.conf"
        values = {
            "type": "s3",
            "provider": "Ceph",
            "endpoint": access.endpoint,
            "region": access.server.region,
            "access_key_id": access.server.access_key,
            "secret_access_key": access.server.secret_key,
        }
        _private(config, "[bench]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()))
        places = ["--config", str(config), "--cache-dir", str(home / "cache")]
        if access.ca_file:
            places += ["--ca-cert", str(access.ca_file)]
        return ["mount", f"bench:{access.bucket}", str(mountpoint), *places, "--vfs-cache-mode", mode]

    return command


# The next two take their keys from the environment. Arguments as documented: they have not run here.
def _geesefs(access: Access, mountpoint: Path, home: Path) -> list[str]:
    return ["-f", "--endpoint", access.endpoint, "--region", access.server.region, access.bucket, str(mountpoint)]


def _mount_s3(access: Access, mountpoint: Path, home: Path) -> list[str]:
    place = ["--endpoint-url", access.endpoint, "--region", access.server.region, "--force-path-style"]
    return [access.bucket, str(mountpoint), "--foreground", "--allow-delete", "--allow-overwrite", *place]


def _null(access: Access, mountpoint: Path, home: Path) -> list[str]:
    return ["-m", "contrib.bench.nullfs", str(mountpoint), BACKUP, str(access.size)]


def _local(access: Access, mountpoint: Path, home: Path) -> list[str]:
    raise ToolError(f"{LOCAL} is a directory that is there")


def _private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


LOCAL = "local"  # no tool: a directory on the disk where the tools keep their caches
PYTHON = Path(sys.executable).name
TOOLS = {
    tool.name: tool
    for tool in (
        Tool("s3fsx", PYTHON, _s3fsx, ("-m", "s3fsx", "--version")),
        Tool("s3fs", "s3fs", _s3fs, ("--version",)),
        Tool("rclone-writes", "rclone", _rclone("writes"), ("version",)),
        Tool("rclone-off", "rclone", _rclone("off"), ("version",)),
        Tool("geesefs", "geesefs", _geesefs, ("--version",)),
        Tool("goofys", "goofys", _geesefs, ("--version",)),
        Tool("mount-s3", "mount-s3", _mount_s3, ("--version",)),
        Tool("null", PYTHON, _null, ("--version",), frozenset({"write", "read", "read4"}), stores=False),
        Tool(LOCAL, "ls", _local, ("--version",), frozenset({"random", "small", "list"}), stores=False),
    )
}


@dataclass(frozen=True)
class Mounted:
    """A running mount. home: all it keeps on local disk, logs left out. pid: None where there is no process."""

    path: Path
    pid: int | None
    home: Path
    stores: bool = True


def version(tool: Tool) -> str:
    program = tool.path()
    if program is None:
        return "missing"
    done = subprocess.run([program, *tool.version], capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


@contextmanager
def mounted(tool: Tool, access: Access, directory: Path, limit: float) -> Iterator[Mounted]:
    """A mount with what an earlier one left in directory (nothing, when it does not exist). Takes it down whatever
    happens; after limit seconds its program is killed, so that nothing waits for it for ever.

    Raises ToolError with the end of the program's output when it does not mount, fails, or does not end.
    """
    path, home, output = directory / "mnt", directory / "home", directory / "output"
    path.mkdir(parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    program = tool.path()
    if program is None:
        raise ToolError(f"{tool.name}: no program {tool.program}")
    own_rights = environment(access.server) if tool.name == "s3fsx" else access.environment()
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [*access.prefix, program, *tool.command(access, path, home)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**own_rights, "TMPDIR": str(home)},
            cwd="/",
        )
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    watchdog = threading.Timer(limit, end)
    watchdog.daemon = True
    watchdog.start()
    try:
        _until(lambda: is_mountpoint(path), process, START_LIMIT, f"{tool.name} does not mount", output)
        yield Mounted(path, process.pid, home, tool.stores)
        subprocess.run(["umount", str(path)], check=True, capture_output=True, timeout=STOP_LIMIT)
        process.wait(STOP_LIMIT)
    except (subprocess.SubprocessError, OSError, ValueError, ToolError) as e:
        if isinstance(e, ToolError) and not late.is_set():
            raise
        said = getattr(e, "stderr", None) or b""
        text = said if isinstance(said, str) else said.decode(errors="replace")
        why = f"not done after {limit:.0f} s" if late.is_set() else f"{e} {text[-500:]}{_tail(output)}"
        raise ToolError(f"{tool.name}: {why}") from e
    finally:
        watchdog.cancel()
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
    return "\n" + output.read_text(errors="replace")[-1000:]
