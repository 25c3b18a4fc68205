#!/usr/bin/python3
"""What the package does with mounts: ``maintain upgraded`` after an upgrade, ``maintain remove`` before a removal.

A mount in use is never taken away: its daemon is running what it has loaded (all of it was at the start), so that a
backup under way ends as it began. Whether it is in use is the kernel's answer to umount(2), which leaves no moment in
between. What is unmounted has its daemon waited for, which publishes what it holds.

Exit codes: 0 fine, 1 something is in use and nothing is to be removed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from s3fsx.configuration.settings import Settings
from s3fsx.errors import S3fsxError
from s3fsx.kernel import mountpoint
from s3fsx.local.journal import Journal
from s3fsx.service.status import socket_path

UNITS = "s3fsx@*.service"
DRAIN = 900  # seconds: as TimeoutStopSec of the unit, and what comes on top


def say(text: str) -> None:
    sys.stderr.write(f"s3fsx: {text}\n")


def systemctl(*arguments: str) -> str:
    """What it prints; "" where systemd does not run, or says no."""
    if not Path("/run/systemd/system").is_dir():
        return ""
    command = ["systemctl", "--no-ask-password", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DRAIN, check=False)
    if done.returncode:
        say(f"systemctl {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout


def units() -> dict[int, str]:
    """Main process -> unit, of those that run."""
    lines = systemctl("list-units", "--plain", "--no-legend", "--state=active", UNITS).splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    return {int(systemctl("show", "--value", "-p", "MainPID", name) or 0): name for name in names}


def mounts() -> Iterator[str]:
    return (path for path, kind in mountpoint.mounted().items() if kind == mountpoint.FSTYPE)


def unit_of(path: str, running: dict[int, str]) -> str | None:
    pidfd = mountpoint.daemon_of(socket_path(Settings().runtime_dir, path))
    if pidfd is None:
        return None
    info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    pid = next(int(line.split()[1]) for line in info.splitlines() if line.startswith("Pid:"))
    return running.get(pid)


def upgraded() -> int:
    """Each mount of a unit that nobody uses starts anew, with the new version."""
    systemctl("daemon-reload")
    running = units()
    for path in mounts():
        unit = unit_of(path, running)
        if unit is None:
            say(f"{path} goes on with the former version: unmount and mount it when nothing uses it")
            continue
        try:
            mountpoint.unmount(path)
        except S3fsxError:
            say(
                f"{path} is in use and goes on with the former version: systemctl restart {unit} when its jobs are done"
            )
            continue
        systemctl("restart", unit)  # waits for the daemon's end
        say(f"{path}: now served by this version")
    return 0


def remove() -> int:
    running = units()
    stopped: list[str] = []
    for path in mounts():
        unit = unit_of(path, running)
        try:
            mountpoint.unmount(path, lazy=mountpoint.is_dead(path))
        except S3fsxError as error:
            say(f"not removed: {error}")
            for name in stopped:
                systemctl("start", name)
            return 1
        if unit is not None:
            stopped.append(unit)
            systemctl("stop", unit)
    systemctl("stop", UNITS)  # those that wait for their store
    _wait_for_the_others()
    _clean()
    return 0


def _wait_for_the_others() -> None:
    """Daemons that were not started by systemd, or had been unmounted before: they publish, and end."""
    for socket in Path(Settings().runtime_dir).glob("*.sock"):
        pidfd = mountpoint.daemon_of(str(socket))
        if pidfd is not None and not mountpoint.wait_for_end(pidfd, DRAIN):
            say(f"the daemon of {socket} still publishes what was written; it goes on by itself")


def _clean() -> None:
    """The caches, and the journals in which nothing is unfinished. In the directories that no setting has moved."""
    settings = Settings()
    shutil.rmtree(settings.cache_dir, ignore_errors=True)
    shutil.rmtree(settings.runtime_dir, ignore_errors=True)
    state = Path(settings.state_dir)
    for directory in sorted(state.iterdir()) if state.is_dir() else ():
        unfinished = trio.run(_unfinished, str(directory))
        if not unfinished:
            shutil.rmtree(directory, ignore_errors=True)
            continue
        say(f"{directory} is kept: a journal of what is unfinished in the bucket, for the next mount or recover:")
        for line in unfinished:
            say(f"  {line}")
    if state.is_dir() and not any(state.iterdir()):
        state.rmdir()


async def _unfinished(directory: str) -> list[str]:
    """Names in a journal; what cannot be read is unfinished, too."""
    try:
        journal = Journal.look(directory)
        if journal is None:
            return []
        try:
            return [item.path for item in (*await journal.records(), *await journal.intents())]
        finally:
            journal.close()
    except S3fsxError as error:
        return [str(error)]


if __name__ == "__main__":
    sys.exit({"upgraded": upgraded, "remove": remove}[sys.argv[1]]())
