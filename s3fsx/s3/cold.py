"""Objects in a storage class that cannot be read at once: asking for a copy that can, and whether it is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from .client import ANSWERED
from .hidden import missing_object
from .store import S3Store

# Amazon's that need it. GLACIER_IR is read at once.
CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
TIERS = ("Standard", "Bulk", "Expedited")

# x-amz-restore: ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"
_RESTORE = re.compile(r'ongoing-request="(true|false)"(?:, *expiry-date="([^"]{1,64})")?')


@dataclass(frozen=True, slots=True)
class Frozen:
    """storage_class: as HEAD says it. asked: a copy is being made. until: Unix seconds at which the copy that is there
    goes, 0 where there is none."""

    storage_class: str
    asked: bool
    until: float

    @property
    def readable(self) -> bool:
        return self.storage_class not in CLASSES or self.until > 0


def parse_restore(storage_class: str, header: str) -> Frozen:
    """Of the header x-amz-restore; one that is none says nothing."""
    match = _RESTORE.match(header)
    if match is None:
        return Frozen(storage_class, False, 0.0)
    try:
        until = parsedate_to_datetime(match[2]).timestamp() if match[2] else 0.0
    except (ValueError, TypeError, OverflowError):
        until = 0.0
    return Frozen(storage_class, match[1] == "true", until if match[1] == "false" else 0.0)


async def look(store: S3Store, key: str) -> Frozen:
    """Asks the store. Raises NotFound, and what a HEAD raises."""

    def work(client: Any) -> Frozen:
        answer: Mapping[str, Any] = client.head_object(Bucket=store.options.bucket, Key=key)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return parse_restore(str(answer.get("StorageClass") or "STANDARD"), str(headers.get("x-amz-restore", "")))

    async with missing_object(store, key):
        return await store.ask("HeadObject", f"HEAD {key}", work)


async def restore(store: S3Store, key: str, days: int, tier: str) -> None:
    """Asks for a copy that can be read for ``days``; that one is being made already is fine. Raises NotSupported,
    Rejected and others: not every store can."""

    def work(client: Any) -> None:
        request = {"Days": days, "GlacierJobParameters": {"Tier": tier}}
        try:
            client.restore_object(Bucket=store.options.bucket, Key=key, RestoreRequest=request)
        except ANSWERED as error:
            answer: Mapping[str, Any] = getattr(error, "response", {})
            if answer.get("Error", {}).get("Code") != "RestoreAlreadyInProgress":
                raise

    await store.ask("RestoreObject", f"RESTORE {key}", work)
