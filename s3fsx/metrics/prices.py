"""What requests cost, by a table of prices. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Amazon's list prices of docs/COSTS.md, in dollars: of 1000 requests, and of a GB (1000^3 bytes) of objects.
AMAZON: Mapping[str, float] = MappingProxyType(
    {"put": 0.005, "get": 0.0004, "delete": 0.0, "sent_gb": 0.0, "received_gb": 0.09}
)
PRICES = tuple(AMAZON)

# How Amazon bills each request: PUT, COPY, POST and LIST are one class; DELETE and the abort of an upload are free.
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "PutObject": "put",
        "CopyObject": "put",
        "UploadPart": "put",
        "UploadPartCopy": "put",
        "CreateMultipartUpload": "put",
        "CompleteMultipartUpload": "put",
        "PutObjectLegalHold": "put",
        "RestoreObject": "put",
        "ListObjectsV2": "put",
        "ListParts": "put",
        "ListMultipartUploads": "put",
        "GetObject": "get",
        "HeadObject": "get",
        "GetObjectLegalHold": "get",
        "GetObjectRetention": "get",
        "GetObjectLockConfiguration": "get",
        "DeleteObject": "delete",
        "DeleteObjects": "delete",
        "AbortMultipartUpload": "delete",
    }
)
# Nobody bills a request that did not arrive, nor one that was answered with 5xx.
_FREE = frozenset({"ConnectionFailed", "ServerFault", "Throttled"})


def cost(
    outcomes: Mapping[str, Mapping[str, int]], sent: int, received: int, prices: Mapping[str, float]
) -> dict[str, float]:
    """By what it was paid for ("put", ..., "sent_gb", "received_gb"), in the currency of ``prices``. What that does not
    name costs as at Amazon. outcomes: requests by operation and outcome. An operation that is not known is a "get"."""
    table = {**AMAZON, **prices}
    counts = dict.fromkeys(("put", "get", "delete"), 0)
    for operation, by_outcome in outcomes.items():
        billed = sum(count for outcome, count in by_outcome.items() if outcome not in _FREE)
        counts[CLASSES.get(operation, "get")] += billed
    requests = {kind: count * table[kind] / 1000 for kind, count in counts.items()}
    return requests | {"sent_gb": sent * table["sent_gb"] / 1e9, "received_gb": received * table["received_gb"] / 1e9}
