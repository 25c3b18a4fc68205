"""An upload in the store's list of unfinished ones, and whether it is gone: a 404 alone, which a proxy can say as well,
is not enough to give up a file."""

from __future__ import annotations

from ..errors import S3fsxError
from ..local.records import UploadRecord
from ..store.objects import Store, UploadInfo


async def unfinished(store: Store, record: UploadRecord) -> UploadInfo | None:
    """Raises what the store raises."""
    uploads = await store.list_uploads(record.key)
    return next((upload for upload in uploads if upload.upload_id == record.upload_id), None)


async def is_gone(store: Store, record: UploadRecord) -> bool:
    """The store answers its list of the unfinished uploads, and has not this one. No answer is no."""
    try:
        return await unfinished(store, record) is None
    except S3fsxError:
        return False
