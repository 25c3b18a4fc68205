"""Object lock: what a bucket asks for, what a version holds, and what may then be deleted. Pure but for its call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .call import Call
from .errors import S3Error
from .model import COMPLIANCE, GOVERNANCE, Bucket, Object

_DAY = 86400


def need_lock(bucket: Bucket) -> None:
    """Raises S3Error: the bucket was made without object lock."""
    if not bucket.settings.get("lock"):
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


def default_retention(wanted: Object, bucket: Bucket, now: float) -> Object:
    """By the bucket's rule."""
    rule = (bucket.settings.get("lock") or {}).get("rule")
    if not rule:
        return wanted
    days = rule["days"] if rule.get("days") else 365 * rule["years"]
    return replace(wanted, mode=rule["mode"], until=int(now) + days * _DAY)


def bypasses(call: Call) -> bool:
    """Amazon has a permission of its own for it; here it is the owner's, not that of all who may write."""
    asked = call.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"
    return asked and call.owns and not call.granted


def guard_for(call: Call) -> Callable[[Object], None]:
    """Raises S3Error for versions that are held."""
    bypass, now = bypasses(call), call.now

    def guard(version: Object) -> None:
        kept = version.mode and version.until > now
        if version.hold or (kept and (version.mode == COMPLIANCE or not bypass)):
            raise S3Error("AccessDenied", "Access Denied because object protected by object lock.")

    return guard


def check_change(old: Object, mode: str, until: int, *, bypass: bool, now: float) -> None:
    """Of a retention. Raises S3Error: longer is always possible, anything else only of GOVERNANCE with the bypass."""
    if not old.mode or old.until <= now:
        return
    if until >= old.until and mode == old.mode:
        return
    if old.mode == GOVERNANCE and bypass:
        return
    raise S3Error("AccessDenied", "Access Denied because object protected by object lock.")
