"""Where the pieces of a storage lie on a Proxmox host. Pure.

/etc/pve is the cluster's file system (pmxcfs): what lies there is on every node at once, and below priv only root
reads it, whatever the modes say (they cannot be set). So on a Proxmox host the configuration and the keys lie once, in
/etc/pve/priv/s3fsx, and each node has a symbolic link to the configuration in its /etc/s3fsx: one place to change, and
a node that needs something else replaces the link by a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..configuration.config import CONFIG_DIR

PVE_DIR = "/etc/pve"
UNIT_DIR = "/etc/systemd/system"
MOUNTS = "/mnt/pve"  # of the unit s3fsx@.service


@dataclass(frozen=True, slots=True)
class Places:
    """The directories, and what one storage has in them. shared: there is a cluster file system to put things in."""

    name: str
    shared: bool
    config_dir: str = CONFIG_DIR
    pve_dir: str = PVE_DIR
    unit_dir: str = UNIT_DIR

    @classmethod
    def of(cls, name: str, env: Mapping[str, str] = os.environ) -> Places:
        """As the environment says: S3FSX_CONFIG_DIR, S3FSX_PVE_DIR, S3FSX_UNIT_DIR."""
        pve_dir = env.get("S3FSX_PVE_DIR") or PVE_DIR
        return cls(
            name,
            os.path.isdir(os.path.join(pve_dir, "priv")),
            env.get("S3FSX_CONFIG_DIR") or CONFIG_DIR,
            pve_dir,
            env.get("S3FSX_UNIT_DIR") or UNIT_DIR,
        )

    @property
    def storage_cfg(self) -> str:
        return os.path.join(self.pve_dir, "storage.cfg")

    @property
    def _home(self) -> str:
        return os.path.join(self.pve_dir, "priv", "s3fsx") if self.shared else self.config_dir

    @property
    def toml(self) -> str:
        """The configuration itself."""
        return os.path.join(self._home, f"{self.name}.toml")

    @property
    def keys(self) -> str:
        return os.path.join(self._home, f"{self.name}.keys")

    @property
    def link(self) -> str:
        """What ``s3fsx mount NAME`` reads. The same as ``toml`` where nothing is shared."""
        return os.path.join(self.config_dir, f"{self.name}.toml")

    @property
    def nodes(self) -> str:
        """A directory with an empty file for each node that has the storage set up; shared only."""
        return os.path.join(self._home, f"{self.name}.nodes")

    @property
    def unit(self) -> str:
        return f"s3fsx@{self.name}.service"

    @property
    def drop_in(self) -> str:
        return os.path.join(self.unit_dir, f"{self.unit}.d", "mountpoint.conf")

    @property
    def mountpoint(self) -> str:
        """The default."""
        return f"{MOUNTS}/{self.name}"
