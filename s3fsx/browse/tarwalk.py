"""The tar archive, which vzdump writes for containers: read as a stream, bounded, believing nothing. Pure.

GNU tar and POSIX pax, as ``tar --sparse --acls --xattrs`` writes them. Python's tarfile is no help with what somebody
may have put into a bucket: it reads a pax header of any size into memory.
"""

from __future__ import annotations

import re

from ..errors import ArchiveDamaged
from .walking import Summary

_BLOCK = 512
# Where vzdump puts the guest's configuration: first into the archive.
_CONFIGURATION = re.compile(r"(?:\./)?(?:etc/vzdump/(?:pct|vps)|qemu-server)\.conf")
_LARGEST_FILE = 1 << 20  # of configuration
# Extended attributes have at most 64 KiB each in Linux, and a file's names of them as much.
_LARGEST_PAX = 4 << 20
_LARGEST_NAME = 64 << 10
_MOST_PADDING = 1 << 20  # after the end; tar fills a record of 10 KiB
_WITHOUT_DATA = b"123456"  # links, devices, directories, FIFOs
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")


class TarWalk:
    """``walking.Walk`` of a tar: every header is checked, and the end is there.

    _taking: what the bytes in _kept will be: "header", "more" (of an old sparse header), "name", "pax" or "file".
    _next_name, _next_size: of the member that follows, where a header before it says so.
    """

    def __init__(self) -> None:
        self.files: tuple[tuple[str, bytes], ...] | None = None
        self._kept = bytearray()
        self._taking = "header"
        self._wanted = _BLOCK
        self._padding = 0
        self._skip = 0
        self._next_name: str | None = None
        self._next_size: int | None = None
        self._name = ""
        self._members = 0
        self._size = 0
        self._zeros = 0
        self._after = 0

    def feed(self, data: bytes | memoryview) -> None:
        at, view = 0, memoryview(data)
        while at < len(view):
            if self._zeros == 2:
                self._after += len(view) - at
                if self._after > _MOST_PADDING:
                    raise ArchiveDamaged("tar: there is something behind its end")
                return
            if self._skip:
                step = min(self._skip, len(view) - at)
                self._skip -= step
                at += step
                continue
            step = min(self._wanted - len(self._kept), len(view) - at)
            self._kept += view[at : at + step]
            at += step
            if len(self._kept) == self._wanted:
                taken, self._kept = bytes(self._kept), bytearray()
                self._came(taken)

    def _came(self, taken: bytes) -> None:
        what, self._skip = self._taking, self._padding
        self._taking, self._wanted, self._padding = "header", _BLOCK, 0
        if what == "header":
            self._header(taken)
        elif what == "more":
            if taken[504]:
                self._taking = "more"
            else:
                self._begin_data()
        elif what == "name":
            self._next_name = taken.rstrip(b"\0").decode(errors="replace")
        elif what == "pax":
            self._pax(taken)
        else:
            self.files = ((self._name.rpartition("/")[2], taken),)

    def _header(self, block: bytes) -> None:
        if not any(block):
            self._zeros += 1
            return
        if self._zeros:
            raise ArchiveDamaged("tar: a lone block of zeros in the middle")
        what = f"tar: member {self._members}"
        told = _number(block[148:156], what)
        if told != sum(block[:148]) + 256 + sum(block[156:]):
            raise ArchiveDamaged(
                f"{what}: the header does not match its checksum" if self._members else "not a tar archive"
            )
        kind, size = block[156:157], _number(block[124:136], what)
        if kind in (b"L", b"K"):
            self._take("name" if kind == b"L" else "", size, _LARGEST_NAME, f"{what}: a name")
            return
        if kind in (b"x", b"X", b"g"):
            self._take("pax" if kind != b"g" else "", size, _LARGEST_PAX, f"{what}: a pax header")
            return
        name = block[:100].rstrip(b"\0")
        if block[257:263] == b"ustar\0" and block[345]:
            name = block[345:500].rstrip(b"\0") + b"/" + name
        self._name = name.decode(errors="replace") if self._next_name is None else self._next_name
        size = size if self._next_size is None else self._next_size
        self._next_name = self._next_size = None
        self._members += 1
        if kind in _WITHOUT_DATA:
            return
        self._size += size
        self._next_size = size
        if kind == b"S" and block[482]:
            self._taking = "more"
        else:
            self._begin_data()

    def _begin_data(self) -> None:
        size, self._next_size = self._next_size or 0, None
        if self.files is None and _CONFIGURATION.fullmatch(self._name) and size:
            self._take("file", size, _LARGEST_FILE, f"tar: {self._name}")
        else:
            self._skip = -(-size // _BLOCK) * _BLOCK

    def _take(self, what: str, size: int, limit: int, of: str) -> None:
        if size > limit:
            raise ArchiveDamaged(f"{of} of {size} bytes cannot be right")
        if what and size:
            self._taking, self._wanted, self._padding = what, size, -size % _BLOCK
        else:
            self._skip = -(-size // _BLOCK) * _BLOCK

    def _pax(self, records: bytes) -> None:
        """Of all that a pax header can say, how long the member is, and whether it is the configuration."""
        at = 0
        while at < len(records):
            length = int(head[0]) if (head := re.match(rb"[0-9]{1,10}(?= )", records[at : at + 11])) else 0
            record = records[at : at + length]
            if not record.endswith(b"\n") or len(record) < length:
                raise ArchiveDamaged(f"tar: member {self._members}: a pax header that is none")
            key, _, value = record.partition(b" ")[2][:-1].partition(b"=")
            if key == b"size":
                if not re.fullmatch(rb"[0-9]{1,19}", value):
                    raise ArchiveDamaged(f"tar: member {self._members}: a size that is none")
                self._next_size = int(value)
            elif key in (b"path", b"GNU.sparse.name"):
                self._next_name = value.decode(errors="replace")
            at += length

    def finish(self) -> Summary:
        if not self._members and not self._zeros:
            raise ArchiveDamaged("not a tar archive: it is too short")
        if self._zeros < 2 or self._skip or self._kept:
            raise ArchiveDamaged(f"tar: cut short after {self._members} members")
        return Summary(f"{self._members} files", self._members, self._size)


def _number(field: bytes, what: str) -> int:
    """Octal, or for what does not fit GNU's base 256. Raises ArchiveDamaged."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
        if value < 1 << 63:
            return value
    elif match := _OCTAL.fullmatch(field):
        return int(match[1] or b"0", 8)
    raise ArchiveDamaged(f"{what}: a number that is none")
