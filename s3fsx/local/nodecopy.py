"""The copy of a node's journal that lies beside its uploads in the bucket, so that another node can deal with them when
the node is gone for good. Pure.

One JSON object per node, ``<prefix>.s3fsx/journal/<node id>.json``. It says of the parts of an upload only how many
there are and the ETag of the object they make, which is enough to verify what ListParts says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..layout import INTERNAL
from ..store.objects import UploadedPart
from ..store.parts import composite_etag
from .records import UploadRecord

FORMAT = 1
_NODE = re.compile(r"[0-9a-f]{32}")
_STATES = frozenset({"open", "settled", "publishing", "aborting", "removing"})


@dataclass(frozen=True, slots=True)
class CopiedUpload:
    """An upload of another node. parts: their number; composite: the ETag of the object they make. Both, and size, as
    far as they were known: 0 and "" for an upload that is open. etag, modified: as in UploadRecord."""

    key: str
    path: str
    upload_id: str
    write_id: str
    state: str
    created: float
    size: int
    parts: int
    composite: str
    etag: str = ""
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeCopy:
    """time: Unix seconds of its writing, by the node's clock. prefix: of the mount."""

    node: str
    host: str
    time: float
    prefix: str
    uploads: tuple[CopiedUpload, ...]

    @property
    def key(self) -> str:
        return f"{directory(self.prefix)}{self.node}.json"


def directory(prefix: str) -> str:
    """What to list to find the copies of all nodes that mount this prefix."""
    return f"{prefix}{INTERNAL}/journal/"


def composite(parts: Sequence[UploadedPart]) -> str:
    """The ETag of the object they make; of parts whose ETags are no MD5 (KMS) a digest of our own; "" for none."""
    if not parts:
        return ""
    etags = [part.etag for part in parts]
    return composite_etag(etags) or "sha256-" + hashlib.sha256("\n".join(etags).encode()).hexdigest()


def copied(record: UploadRecord) -> CopiedUpload:
    return CopiedUpload(
        record.key,
        record.path,
        record.upload_id,
        record.write_id,
        record.state,
        record.created,
        record.size,
        len(record.parts),
        composite(record.parts),
        record.etag,
        record.modified,
    )


def record_of(upload: CopiedUpload, parts: Sequence[UploadedPart]) -> UploadRecord:
    """parts: what ListParts says, verified."""
    parts = [part for part in parts if part.number <= upload.parts]
    return UploadRecord(
        upload.write_id,
        upload.upload_id,
        upload.state,
        upload.key,
        upload.path,
        upload.created,
        upload.size,
        tuple(parts),
        upload.etag,
        upload.modified,
    )


def difference(upload: CopiedUpload, parts: Sequence[UploadedPart]) -> str:
    """What ListParts says against what the node had written; "" when they agree. (Parts behind the last one are a
    tail that was cut off the file again.)"""
    parts = [part for part in parts if part.number <= upload.parts]
    size = sum(part.size for part in parts)
    if (len(parts), size) != (upload.parts, upload.size):
        return f"{len(parts)} parts of {size} bytes in the store, {upload.parts} of {upload.size} in the copy"
    theirs = composite(parts)
    if theirs != upload.composite:
        return f"the parts in the store make an object with ETag {theirs}, those in the copy {upload.composite}"
    return ""


def to_json(copy: NodeCopy) -> bytes:
    return json.dumps({"format": FORMAT, **asdict(copy)}, indent=1).encode()


def from_json(key: str, prefix: str, data: bytes) -> NodeCopy:
    """Raises ValueError, in one line, for anything that s3fsx has not written."""
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise ValueError(f"has format {document['format']!r}")
        uploads = tuple(CopiedUpload(**upload) for upload in document["uploads"])
        copy = NodeCopy(document["node"], document["host"], document["time"], prefix, uploads)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{key}: is no copy of a journal ({type(error).__name__}: {error})") from None
    if not isinstance(copy.node, str) or not _NODE.fullmatch(copy.node) or copy.key != key:
        raise ValueError(f"{key}: is no copy of a journal (its name is not its node's)")
    if not isinstance(copy.host, str) or not _number(copy.time) or not all(_sound(u, prefix) for u in uploads):
        raise ValueError(f"{key}: is no copy of a journal (a value makes no sense)")
    return copy


def _sound(upload: CopiedUpload, prefix: str) -> bool:
    ids: tuple[object, ...] = (upload.upload_id, upload.write_id)
    texts: tuple[object, ...] = (*ids, upload.key, upload.path, upload.composite, upload.etag)
    numbers: tuple[object, ...] = (upload.created, upload.size, upload.parts, upload.modified)
    return (
        all(isinstance(text, str) for text in texts)
        and all(_number(number) for number in numbers)
        and upload.state in _STATES
        and all(ids)
        and upload.key.startswith(prefix)
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e18
