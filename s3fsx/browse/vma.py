"""The VMA archive, which vzdump writes for virtual machines: read as a stream, bounded, believing nothing. Pure.

The format (pve-qemu, vma_spec.txt and vma.h), numbers in network order:

    header, 12288 bytes and the blobs:  "VMA\\0", version 1, uuid[16], ctime, md5[16] of the header with this field
        zero, offset and size of the blob buffer, header size; at 2044 and 3068 256 pointers each to names and contents
        of configuration files; at 4096 256 devices of 32 bytes: pointer to the name, 4 unused, size, 16 unused
    blob:  its length (2 bytes, little endian), its bytes; a pointer counts from the beginning of the buffer
    extent:  "VMAE", 2 unused, number of 4 KiB blocks that follow, uuid[16], md5[16] of these 512 bytes with this field
        zero, 59 x cluster (64 KiB): 2 bytes mask of the blocks that follow, 1 unused, device, 4 bytes number

The checksums are of the headers only: that the data is right is for the compressor's checksum and those of the store.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from ..errors import ArchiveDamaged
from .walking import Summary

_MAGIC, _EXTENT_MAGIC = b"VMA\0", b"VMAE"
_HEAD = struct.Struct(">4sI16sq16sIII")
_FIXED = 12288
_NAMES, _DATA, _DEVICES, _DEVICE = 2044, 3068, 4096, struct.Struct(">I4xQ16x")
# 256 files of 64 KiB, their names, 256 devices' names: no header of vzdump's is larger.
_LARGEST_HEADER = 34 << 20
_EXTENT = struct.Struct(">4sHH16s16s")
_EXTENT_SIZE, _CLUSTERS = 512, 59
_INFO = struct.Struct(f">{_CLUSTERS}Q")
_BLOCK, _CLUSTER = 4096, 65536
# Of all disks: a bit for each cluster, 128 MiB, of which only what is touched takes memory.
_MOST = 64 << 40
_VMSTATE = "vmstate"


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """files: configuration files, name and content. devices: by their number."""

    uuid: bytes
    created: int
    files: tuple[tuple[str, bytes], ...]
    devices: dict[int, Device]


def header_size(head: bytes | bytearray) -> int:
    """Of the whole header, from its first 60 bytes. Raises ArchiveDamaged."""
    magic, version, _, _, _, _, _, size = _HEAD.unpack_from(head)
    if magic != _MAGIC:
        raise ArchiveDamaged("not a VMA archive")
    if version != 1:
        raise ArchiveDamaged(f"VMA of version {version}, not 1")
    if not _FIXED < size <= _LARGEST_HEADER:
        raise ArchiveDamaged(f"VMA: a header of {size} bytes cannot be right")
    return int(size)


def parse_header(data: bytes | bytearray) -> Header:
    """data: as long as ``header_size`` says. Raises ArchiveDamaged."""
    _, _, uuid, created, md5, blob_at, blob_size, _ = _HEAD.unpack_from(data)
    if _md5(data, 32) != md5:
        raise ArchiveDamaged("VMA: the header does not match its checksum")
    if blob_at < _FIXED or blob_at + blob_size > len(data):
        raise ArchiveDamaged("VMA: the header's blobs are outside of it")
    blobs = memoryview(data)[blob_at : blob_at + blob_size]
    devices = {}
    for number in range(1, 256):
        pointer, size = _DEVICE.unpack_from(data, _DEVICES + number * _DEVICE.size)
        if pointer and size:
            devices[number] = Device(_name(blobs, pointer), size)
    if sum(device.size for device in devices.values()) > _MOST:
        raise ArchiveDamaged(f"VMA: disks of more than {_MOST >> 40} TiB")
    files = []
    for i in range(256):
        (name,), (content,) = (struct.unpack_from(">I", data, at + 4 * i) for at in (_NAMES, _DATA))
        if name and content:
            files.append((_name(blobs, name), _blob(blobs, content)))
    return Header(uuid, created, tuple(files), devices)


def _md5(data: bytes | bytearray | memoryview, at: int) -> bytes:
    """Of data with the 16 bytes at ``at`` zero."""
    digest = hashlib.md5(memoryview(data)[:at], usedforsecurity=False)
    digest.update(bytes(16))
    digest.update(memoryview(data)[at + 16 :])
    return digest.digest()


def _blob(blobs: memoryview, pointer: int) -> bytes:
    if pointer + 2 > len(blobs):
        raise ArchiveDamaged("VMA: a pointer leads out of the header")
    length = int.from_bytes(blobs[pointer : pointer + 2], "little")
    if pointer + 2 + length > len(blobs):
        raise ArchiveDamaged("VMA: a pointer leads out of the header")
    return bytes(blobs[pointer + 2 : pointer + 2 + length])


def _name(blobs: memoryview, pointer: int) -> str:
    name = _blob(blobs, pointer)
    if not name.endswith(b"\0"):
        raise ArchiveDamaged("VMA: a name in the header does not end")
    return name[:-1].decode(errors="replace")


class VmaWalk:
    """``walking.Walk`` of a VMA: every header is checked, each cluster comes once, and none is missing."""

    def __init__(self) -> None:
        self.header: Header | None = None
        self._kept = bytearray()
        self._wanted = _HEAD.size
        self._skip = 0
        self._extents = 0
        self._seen: dict[int, bytearray] = {}  # a bit for each cluster
        self._vmstate = 0

    @property
    def files(self) -> tuple[tuple[str, bytes], ...] | None:
        """None: not come yet."""
        return None if self.header is None else self.header.files

    def feed(self, data: bytes | memoryview) -> None:
        at, view = 0, memoryview(data)
        while at < len(view):
            if self._skip:
                step = min(self._skip, len(view) - at)
                self._skip -= step
                at += step
                continue
            step = min(self._wanted - len(self._kept), len(view) - at)
            self._kept += view[at : at + step]
            at += step
            if len(self._kept) == self._wanted:
                self._came()

    def _came(self) -> None:
        if self.header is not None:
            self._extent()
        elif self._wanted == _HEAD.size:
            self._wanted = header_size(self._kept)
            return
        else:
            self.header = parse_header(self._kept)
            for number, device in self.header.devices.items():
                if device.name != _VMSTATE:
                    self._seen[number] = bytearray(-(-_clusters(device) // 8))
        self._kept.clear()
        self._wanted = _EXTENT_SIZE

    def _extent(self) -> None:
        assert self.header is not None
        what = f"VMA: extent {self._extents}"
        magic, _, blocks, uuid, md5 = _EXTENT.unpack_from(self._kept)
        if magic != _EXTENT_MAGIC:
            raise ArchiveDamaged(f"{what}: there is none")
        if _md5(self._kept, 24) != md5:
            raise ArchiveDamaged(f"{what}: the header does not match its checksum")
        if uuid != self.header.uuid:
            raise ArchiveDamaged(f"{what}: of another archive")
        found = 0
        for info in _INFO.unpack_from(self._kept, _EXTENT.size):
            if number := info >> 32 & 0xFF:
                self._cluster(what, number, info & 0xFFFFFFFF)
                found += (info >> 48).bit_count()
        if found != blocks:
            raise ArchiveDamaged(f"{what}: {blocks} blocks, of which its list has {found}")
        self._skip = blocks * _BLOCK
        self._extents += 1

    def _cluster(self, what: str, number: int, cluster: int) -> None:
        assert self.header is not None
        device = self.header.devices.get(number)
        if device is None:
            raise ArchiveDamaged(f"{what}: of device {number}, which is not there")
        if device.name == _VMSTATE:
            if cluster != self._vmstate:
                raise ArchiveDamaged(f"{what}: the state of the machine is out of order")
            self._vmstate += 1
            return
        if cluster >= _clusters(device):
            raise ArchiveDamaged(f"{what}: beyond the end of {device.name}")
        seen, bit = self._seen[number], 1 << (cluster & 7)
        if seen[cluster >> 3] & bit:
            raise ArchiveDamaged(f"{what}: cluster {cluster} of {device.name} a second time")
        seen[cluster >> 3] |= bit

    def finish(self) -> Summary:
        if self.header is None or self._kept or self._skip:
            raise ArchiveDamaged(
                "VMA: cut short" if self._wanted != _HEAD.size else "not a VMA archive: it is too short"
            )
        size = 0
        for number, seen in self._seen.items():
            device = self.header.devices[number]
            size += device.size
            there = int.from_bytes(seen, "little").bit_count() if len(seen) < 1 << 20 else _bits(seen)
            if there != _clusters(device):
                missing = _clusters(device) - there
                raise ArchiveDamaged(f"VMA: {missing} clusters of {device.name} are missing, of {_clusters(device)}")
        disks = ", ".join(f"{d.name}" for d in self.header.devices.values()) or "none"
        return Summary(f"disks: {disks}", len(self.header.devices), size)


def _bits(seen: bytearray) -> int:
    """Piece by piece: a number as long as all of it would take its memory again."""
    step = 1 << 20
    return sum(int.from_bytes(seen[at : at + step], "little").bit_count() for at in range(0, len(seen), step))


def _clusters(device: Device) -> int:
    return -(-device.size // _CLUSTER)
