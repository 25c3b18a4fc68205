"""The read-only extended attributes of published files, for browsing by hand."""

from __future__ import annotations

from ..fs.files import Files
from ..fs.tree import File, Node

_PREFIX = b"user.s3fsx."
_LEGAL_HOLD = _PREFIX + b"legal_hold"  # asked from the store


def are_had(name: bytes) -> bool:
    """Of this kind. ``ls -l`` asks for security.selinux and the ACL of every file, twice as many requests as for their
    attributes, until it is told once that a file system has none. The kernel asks for security.capability before
    every write(2) through its page cache."""
    return name.startswith(b"user.")


def _known(node: Node) -> dict[bytes, str]:
    version = node.version if isinstance(node, File) else None
    if version is None:
        return {}
    return {
        _PREFIX + b"key": version.key,
        _PREFIX + b"etag": version.etag,
        _PREFIX + b"storage_class": version.storage_class,
    }


async def get(files: Files, node: Node, name: bytes) -> str | None:
    """None where there is no such attribute."""
    if name == _LEGAL_HOLD and isinstance(node, File):
        held = await files.legal_hold(node)
        return None if held is None else "on" if held else "off"
    return _known(node).get(bytes(name))


def names(node: Node, *, object_lock: bool) -> list[bytes]:
    known = list(_known(node))
    return [*known, _LEGAL_HOLD] if known and object_lock else known
