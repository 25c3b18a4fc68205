"""Whether data and metadata of a served directory match, and what a crash has left. Blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import S3fsxError
from ..checksums import FULL, encode, named
from ..errors import S3Error
from ..model import Object
from . import files
from .records import digest
from .shelf import Shelf
from .space import Space

_CHUNK = 1 << 20


@dataclass(slots=True)
class Found:
    """damaged: objects whose data is not what was acknowledged; foreign: without metadata; left: of a crash."""

    objects: int = 0
    bytes: int = 0
    damaged: int = 0
    foreign: int = 0
    left: int = 0


def check(path: str, *, data: bool, repair: bool, tell: Callable[[str], object]) -> Found:
    """Raises S3fsxError when it shall repair what is being served; OSError."""
    shelf = Shelf(os.fsencode(os.path.abspath(path)))
    if repair:
        try:
            shelf.claim()
        except BlockingIOError:
            raise S3fsxError(f"{path} is being served: stop the gateway before --repair") from None
    found = Found()
    try:
        for name in shelf.names():
            try:
                _bucket(shelf.space(name)[0], name, found, data, repair, tell)
            except S3Error as error:
                found.damaged += 1
                tell(f"damaged: {name}: {error.message}")
    finally:
        shelf.release()
    tell(
        f"{found.objects} versions of objects, {found.bytes} bytes: {found.damaged} damaged, "
        f"{found.foreign} without metadata, {found.left} files left of a crash{' and removed' if repair else ''}"
    )
    return found


def _bucket(space: Space, name: str, found: Found, data: bool, repair: bool, tell: Callable[[str], object]) -> None:
    used: set[bytes] = set()
    for key in space.all_keys():
        with space.lock:
            entries = space.versions.stack(key)
        for entry in entries:
            found.objects += 1
            found.bytes += entry.object.size
            used.add(b"%s.%d" % (digest(key), entry.object.modified))
            if entry.current and space.records.load(key, entry.object.modified) is None:
                found.foreign += 1
                tell(f"no metadata: {name}/{key.decode()}")
            elif data and (why := _damage(entry.path, entry.object)):
                found.damaged += 1
                tell(f"damaged: {name}/{key.decode()} version {entry.object.version}: {why}")
    for path in space.records.all():
        if os.path.basename(path) not in used:
            found.left += 1
            if repair:
                files.remove(path)
    for path in _lost(space):
        found.left += 1
        tell(f"no object: {os.fsdecode(path)}")


def _lost(space: Space) -> list[bytes]:
    """Files in the bucket that no key leads to: somebody has put them there."""
    known = set()
    for key in space.walk(b""):
        path = space.names.find(key)
        if path is not None:
            known.add(path)
    lost = []
    for entry in files.below(space.path):
        own = entry.path.startswith(space.internal + b"/")
        if not own and entry.path not in known and entry.is_file(follow_symlinks=False):
            lost.append(entry.path)
    return lost


def _damage(path: bytes, found: Object) -> str:
    """What is wrong with the data; "" for nothing, or when nothing is known of it."""
    if found.marker:
        return ""
    checksum = None
    if found.checksum and found.checksum_type == FULL:
        checksum = named(found.algorithm).new()
    parts: list[str] = []
    with open(path, "rb") as file:
        for part in found.parts or (None,):
            left = part.size if part is not None else found.size
            one = hashlib.md5(usedforsecurity=False)
            while left:
                piece = file.read(min(left, _CHUNK))
                if not piece:
                    return "shorter than it was"
                left -= len(piece)
                one.update(piece)
                if checksum is not None:
                    checksum.update(piece)
            parts.append(one.hexdigest())
    if found.parts:
        if parts != [part.etag for part in found.parts]:
            return "the MD5 of a part differs"
    elif parts != [found.etag]:
        return "the MD5 differs"
    if checksum is not None and encode(checksum.digest()) != found.checksum:
        return f"the {found.algorithm} differs"
    return ""
