"""The mount point: is it one, can it become one, and how it ends. Looks at mountinfo, never into the mount.

A call into a FUSE mount whose daemon hangs does not return, so that nothing here stats a mounted directory.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
import subprocess
from pathlib import Path

from .errors import ConfigError, S3fsxError

MOUNTINFO = "/proc/self/mountinfo"
DEVICE = "/dev/fuse"
FSTYPE = "fuse.s3fsx"
COMMAND_LIMIT = 30.0


def mounted(mountinfo: str | None = None) -> dict[str, str]:
    """Mount point -> file system type, the topmost where several are stacked (proc(5))."""
    found: dict[str, str] = {}
    for line in (Path(MOUNTINFO).read_text(errors="surrogateescape") if mountinfo is None else mountinfo).splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and after:
            path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            found[path] = after.split(" ")[0]
    return found


def absolute(path: str) -> str:
    """The absolute path, with symbolic links resolved in all but the last part (which may be a hung mount)."""
    head, tail = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(head), tail)


def prepare(path: str) -> str:
    """The real path of a directory that can be mounted on. Raises ConfigError or S3fsxError in one line."""
    path = absolute(path)
    _refuse_mounted(path)
    try:
        path = os.path.realpath(path, strict=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such directory: mkdir -p {path}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    _refuse_mounted(path)
    if not os.path.isdir(path):
        raise ConfigError(f"{path}: not a directory")
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise S3fsxError(f"{DEVICE} is missing: modprobe fuse (in a container: allow fuse for it)") from None
    except OSError as error:
        hint = ": this user or container may not use FUSE" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise S3fsxError(f"{DEVICE}: {error.strerror}{hint}") from None
    return path


def _refuse_mounted(path: str) -> None:
    if (kind := mounted().get(path)) is not None:
        hint = f"; s3fsx umount {path} first" if kind.startswith("fuse") else ""
        raise ConfigError(f"{path}: already a mountpoint ({kind}){hint}")


def unmount(path: str, *, lazy: bool = False) -> None:
    """umount(8), or fusermount3 where this user is not root. Raises ConfigError and S3fsxError in one line."""
    path = absolute(path)
    kind = mounted().get(path)
    if kind is None:
        raise ConfigError(f"{path}: not a mountpoint")
    if not kind.startswith("fuse"):
        raise ConfigError(f"{path}: a {kind} mount, not one of s3fsx")
    if os.geteuid() == 0:
        # -i: no helper that another package may have put there.
        command = ["umount", "-i", *(["-l"] if lazy else []), path]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_LIMIT, check=False)
    except FileNotFoundError:
        raise S3fsxError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise S3fsxError(f"{path}: {command[0]} did not end within {COMMAND_LIMIT:.0f} s") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"{command[0]} failed with {done.returncode}"
        raise S3fsxError(said if path in said else f"{path}: {said}")


def daemon_of(socket_path: str) -> int | None:
    """A pidfd of the process behind a status socket; None when nobody is there. The caller closes it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1.0)
            client.connect(socket_path)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return os.pidfd_open(struct.unpack("3i", credentials)[0])
    except OSError:
        return None


def wait_for_end(pidfd: int, timeout: float) -> bool:
    """True when the process has ended within ``timeout`` seconds."""
    return bool(select.select([pidfd], [], [], timeout)[0])
