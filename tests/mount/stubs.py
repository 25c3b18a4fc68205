"""pvesm and systemctl for hosts that have neither: python -m tests.mount.stubs pvesm|systemctl ARGUMENTS.

They do what the real ones do as far as s3fsx can see it: storage.cfg is written and an added storage is activated (with
the mount check and the directories of Proxmox); the unit s3fsx@NAME mounts with its drop-in's MOUNTPOINT, as a daemon.
And they look at what they are given: unknown arguments fail, and so does any environment with a secret in it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from s3fsx.kernel.mountpoint import mounted
from s3fsx.pve.storagecfg import Section, parse

HOME = Path(os.environ["STUB_HOME"])
STORAGE_CFG = Path(os.environ["S3FSX_PVE_DIR"]) / "storage.cfg"
CONTENT_DIRS = {
    "backup": "dump",
    "iso": "template/iso",
    "vztmpl": "template/cache",
    "snippets": "snippets",
    "import": "import",
}
# pve-storage, DirPlugin.pm: options.
KNOWN = "path content-dirs nodes shared disable prune-backups max-protected-backups content format mkdir "
KNOWN += "create-base-path create-subdirs is_mountpoint bwlimit preallocation delete"


def fail(text: str, code: int = 255) -> NoReturn:
    sys.stderr.write(text + "\n")
    sys.exit(code)


def write(sections: list[Section]) -> None:
    lines = []
    for section in sections:
        lines += [f"{section.kind}: {section.name}", *(f"\t{k} {v}" for k, v in section.properties.items()), ""]
    STORAGE_CFG.write_text("\n".join(lines))


def pvesm(command: str, *arguments: str) -> None:
    if (HOME / "pvesm-fails").exists():
        fail("create storage failed: got lock request timeout")
    sections = list(parse(STORAGE_CFG.read_text())) if STORAGE_CFG.exists() else []
    names = [section.name for section in sections]
    words = list(arguments)
    kind = words.pop(0) if command == "add" else ""
    name = words.pop(0)
    flags = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
    if unknown := [flag for flag in flags if flag not in KNOWN.split()]:
        fail(f"Unknown option: {unknown[0]}\n400 unable to parse option")
    if command == "add":
        if name in names:
            fail(f"create storage failed: storage ID '{name}' already defined")
        if kind != "dir" or not re.fullmatch(r"/[-/a-zA-Z0-9_.@]+", flags["path"]):
            fail(f"illegal path for directory storage: {flags['path']}")
        if flags.get("is_mountpoint") == "yes" and flags["path"] not in mounted():
            fail(f"unable to activate storage '{name}' - directory is expected to be a mount point but is not mounted")
        for content in flags["content"].split(","):
            os.makedirs(f"{flags['path']}/{CONTENT_DIRS[content]}", exist_ok=True)
        sections.append(Section(kind, name, flags))
    elif name not in names:
        fail(f"storage '{name}' does not exist")
    elif command == "set":
        there = sections[names.index(name)]
        kept = {k: v for k, v in there.properties.items() if k != flags.get("delete")}
        sections[names.index(name)] = Section(
            there.kind, name, kept | {k: v for k, v in flags.items() if k != "delete"}
        )
    elif command == "remove":
        del sections[names.index(name)]
    else:
        fail(f"ERROR: unknown command 'pvesm {command}'")
    write(sections)


def where(name: str) -> str:
    drop_in = Path(os.environ["S3FSX_UNIT_DIR"]) / f"s3fsx@{name}.service.d" / "mountpoint.conf"
    found = re.search(r"^Environment=MOUNTPOINT=(.+)$", drop_in.read_text(), re.MULTILINE) if drop_in.exists() else None
    return found[1] if found else f"/mnt/pve/{name}"


def systemctl(command: str, *arguments: str) -> None:
    if command == "daemon-reload":
        return
    unit = arguments[-1]
    name = unit.removeprefix("s3fsx@").removesuffix(".service")
    enabled = HOME / f"enabled-{name}"
    s3fsx = [sys.executable, "-m", "s3fsx"]
    if command == "cat":
        sys.exit(1 if (HOME / "no-unit").exists() else 0)
    elif command == "enable":
        enabled.touch()
    elif command == "disable":
        enabled.unlink(missing_ok=True)
    elif command == "is-enabled":
        sys.exit(0 if enabled.exists() else 1)
    elif command == "is-active":
        sys.exit(0 if where(name) in mounted() else 3)
    elif command in ("start", "stop", "restart"):
        if command in ("stop", "restart") and where(name) in mounted():
            subprocess.run([*s3fsx, "umount", where(name)], check=True)
        if command in ("start", "restart") and where(name) not in mounted():
            os.makedirs(where(name), exist_ok=True)
            if (
                subprocess.run([*s3fsx, "mount", name, where(name)], check=False).returncode
                and "--no-block" not in arguments
            ):
                fail(f"Job for {unit} failed because the control process exited with error code.", 1)
    else:
        fail(f"Unknown command verb {command}.", 1)


def main() -> None:
    with (HOME / "calls").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    if any(name.startswith("AWS_") or "SECRET" in name for name in os.environ):
        fail("a secret is in the environment")
    {"pvesm": pvesm, "systemctl": systemctl}[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
