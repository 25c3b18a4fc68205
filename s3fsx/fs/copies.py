"""Server-side copies of published objects, of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import trio

from ..errors import DeadlineExceeded, S3fsxError
from ..store.objects import COPY_OF, MAX_COPY, WRITE_ID, ObjectInfo
from .upload import Transfers, Upload
from .version import Version


async def copy_object(
    transfers: Transfers, source: Version, target: str, path: str, metadata: Mapping[str, str] | None = None
) -> ObjectInfo:
    """The target's HEAD, verified; metadata None keeps the source's. Above 5 GiB in parallel parts, and COPY_OF then
    says of which version it is the copy.

    Raises Changed when the source is no longer the version we know.
    """
    store = transfers.store
    await transfers.claim(target, path)
    if source.size <= MAX_COPY:
        return await store.copy(source.key, target, etag=source.etag, metadata=metadata)
    if metadata is None:
        metadata = {k: v for k, v in ((await store.head(source.key)).metadata or {}).items() if k != WRITE_ID}
    upload = await Upload.begin(transfers, target, path, {**metadata, COPY_OF: source.etag})
    try:
        await upload.copy_in(source, source.size)
        info = await upload.finish(path, source.size)
        await upload.forget()
        return info
    except (S3fsxError, trio.Cancelled):
        upload.abort_later()
        raise


@contextmanager
def copied_within(seconds: float, path: str) -> Iterator[None]:
    """Around any number of copies: each has a deadline of its own, and 1000 of them would add up to hours."""
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise DeadlineExceeded(f"{path}: not copied within {seconds:.0f} s") from None
