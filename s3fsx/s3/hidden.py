"""What is not there, found by a list: keys that may list only below a prefix get 403 from Ceph RGW 16, and not 404; and
a 404 may be a proxy's, or a store's that has lost sight of an object."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..errors import AccessDenied, NotFound, S3fsxError, ServerFault, UploadGone
from ..store.objects import Store
from .client import ANSWERED, failure
from .errors import Unproven
from .params import Params


@asynccontextmanager
async def missing_object(store: Store, key: str, *, known: bool = False) -> AsyncIterator[None]:
    """Around a request for an object. Raises NotFound instead of AccessDenied when the list does not have it; and
    NotFound that nothing proves only then. known: it was there, so that 404 alone proves nothing."""
    try:
        yield
    except (AccessDenied, NotFound) as error:
        doubtful = isinstance(error, Unproven) or (known and isinstance(error, NotFound))
        if isinstance(error, NotFound) and not doubtful:
            raise
        try:
            page = await store.list_page(key, delimiter="", limit=1)
        except S3fsxError as unanswered:
            raise (unanswered if doubtful else error) from None
        if any(info.key == key for info in page.objects):
            raise (ServerFault(f"{error}, and it is listed") if doubtful else error) from None
        raise NotFound(f"{key}: not in the bucket's list ({error})") from None


@asynccontextmanager
async def missing_upload(store: Store, key: str, upload_id: str) -> AsyncIterator[None]:
    """Around a request for an upload. Raises UploadGone instead of AccessDenied when the list does not have it, and
    instead of NotFound, which is Ceph RGW 16's NoSuchKey."""
    try:
        yield
    except NotFound as error:
        raise UploadGone(str(error)) from None
    except AccessDenied as error:
        try:
            there = await store.list_uploads(key)
        except S3fsxError:
            raise error from None
        if any(upload.upload_id == upload_id for upload in there):
            raise
        raise UploadGone(f"{key}: not in the list of uploads ({error})") from None


def upload_is_gone(upload: Params, client: Any) -> bool:
    """In a worker thread. False also where nobody can say."""
    try:
        client.list_parts(**upload, MaxParts=1)
    except ANSWERED as error:
        said = failure("", error)
        if not isinstance(said, AccessDenied):
            return isinstance(said, (NotFound, UploadGone))
    else:
        return False
    try:
        answer: Params = client.list_multipart_uploads(Bucket=upload["Bucket"], Prefix=upload["Key"])
    except ANSWERED:
        return False
    there = {entry.get("UploadId") for entry in answer.get("Uploads", ())}
    return upload["UploadId"] not in there and not answer.get("IsTruncated")
