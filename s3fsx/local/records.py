"""What the journal remembers, as values: uploads that are not finished, and changes of published names.

Records of uploads are keyed by the write id, which the object's own metadata carries too (``s3fsx-write``): an object
in the bucket can be told to be ours. States:

    opening     CreateMultipartUpload is about to be sent; the upload id is not known yet
    open        parts are being sent; nothing has returned success        -> replay aborts it
    settled     a temporary name was closed, every part is in the store   -> replay brings the file back, unpublished
    publishing  CompleteMultipartUpload is about to be sent, for ``path`` -> replay finishes it
    aborting    the file was deleted or failed                            -> replay aborts it
    removing    the same, and its Complete may have had its effect        -> replay aborts it and removes its object

Phases of an intent, a change of names:

    copying   the pieces are being copied                  -> replay finishes it if every copy is there, else undoes it
    deleting  every copy is verified (or none was needed)  -> replay deletes the sources that are left
    undoing   it failed, and its program was told so       -> replay deletes the copies that are left
"""

from __future__ import annotations

from dataclasses import dataclass

from ..store.objects import UploadedPart


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """One unfinished upload. key: what Complete will create. path: the file name it stands for, which differs from
    the key's own path while a temporary name waits for its rename. size: bytes, 0 until settled. etag, modified: of
    the object once it is completed under a key it is not to keep, so that nothing else is ever deleted for it. resent:
    the last part of a settled file as it is about to be sent again, without its ETag, because more was written."""

    write_id: str
    upload_id: str
    state: str
    key: str
    path: str
    created: float
    size: int = 0
    parts: tuple[UploadedPart, ...] = ()
    etag: str = ""
    modified: float = 0.0
    resent: UploadedPart | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One object that changes its name. source: its key; etag, size, modified (Unix seconds), write_id ("" not known):
    the version that is meant, and no other. target: the key it is copied to, "" where it is only deleted. copy_etag:
    of the verified copy, "" as long as it is not recorded."""

    source: str
    etag: str
    size: int
    modified: float
    write_id: str = ""
    target: str = ""
    copy_etag: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """A rename or deletion of published objects that was begun. path: the name the user gave, for the log."""

    intent_id: str
    phase: str
    path: str
    created: float
    pieces: tuple[Piece, ...]
