"""A node of a Proxmox cluster for tests: its own /etc/s3fsx, units and mount point, the cluster's /etc/pve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from s3fsx.pve.storagecfg import Section, parse
from tests.checklogs import LogWatch
from tests.mount.harness import COMMAND, ROOT, detach, environment
from tests.s3server import S3Server


class PveHost:
    """pve: the cluster's /etc/pve. Use as a context manager: it leaves no mount behind."""

    def __init__(self, server: S3Server, home: Path, pve: Path, watch: LogWatch) -> None:
        self.server = server
        self.home = home
        self.pve = pve
        self.config = home / "etc"
        self.units = home / "units"
        self.mountpoint = home / "mnt" / "pve" / "backup"
        self.log = home / "s3fsx.log"
        for directory in (self.config, self.units, home / "bin"):
            directory.mkdir(parents=True)
        watch.follow(self.log)
        directories = {name: str(home / name) for name in ("cache_dir", "state_dir", "runtime_dir")}
        common = {**directories, "log_file": str(self.log), "max_uploads": "4"}
        (self.config / "s3fsx.toml").write_text("".join(f'{k} = "{v}"\n' for k, v in common.items()))
        for program in ("pvesm", "systemctl"):
            stub = home / "bin" / program
            stub.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.mount.stubs {program} "$@"\n')
            stub.chmod(0o755)
        command = home / "bin" / "s3fsx"
        command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m s3fsx "$@"\n')
        command.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in environment(self.server).items() if not k.startswith("AWS_")}
        return {
            **clean,
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "S3FSX_CONFIG_DIR": str(self.config),
            "S3FSX_PVE_DIR": str(self.pve),
            "S3FSX_UNIT_DIR": str(self.units),
            "STUB_HOME": str(self.home),
        }

    def run(self, *arguments: str, stdin: str = "", **more: str) -> tuple[int, str, str]:
        """s3fsx pve ARGUMENTS: exit code, standard output, standard error."""
        done = subprocess.run(
            [*COMMAND, "pve", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**self.environment, **more},
            cwd="/",
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def calls(self) -> list[list[str]]:
        """What the stubs were asked since the last time."""
        file = self.home / "calls"
        found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    def storages(self) -> dict[str, Section]:
        file = self.pve / "storage.cfg"
        return {section.name: section for section in parse(file.read_text())} if file.exists() else {}

    def files(self) -> dict[str, str]:
        """Everything below /etc of this node and of the cluster."""
        found = {}
        for top in (self.config, self.pve, self.units):
            for path in sorted(top.rglob("*")):
                if path.is_symlink():
                    found[str(path)] = f"-> {path.readlink()}"
                elif path.is_file():
                    found[str(path)] = path.read_text()
        return found

    def __enter__(self) -> PveHost:
        return self

    def __exit__(self, *_: object) -> None:
        detach(self.mountpoint)
