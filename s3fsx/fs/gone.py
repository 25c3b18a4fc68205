"""Whether an upload, or an object that this mount knows, is gone: a 404 alone, which a proxy can say as well, or a
store that has lost sight of it, is not enough to give up a file."""

from __future__ import annotations

from ..errors import NotFound, S3fsxError, ServerFault
from ..local.records import UploadRecord
from ..store.objects import ObjectInfo, Store, UploadInfo


class StillListed(ServerFault):
    """HEAD says 404 of one object, and the list has it. Says nothing of others."""


async def still_listed(store: Store, key: str) -> bool:
    """Raises what the store raises."""
    page = await store.list_page(key, delimiter="", limit=1)
    return any(info.key == key for info in page.objects)


async def present(store: Store, key: str, *, known: bool) -> ObjectInfo | None:
    """The object, None where there is none. known: it was there, so that the list has to say that it is gone, too.
    Raises what the store raises; StillListed."""
    try:
        return await store.head(key)
    except NotFound as error:
        if known and await still_listed(store, key):
            raise StillListed(f"{error}, and it is listed") from None
        return None


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
