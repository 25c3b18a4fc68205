"""What only ``s3fsx check`` asks, because no mount needs it: whether the bucket keeps versions, whether objects take
tags. Keys with the rights of a mount may ask neither, so no answer is no failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import AccessDenied, DeadlineExceeded, NotSupported, Rejected, StoreError
from ..store.findings import Asked
from .store import S3Store

T = TypeVar("T")

_TAG = {"Key": "s3fsx-check", "Value": "1"}
_STATES = {"Enabled": "yes", "Suspended": "suspended"}


async def versions(store: S3Store) -> Asked:
    """ "yes", "suspended" or "no"; raises EndpointDown."""

    def look(client: Any) -> str:
        return _STATES.get(str(client.get_bucket_versioning(Bucket=store.options.bucket).get("Status")), "no")

    return await _ask(store, "GetBucketVersioning", "GET VERSIONING", "s3:GetBucketVersioning", look)


async def tags(store: S3Store, key: str) -> Asked:
    """ "yes" when a tag of this object is there once it was set, else "no"; raises EndpointDown."""

    def tag(client: Any) -> str:
        target = {"Bucket": store.options.bucket, "Key": key}
        client.put_object_tagging(**target, Tagging={"TagSet": [_TAG]})
        return "yes" if client.get_object_tagging(**target).get("TagSet") == [_TAG] else "no"

    rights = "s3:PutObjectTagging, s3:GetObjectTagging"
    return await _ask(store, "PutObjectTagging", f"PUT TAGS {key}", rights, tag)


async def _ask(store: S3Store, operation: str, what: str, rights: str, work: Callable[[Any], str]) -> Asked:
    try:
        return Asked(await store.ask(operation, what, work))
    except AccessDenied:
        return Asked("", f"these keys may not ask ({rights})")
    except (NotSupported, Rejected):
        return Asked("no")
    except (StoreError, DeadlineExceeded) as error:  # there are stores that fail at what they do not know
        return Asked("", str(error))
