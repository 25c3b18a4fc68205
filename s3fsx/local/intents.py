"""What replay does with a change of names that a crash cut short. Pure.

The law: an object is deleted only when it is the very version that the intent names and, in a rename, when its other
copy is there. Whatever anybody changed since is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..store.objects import COPY_OF, WRITE_ID, ObjectInfo
from .records import Intent, Piece

# A PUT's time is known from the Date of its answer, a second later than what HEAD will say; LIST tells milliseconds.
_CLOCK = 1.5
# That Date may be a proxy's, whose clock is off; by more than 15 minutes S3's signatures would not work there.
_PROXY = 900.0


@dataclass(frozen=True, slots=True)
class Plan:
    """forward: the change is finished, else undone. delete, left: keys; left are in the way and not ours to judge."""

    forward: bool
    delete: tuple[str, ...]
    left: tuple[str, ...]


def piece_of(info: ObjectInfo, target: str = "") -> Piece:
    write_id = (info.metadata or {}).get(WRITE_ID, "")
    return Piece(info.key, info.etag, info.size, info.modified, write_id, target)


def is_version(piece: Piece, there: ObjectInfo) -> bool:
    """Nobody has written the source since. The same bytes written again have another write id; where that is not known
    a later time; and brought back by a server-side copy, which keeps the write id, a much later one."""
    if (there.etag, there.size) != (piece.etag, piece.size):
        return False
    if piece.write_id and there.metadata is not None:
        return there.metadata.get(WRITE_ID) == piece.write_id and there.modified <= piece.modified + _PROXY
    return there.modified <= piece.modified + _CLOCK


def is_copy(piece: Piece, source: ObjectInfo, target: ObjectInfo | None) -> bool:
    """The target is what the server made of the source: by the recorded ETag, else by metadata, which a copy keeps
    and an independent write of the same bytes has not. (The ETag of a multipart object changes in a copy.)"""
    if target is None or target.size != piece.size:
        return False
    if piece.copy_etag:
        return target.etag == piece.copy_etag
    if source.metadata is None or target.metadata is None:
        return False
    if target.metadata.get(COPY_OF) == piece.etag:
        return True
    return target.metadata == source.metadata and (target.etag == piece.etag or WRITE_ID in target.metadata)


def undecided(intent: Intent, there: Mapping[str, ObjectInfo]) -> list[str]:
    """Keys whose metadata has to be known before ``plan`` can judge."""
    keys: list[str] = []
    for piece in intent.pieces:
        source, target = there.get(piece.source), there.get(piece.target)
        if source is None or (source.etag, source.size) != (piece.etag, piece.size):
            continue
        compared = target is not None and not piece.copy_etag
        if source.metadata is None and (piece.write_id or compared):
            keys.append(piece.source)
        if target is not None and target.metadata is None and compared:
            keys.append(piece.target)
    return keys


def plan(intent: Intent, there: Mapping[str, ObjectInfo]) -> Plan:
    """there: what the bucket has of the pieces' keys now, with metadata for those that are ``undecided``."""
    present = [piece for piece in intent.pieces if piece.source in there]
    ours = [piece for piece in present if is_version(piece, there[piece.source])]
    ready = [p for p in ours if not p.target or is_copy(p, there[p.source], there.get(p.target))]
    others = [piece for piece in ours if piece not in ready]
    changed = tuple(piece.source for piece in present if piece not in ours)
    if intent.phase == "deleting" or (intent.phase == "copying" and len(ready) == len(intent.pieces)):
        return Plan(True, tuple(p.source for p in ready), changed + tuple(p.source for p in others))
    in_the_way = tuple(p.target for p in others if p.target in there)
    return Plan(False, tuple(p.target for p in ready), changed + in_the_way)


def directory_of(keys: Sequence[str]) -> str:
    """The longest prefix with a last slash that all keys have ("" for none): what to list to see them."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(min(keys), max(keys), strict=False))
    directory, slash, _ = "".join(first for first, _ in same).rpartition("/")
    return directory + slash
