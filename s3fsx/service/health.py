"""What is wrong with a mount, by the document of its status. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .report import elapsed

# S3 refuses requests whose time is more than 15 minutes off.
_SKEW = 300.0
_REFUSED = 120.0  # seconds; between two questions that keys may not ask something else succeeds


def troubles(document: Mapping[str, Any]) -> Iterator[str]:
    """What has to be looked at now; most urgent first. Nothing for a mount that is well."""
    if "error" in document:
        yield str(document["error"])
        return
    endpoint = document.get("endpoint", {})
    if endpoint.get("down"):
        since = endpoint.get("down_for_s")
        lasted = "" if since is None else f" for {elapsed(since)}"
        # Since it was found out: the last answer, which the line of the store has, may be much older.
        yield f"OUTAGE{lasted}: the store does not answer; {endpoint.get('last_error', '')}"
    refused = endpoint.get("refused_for_s", 0)
    if refused >= _REFUSED:
        yield f"the store has refused everything for {elapsed(refused)}: {endpoint.get('last_error', '')}"
    skew = endpoint.get("clock_skew_s")
    if skew is not None and abs(skew) >= _SKEW:
        yield f"the clocks of this machine and of the store differ by {elapsed(abs(skew))}: at 15 minutes it refuses"


def cautions(document: Mapping[str, Any]) -> Iterator[str]:
    """What an administrator should know, and what has passed."""
    blocks, reads = document.get("block_cache", {}), document.get("reads", {})
    if blocks.get("failed"):
        yield f"the block cache is off until the next mount: {blocks.get('off')}"
    if reads.get("fatal"):
        where = document.get("log", "the log")
        yield f"{reads['fatal']} reads came damaged from the store, each time they were repeated; which: see {where}"
    if reads.get("healed"):
        yield f"{reads['healed']} reads came damaged from the store, and whole when repeated"
    for note in document.get("notes", ()):
        yield str(note)
