"""Whether an upload is gone: a 404 alone, which a proxy in between can say as well, is not enough to give up a file."""

from __future__ import annotations

from .errors import S3fsxError
from .objects import Store
from .records import UploadRecord


async def is_gone(store: Store, record: UploadRecord) -> bool:
    """The store answers its list of the unfinished uploads, and has not this one. No answer is no."""
    try:
        uploads = await store.list_uploads(record.key)
    except S3fsxError:
        return False
    return all(upload.upload_id != record.upload_id for upload in uploads)
