"""pvesm and systemctl, with a limit of time, without secrets in their environment, and one line when they fail."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..configuration.config import secret_variables
from ..errors import ConfigError, S3fsxError
from ..kernel import mountpoint

PVESM_LIMIT = 120.0  # seconds; its lock may be waited for, and it activates every storage
START_LIMIT = 200.0  # the unit's TimeoutStartSec is 180
STOP_LIMIT = 780.0  # the unit's TimeoutStopSec is 720: everything is published first
QUICK_LIMIT = 30.0
_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Host:
    """env: what programs find. node: this node's name, as Proxmox knows it."""

    env: Mapping[str, str]
    node: str

    @classmethod
    def here(cls) -> Host:
        secret = {*secret_variables(os.environ), "S3FSX_ACCESS_KEY", "PYTHONPATH"}
        env = {k: v for k, v in os.environ.items() if k not in secret and not k.startswith("AWS_")}
        return cls(env, socket.gethostname().partition(".")[0])

    def pvesm(self, arguments: Sequence[str]) -> None:
        """Raises S3fsxError with what it said, ConfigError where it is not installed."""
        self._run(["pvesm", *arguments], PVESM_LIMIT, "this is no Proxmox VE host; 's3fsx mount' needs none")

    def start(self, unit: str) -> None:
        """Returns when the mount works, since the unit says so itself."""
        self._systemctl("start", unit, limit=START_LIMIT, journal=True)

    def enable(self, unit: str) -> None:
        """Starts it at each boot."""
        self._systemctl("enable", unit, limit=QUICK_LIMIT)

    def restart(self, unit: str) -> None:
        """Publishes what is pending, unmounts, and mounts again."""
        self._systemctl("restart", unit, limit=STOP_LIMIT + START_LIMIT, journal=True)

    def stop(self, unit: str) -> None:
        """Publishes what is pending, unmounts."""
        self._systemctl("stop", unit, limit=STOP_LIMIT, journal=True)

    def disable(self, unit: str) -> None:
        self._systemctl("disable", unit, limit=QUICK_LIMIT)

    def reload(self) -> None:
        self._systemctl("daemon-reload", limit=QUICK_LIMIT)

    def knows(self, unit: str) -> bool:
        """Whether the unit's file is installed. Raises ConfigError without systemd."""
        return self._call(["systemctl", "cat", unit], QUICK_LIMIT, "systemd is needed").returncode == 0

    def is_active(self, unit: str) -> bool:
        done = self._call(["systemctl", "is-active", "--quiet", unit], QUICK_LIMIT, "systemd is needed")
        return done.returncode == 0

    def is_enabled(self, unit: str) -> bool:
        done = self._call(["systemctl", "is-enabled", "--quiet", unit], QUICK_LIMIT, "systemd is needed")
        return done.returncode == 0

    def _systemctl(self, *arguments: str, limit: float, journal: bool = False) -> None:
        try:
            self._run(["systemctl", *arguments], limit, "systemd is needed")
        except S3fsxError as error:
            if journal and not isinstance(error, ConfigError):
                raise S3fsxError(f"{error} (journalctl -u {arguments[-1]} -n 20 shows why)") from None
            raise

    def _run(self, command: Sequence[str], limit: float, missing: str) -> None:
        done = self._call(command, limit, missing)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split()) or f"exit status {done.returncode}"
            raise S3fsxError(f"{' '.join(command[:3])}: {said[:600]}")

    def _call(self, command: Sequence[str], limit: float, missing: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit,
                check=False,
                env=dict(self.env),
            )
        except FileNotFoundError:
            raise ConfigError(f"{command[0]} is not installed: {missing}") from None
        except subprocess.TimeoutExpired:
            raise S3fsxError(f"{' '.join(command[:3])}: not done after {limit:.0f} s") from None


def wait_mounted(path: str, bucket: str, prefix: str, limit: float = 10.0) -> None:
    """Returns when the bucket is mounted there. Raises S3fsxError."""
    end = time.monotonic() + limit
    while not mountpoint.is_mounted(path, bucket, prefix):
        if time.monotonic() > end:
            raise S3fsxError(f"{path}: the unit runs, but nothing is mounted there")
        time.sleep(_POLL)
