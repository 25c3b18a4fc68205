"""The state of a mount as one document: what ``s3fsx status`` shows, and what its metrics are made from.

Made in the event loop, from what its owners count anyway: no request, no disk, and nothing that grows with the number
of names. docs/MONITORING.md describes each field.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import __version__
from ..configuration.settings import Settings
from ..fs.listing import Listings
from ..fs.unpublished import Pending
from ..fs.upload import Transfers
from ..kernel.fuse import FileSystem
from ..local.blockcache import BlockCache
from ..local.cache import MetadataCache
from ..local.journal import Journal
from ..metrics import prices
from ..metrics.histogram import Histogram
from ..s3.store import S3Store
from ..store.verified import VerifiedStore
from ..transfer.memory import Budget
from . import log
from .state import source, url

MOST_FILES = 100  # named in a document: 4 KiB each at most, and a document has 1 MiB


@dataclass(frozen=True)
class Parts:
    """What a mount consists of, as far as it is looked at here."""

    settings: Settings
    store: S3Store
    verified: VerifiedStore
    journal: Journal
    cache: MetadataCache
    blocks: BlockCache
    budget: Budget
    listings: Listings
    transfers: Transfers
    fuse: FileSystem
    mountpoint: str


class Snapshot:
    """Call it for the document of now."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started = time.time()
        daemon = os.path.realpath("/proc/self/fd/1") == os.devnull  # as daemonise has made it
        self._log = log.place(parts.settings.log_file, daemon=daemon)

    def __call__(self) -> dict[str, object]:
        p, now = self._parts, time.time()
        capabilities = p.store.capabilities
        return {
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": p.mountpoint,
            "source": source(p.settings),
            "time": now,
            "started": self._started,
            "log": self._log,
            "uptime_s": round(now - self._started),
            "endpoint": self._endpoint(now),
            "verified_by": capabilities.integrity,
            "conditional_writes": capabilities.conditional_put,
            "object_lock": capabilities.object_lock,
            "notes": list(capabilities.notes),
            "reads": asdict(p.verified.counters),
            "memory": {
                "budget": p.budget.total,
                "in_use": p.budget.held,
                "reserved": p.budget.reserved,
                "peak": p.budget.peak,
            },
            **self._files(now),
            "nodes": len(p.listings.tree),
            "metadata_cache": {
                "hits": p.cache.hits,
                "misses": p.cache.misses,
                "evictions": p.cache.evictions,
                "used": p.cache.bytes,
                "limit": p.cache.limit,
            },
            "block_cache": p.blocks.snapshot(),
            "hidden_keys": sum(p.listings.hidden.values()),
            "errors": p.fuse.requests.errors,
            "recent_errors": [{"time": when, "text": text[:1000]} for when, text in p.fuse.requests.recent],
            "requests_under_way": p.fuse.requests.under_way,
            "latency": {"s3": _documents(p.store.traffic.seconds), "fuse": _documents(p.fuse.requests.seconds)},
            "process": _process(),
        }

    def _endpoint(self, now: float) -> dict[str, object]:
        endpoint, traffic = self._parts.store.endpoint, self._parts.store.traffic
        outcomes = {operation: dict(counts) for operation, counts in traffic.outcomes.items()}
        return {
            "url": url(self._parts.settings),
            "down": endpoint.down,
            "down_since": endpoint.down_since,
            "down_for_s": 0 if endpoint.down_since is None else max(0, round(now - endpoint.down_since)),
            "refused_for_s": round(endpoint.refused_for),
            "outages": endpoint.outages,
            "last_success": endpoint.last_success,
            "last_error": endpoint.last_error,
            "last_error_at": endpoint.last_error_at,
            "clock_skew_s": traffic.clock_skew,
            "requests": dict(traffic.requests),
            "requests_under_way": {name: count for name, count in traffic.in_flight.items() if count},
            "outcomes": outcomes,
            "retries": endpoint.retries,
            "errors": dict(endpoint.errors),
            "sent": traffic.sent,
            "received": traffic.received,
            "cost": prices.cost(outcomes, traffic.sent, traffic.received, self._parts.settings.prices),
            "currency": "" if self._parts.settings.prices else "USD",  # of Amazon's list
        }

    def _files(self, now: float) -> dict[str, object]:
        p = self._parts
        pending, readers, slots = p.transfers.unpublished.pending(), p.fuse.handles.readers(), p.transfers.slots
        return {
            "files": {
                "open": len(p.fuse.handles),
                "writing": p.fuse.handles.written(),
                "reading": len(readers),
                "waiting_for_rename": sum(each.settled for each in pending),
                "unpublished_bytes": sum(each.size for each in pending),
                "oldest_unpublished_s": max((now - each.since for each in pending if each.size), default=0.0),
                "unfinished_uploads": len(p.journal.unfinished),
            },
            "parts": {"in_flight": slots.in_use, "waiting": slots.waiting, "places": slots.limit},
            "writes": [_write(each, now) for each in pending[:MOST_FILES]],
            "reads_of": [
                {"path": path, "size": reader.version.size, "position": reader.position}
                for path, reader in readers[:MOST_FILES]
            ],
        }


def _write(pending: Pending, now: float) -> dict[str, object]:
    return {
        "path": pending.path,
        "size": pending.size,
        "in_bucket": pending.stored,
        "parts": pending.parts,
        "parts_in_flight": pending.parts_in_flight,
        "waits_for_rename": pending.settled,
        "age_s": max(0.0, round(now - pending.since, 1)),
    }


def _documents(histograms: Mapping[str, Histogram]) -> dict[str, object]:
    return {operation: histogram.document() for operation, histogram in histograms.items()}


def _process() -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "resident": resident}
