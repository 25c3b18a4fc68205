#!/usr/bin/python3
"""A clean Debian to try things in, as root:

    contrib/debroot.py 12|13 [--bind SOURCE:TARGET]... [--env NAME=VALUE]... -- COMMAND...

The root is made once by debootstrap (minbase) and kept for a month; COMMAND runs in a copy of it that is thrown away:
an overlay in a mount and a process namespace of its own, with this machine's network and devices. Whatever it mounts or
starts ends with it, so that nothing has to be undone. What apt fetches is kept beside the root: the second time is
quick. The environment is a clean one.

    DEBROOT_CACHE   /var/tmp/s3fsx-debroot         where the roots are
    DEBROOT_MIRROR  http://deb.debian.org/debian   where they come from
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CACHE = Path(os.environ.get("DEBROOT_CACHE") or "/var/tmp/s3fsx-debroot")
MIRROR = os.environ.get("DEBROOT_MIRROR") or "http://deb.debian.org/debian"
SUITES = {"12": "bookworm", "13": "trixie"}
KEPT = 30 * 86400  # seconds: later its package lists name files that the mirror no longer has
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What this machine's network takes: its names, and the authorities it trusts (there may be a proxy that ends TLS).
NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
EMPTY = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


class DebrootError(Exception):
    """One line for the user."""


def clean_root(suite: str) -> Path:
    """The directory with ``root`` and ``archives``; of two who ask at once one makes it."""
    base = CACHE / suite
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = base / "made"
        if not made.exists() or time.time() - made.stat().st_mtime > KEPT:
            made.unlink(missing_ok=True)
            for name in ("root", "archives"):
                shutil.rmtree(base / name, ignore_errors=True)
            (base / "archives" / "partial").mkdir(parents=True)
            _debootstrap(suite, base / "root")
            made.touch()
    return base


def _debootstrap(suite: str, root: Path) -> None:
    if shutil.which("debootstrap") is None:
        raise DebrootError("debootstrap is not installed: apt-get install debootstrap")
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", suite, str(root), MIRROR]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()[-3:]
        raise DebrootError(
            f"no clean Debian {suite}: debootstrap from {MIRROR} failed ({' / '.join(said)}); is the mirror reachable? "
            "DEBROOT_MIRROR names another one"
        )


def run(base: Path, binds: list[str], environment: list[str], command: list[str]) -> int:
    """The command's exit code."""
    copy = Path(tempfile.mkdtemp(prefix="copy-", dir=CACHE))
    try:
        inside = [sys.executable, __file__, "--inside", str(base), str(copy), str(len(binds)), *binds]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
        variables = EMPTY | dict(item.split("=", 1) for item in environment)
        return subprocess.run([*unshare, *inside, *command], env=variables, check=False).returncode
    finally:
        shutil.rmtree(copy)


def let_go_of_fuse() -> None:
    """A mount that this namespace has a copy of does not end when it is unmounted outside; its daemon would wait."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("fuse.") and "\\" not in (path := before.split()[4]):
            subprocess.run(["umount", "-l", path], capture_output=True, check=False)


def enter(base: Path, copy: Path, binds: list[str], command: list[str]) -> None:
    """In the namespaces: mounts the copy, and becomes the command."""

    def mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)

    root = copy / "root"
    for name in ("upper", "work", "root"):
        (copy / name).mkdir()
    mount("--make-rprivate", "/")
    let_go_of_fuse()
    layers = f"lowerdir={base / 'root'},upperdir={copy / 'upper'},workdir={copy / 'work'}"
    mount("-t", "overlay", "overlay", "-o", layers, str(root))
    mount("-t", "proc", "proc", str(root / "proc"))
    for name in ("dev", "sys"):
        mount("--rbind", f"/{name}", str(root / name))
    for name, mode in (("run", "0755"), ("dev/shm", "1777"), ("tmp", "1777")):
        mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", str(root / name))
    mount("--bind", str(base / "archives"), str(root / "var/cache/apt/archives"))
    for name in NETWORK:
        if Path(name).exists():
            shutil.copyfile(name, root / name.lstrip("/"))
    for pair in binds:
        source, target = pair.split(":")
        place = root / target.lstrip("/")
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        mount("--rbind", source, str(place))
    # No package is to start a service: nobody is there to run it.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    # Nor is what is thrown away worth an fsync per file.
    (root / "etc/dpkg/dpkg.cfg.d/unsafe").write_text("force-unsafe-io\n")
    os.chroot(root)
    os.chdir("/")
    os.execvp(command[0], command)


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        base, copy, count, *rest = sys.argv[2:]
        enter(Path(base), Path(copy), rest[: int(count)], rest[int(count) :])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", choices=SUITES)
    parser.add_argument("--bind", action="append", default=[], metavar="SOURCE:TARGET")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    given = parser.parse_args()
    # The copy is thrown away then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(clean_root(SUITES[given.release]), given.bind, given.env, given.command)
    except DebrootError as e:
        sys.stderr.write(f"debroot.py: {e}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
