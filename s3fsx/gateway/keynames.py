"""Keys as paths, and back. Pure, on bytes.

A key's segments are directories and a file, as people expect. What a path cannot say is escaped with ``%``, which
itself becomes ``%25``:

| in the key | in the path |
|---|---|
| a byte NUL, or ``%`` | ``%00``, ``%25`` |
| an empty segment (``a//b``, ``/a``, ``a/``) | ``%_`` |
| the segments ``.``, ``..``, ``.s3fsx-gateway`` | their first dot as ``%2E`` |
| a segment of more than 240 bytes | directories ``first 240 bytes%+``, then the rest |
| the file of a key ``a`` that is in the way of a key ``a/b`` | ``a%~`` |

Only the last depends on what else is there (``directory.names``). Every key has one path, and no path two keys.
"""

from __future__ import annotations

import re

INTERNAL = b".s3fsx-gateway"
ASIDE = b"%~"  # end of a file's name beside the directory of that name
LONGER = b"%+"  # end of a directory's name: the segment goes on in it
EMPTY = b"%_"
PIECE = 240  # bytes of 255, so that the marks fit
MAX_KEY = 1024  # bytes

_ESCAPED = re.compile(rb"%(?:25|00|2E)")
_DOTS = (b".", b"..", INTERNAL)


def to_path(key: bytes) -> list[bytes]:
    """The directories of a key, and its file."""
    components: list[bytes] = []
    for segment in key.split(b"/"):
        components += _components(segment)
    return components


def _components(segment: bytes) -> list[bytes]:
    if not segment:
        return [EMPTY]
    if len(segment) <= PIECE and b"%" not in segment and b"\0" not in segment:
        return [_undotted(segment)]
    out, piece = [], bytearray()
    for byte in segment:
        written = b"%%%02X" % byte if byte in b"%\0" else bytes((byte,))
        if len(piece) + len(written) > PIECE:
            out.append(bytes(piece) + LONGER)
            piece.clear()
        piece += written
    return [*out, _undotted(bytes(piece))]


def _undotted(component: bytes) -> bytes:
    return b"%2E" + component[1:] if component in _DOTS else component


def file_fragment(name: bytes) -> bytes | None:
    """What a file adds to the key of its directory; None: it is none of ours.

    ``to_path`` of the whole key tells whether it also stands where its key would: only then it is one.
    """
    name = name.removesuffix(ASIDE)
    return b"" if name == EMPTY else _plain(name)


def directory_fragment(name: bytes) -> bytes | None:
    """With its slash, but where the segment goes on in the directory."""
    if name.endswith(LONGER):
        return _plain(name.removesuffix(LONGER))
    fragment = b"" if name == EMPTY else _plain(name)
    return None if fragment is None else fragment + b"/"


def _plain(name: bytes) -> bytes | None:
    if b"%" not in name:
        return None if name == INTERNAL else name
    if b"%" in _ESCAPED.sub(b"", name):
        return None
    return _ESCAPED.sub(lambda found: bytes((int(found[0][1:], 16),)), name)
