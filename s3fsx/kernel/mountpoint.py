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
import threading
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, S3fsxError

MOUNTINFO = "/proc/self/mountinfo"
DEVICE = "/dev/fuse"
FSTYPE = "fuse.s3fsx"
COMMAND_LIMIT = 30.0
ANSWER_LIMIT = 2.0
_LOOKED_AT = 1000  # directories


class Entry(NamedTuple):
    """kind: the file system type. source: a device, or what a FUSE daemon calls itself. owner: the uid that mounted
    it; None for what is no FUSE mount. device: its number, "0:53"."""

    kind: str
    source: str
    owner: int | None
    device: str = ""


def table(mountinfo: str | None = None) -> dict[str, Entry]:
    """Mount point -> entry, the topmost where several are stacked (proc(5))."""
    found: dict[str, Entry] = {}
    for line in (Path(MOUNTINFO).read_text(errors="surrogateescape") if mountinfo is None else mountinfo).splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, options, *_) = before.split(" "), [*after.split(" "), "", "", ""]
        if len(fields) > 4 and after:
            owner = re.search(r"\buser_id=(\d+)", options)
            found[_plain(fields[4])] = Entry(kind, _plain(source), int(owner[1]) if owner else None, fields[2])
    return found


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def mounted() -> dict[str, str]:
    """Mount point -> file system type."""
    return {path: entry.kind for path, entry in table().items()}


def source_name(bucket: str, prefix: str) -> str:
    """What mountinfo, df and mount(8) call a mount; characters that mean something in mount options become "_"."""
    name = f"s3://{bucket}/{prefix}"
    return "".join(c if c.isascii() and (c.isalnum() or c in ":/._-") else "_" for c in name)


def is_mounted(path: str, bucket: str, prefix: str) -> bool:
    """Whether this bucket and prefix are mounted there, by s3fsx."""
    entry = table().get(absolute(path))
    return entry is not None and (entry.kind, entry.source) == (FSTYPE, source_name(bucket, prefix))


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


def would_hide(path: str) -> str:
    """A file below a directory that is about to be mounted on, "" where there are only directories, such as those that
    Proxmox makes there while nothing is mounted."""
    for directory, _, files in islice(os.walk(path), _LOOKED_AT):
        if files:
            return os.path.join(directory, min(files))
    return ""


def is_dead(path: str) -> bool:
    """Whether an s3fsx is mounted there whose daemon has ended: ENOTCONN, "Transport endpoint is not connected". One
    that lives and hangs does not answer the question, which is then given up: it is not dead."""
    entry = table().get(absolute(path))
    if entry is None or entry.kind != FSTYPE:
        return False
    return _asked(path) == errno.ENOTCONN


def answers(path: str) -> bool:
    """Whether the file system of path says anything within ANSWER_LIMIT, if only that there is no such file. What it is
    asked next may then be waited for."""
    return _asked(path) is not None


def _asked(path: str) -> int | None:
    """The errno of a statvfs, which no kernel answers from its cache, as it does a stat; 0 when it succeeds, None when
    there is no answer."""
    said: list[int] = []

    def ask() -> None:
        try:
            os.statvfs(path)
            said.append(0)
        except OSError as error:
            said.append(error.errno or 0)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_LIMIT)
    return said[0] if said else None


def clear_dead(path: str) -> bool:
    """Takes dead mounts of s3fsx off a directory, also where a program still has its working directory or a file there.
    Raises as ``unmount``."""
    cleared = False
    while is_dead(path):
        unmount(path, lazy=True)
        cleared = True
    return cleared


def _refuse_mounted(path: str) -> None:
    if (kind := mounted().get(path)) is not None:
        hint = f"; s3fsx umount {path} first" if kind.startswith("fuse") else ""
        raise ConfigError(f"{path}: already a mountpoint ({kind}){hint}")


def unmount(path: str, *, lazy: bool = False, limit: float = COMMAND_LIMIT) -> None:
    """umount(8), or fusermount3 where this user is not root. limit: seconds for it, of a daemon that hangs. Raises
    ConfigError and S3fsxError in one line."""
    path = absolute(path)
    entry = table().get(path)
    if entry is None:
        raise ConfigError(f"{path}: not a mountpoint")
    if not entry.kind.startswith("fuse"):
        raise ConfigError(f"{path}: a {entry.kind} mount, not one of s3fsx")
    user = os.geteuid()
    if user not in (0, entry.owner):
        whose = "root" if entry.owner == 0 else f"root or uid {entry.owner}, whose mount it is,"
        raise S3fsxError(f"{path}: only {whose} can unmount it")
    if user == 0:
        # -i: no helper that another package may have put there.
        command = ["umount", "-i", *(["-l"] if lazy else []), path]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except FileNotFoundError:
        raise S3fsxError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        hint = "" if lazy else f": its daemon may hang; s3fsx umount --lazy {path} takes it out of the tree"
        raise S3fsxError(f"{path}: {command[0]} did not end within {limit:.0f} s{hint}") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"{command[0]} failed with {done.returncode}"
        if "busy" in said.lower():
            said += f" (a program still uses it: fuser -vm {path} shows which; or s3fsx umount --lazy {path})"
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
