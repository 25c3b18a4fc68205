"""Archives as vzdump writes them, made here: no Proxmox program is needed, and every byte can be made wrong."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

CLUSTER, BLOCK = 65536, 4096
UUID = bytes(range(16))

QEMU_CONF = b"boot: order=scsi0\ncores: 4\nmemory: 8192\nname: web\nscsi0: local-lvm:vm-100-disk-0,size=32G\n"
PCT_CONF = b"arch: amd64\ncores: 2\nhostname: mail\nrootfs: local-lvm:vm-101-disk-0,size=8G\n"


def sealed(block: bytes, at: int) -> bytes:
    """With the MD5 of the block, made while its 16 bytes at ``at`` are zero."""
    zeroed = block[:at] + bytes(16) + block[at + 16 :]
    return zeroed[:at] + hashlib.md5(zeroed).digest() + zeroed[at + 16 :]


@dataclass
class VmaWriter:
    """After vma_spec.txt of pve-qemu. disks: name -> content. header_fields: overrides, by name, of what is told."""

    disks: Mapping[str, bytes]
    files: Mapping[str, bytes] = field(default_factory=lambda: {"qemu-server.conf": QEMU_CONF})
    told: Mapping[str, int] = field(default_factory=dict)

    def header(self) -> bytes:
        blobs = bytearray(1)

        def blob(data: bytes) -> int:
            at = len(blobs)
            blobs.extend(len(data).to_bytes(2, "little") + data)
            return at

        names, contents = [0] * 256, [0] * 256
        for i, (name, content) in enumerate(self.files.items()):
            names[i], contents[i] = blob(name.encode() + b"\0"), blob(content)
        devices = [(0, 0)] * 256
        for number, (name, content) in enumerate(self.disks.items(), 1):
            devices[number] = blob(name.encode() + b"\0"), self.told.get(f"size {name}", len(content))
        blobs.extend(bytes(-len(blobs) % 512))
        size = 12288 + len(blobs)
        fixed = struct.pack(
            ">4sI16sq16sIII",
            b"VMA\0",
            self.told.get("version", 1),
            UUID,
            1_763_000_000,
            bytes(16),
            self.told.get("blob offset", 12288),
            self.told.get("blob size", len(blobs)),
            self.told.get("header size", size),
        )
        fixed += bytes(2044 - len(fixed)) + struct.pack(">256I256I", *names, *contents) + bytes(4)
        fixed += b"".join(struct.pack(">I4xQ16x", pointer, length) for pointer, length in devices)
        return sealed(fixed + bytes(blobs), 32)

    def clusters(self) -> list[tuple[int, int, bytes]]:
        """(device, number, 64 KiB) in the order of the disks."""
        return [
            (device, number, content[number * CLUSTER :][:CLUSTER].ljust(CLUSTER, b"\0"))
            for device, content in enumerate(self.disks.values(), 1)
            for number in range(-(-len(content) // CLUSTER))
        ]

    def archive(self, clusters: list[tuple[int, int, bytes]] | None = None) -> bytes:
        chosen = self.clusters() if clusters is None else clusters
        extents = [extent(chosen[at : at + 59]) for at in range(0, len(chosen), 59)]
        return self.header() + b"".join(extents)


def extent(clusters: list[tuple[int, int, bytes]], uuid: bytes = UUID, blocks: int | None = None) -> bytes:
    """Blocks of zeros are left out, as vzdump does."""
    infos, data = [], b""
    for device, number, content in clusters:
        mask = 0
        for j in range(16):
            block = content[j * BLOCK : (j + 1) * BLOCK]
            if any(block):
                mask |= 1 << j
                data += block
        infos.append(mask << 48 | device << 32 | number)
    infos += [0] * (59 - len(infos))
    head = struct.pack(
        ">4sHH16s16s59Q", b"VMAE", 0, len(data) // BLOCK if blocks is None else blocks, uuid, bytes(16), *infos
    )
    return sealed(head, 24) + data


def disk(size: int, seed: int = 1) -> bytes:
    """Half of it zeros, half noise."""
    noise = random.Random(seed)
    return b"".join(noise.randbytes(BLOCK) if i % 2 else bytes(BLOCK) for i in range(size // BLOCK))


def vma(size: int = 1 << 20, seed: int = 1) -> bytes:
    return VmaWriter({"drive-scsi0": disk(size, seed), "drive-efidisk0": disk(131072, seed + 1)}).archive()


def container(size: int = 1 << 20, *, form: int = tarfile.PAX_FORMAT, conf: bytes = PCT_CONF, seed: int = 1) -> bytes:
    """The tar of a container: vzdump's files first, then the root directory, with a name too long for a header."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as tar:

        def add(name: str, content: bytes | None) -> None:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(content)
                if form == tarfile.PAX_FORMAT:
                    member.pax_headers = {"SCHILY.xattr.user.note": "x" * 300}
                tar.addfile(member, io.BytesIO(content))

        add("./etc/vzdump/pct.conf", conf)
        add("./", None)
        add("./etc/", None)
        add("./etc/hostname", b"mail\n")
        add("./usr/share/" + "long/" * 60 + "name", b"deep")
        add("./var/data", random.Random(seed).randbytes(size))
    return whole.getvalue()


def compressed(data: bytes, extension: str) -> bytes:
    """By the program that vzdump would use."""
    commands = {"zst": ["zstd", "-q", "-c"], "gz": ["gzip", "-c"], "lzo": ["lzop", "-c"], "bz2": ["bzip2", "-c"]}
    if not extension:
        return data
    return subprocess.run(commands[extension], input=data, stdout=subprocess.PIPE, check=True, timeout=60).stdout
