"""``s3fsx status`` for people: the document of a mount as lines. Pure.

A line has a tone, which a terminal shows as a colour. What is missing in the document (of a daemon that is older) is
missing in the lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .health import cautions, troubles
from .log import one_line
from .report import elapsed

Document = Mapping[str, Any]
Line = tuple[str, str]  # tone: "head", "bad", "warn" or "", and text

_BAR = 20
_BUSIEST = 4
_COLOURS = {"head": "1", "bad": "1;31", "warn": "33"}


def size(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def span(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def bar(part: float, whole: float) -> str:
    filled = round(_BAR * min(1.0, part / whole)) if whole > 0 else 0
    return f"[{'#' * filled}{'-' * (_BAR - filled)}]"


def coloured(line: Line) -> str:
    tone, text = line
    return f"\033[{_COLOURS[tone]}m{text}\033[0m" if tone else text


def lines(mountpoint: str, document: Document, before: Document | None = None) -> Iterator[Line]:
    """before: an earlier document of the same mount, for rates."""
    source = document.get("source")
    up = f", mounted for {elapsed(document['uptime_s'])}" if "uptime_s" in document else ""
    up += f", pid {document['pid']}" if "pid" in document else ""
    yield "head", one_line(f"{mountpoint}: {source}{up}" if source else mountpoint)
    for trouble in troubles(document):
        yield "bad", one_line(f"  {trouble}")
    for caution in cautions(document):
        yield "warn", one_line(f"  {caution}")
    rates = _Rates(document, before)
    for tone, label, text in (
        *_store(document),
        *_traffic(document, rates),
        *_writes(document, rates),
        *_reads(document, rates),
        *_resources(document),
        *_errors(document),
    ):
        yield tone, one_line(f"  {label:<13} {text}")


_Row = tuple[str, str, str]  # tone, label, text


class _Rates:
    """Per second, between two documents of one daemon."""

    def __init__(self, document: Document, before: Document | None) -> None:
        same = before is not None and before.get("pid") == document.get("pid")
        self._before = before if same and before is not None else {}
        self._seconds = document.get("time", 0) - self._before.get("time", 0) if self._before else 0

    def of(self, now: float, *path: str) -> float | None:
        then: Any = self._before
        for name in path:
            then = then.get(name) if isinstance(then, Mapping) else None
        return self.since(now, then)

    def since(self, now: float, then: float | None) -> float | None:
        return None if then is None or self._seconds <= 0 else max(0.0, now - then) / self._seconds

    def file(self, kind: str, path: str, field: str, now: float) -> str:
        """ ", 12.0 MiB/s" """
        then = next((each[field] for each in self._before.get(kind, ()) if each["path"] == path), None)
        rate = self.since(now, then)
        return "" if rate is None else f", {size(rate)}/s"


def _store(document: Document) -> Iterator[_Row]:
    endpoint = document.get("endpoint", {})
    if "url" in endpoint:
        last, now = endpoint.get("last_success"), document.get("time")
        state = "down" if endpoint.get("down") else "answers"
        told = f", last {elapsed(max(0, now - last))} ago" if last and now else ""
        skew = endpoint.get("clock_skew_s")
        clock = f", its clock {'is ahead' if skew > 0 else 'is behind'} by {elapsed(abs(skew))}" if _far(skew) else ""
        outages = endpoint.get("outages", 0)
        times = f"; {outages} outage{'s' * (outages > 1)} since the mount" if outages else ""
        yield "", "store", f"{endpoint['url']} {state}{told}{clock}{times}"
    if "verified_by" in document:
        yield "", "verified by", f"{document['verified_by']}; {_promises(document)}"


def _far(skew: float | None) -> bool:
    return skew is not None and abs(skew) >= 2


def _promises(document: Document) -> str:
    conditional = "conditional writes" if document.get("conditional_writes") else "no conditional writes"
    return f"{conditional}, {'Object Lock' if document.get('object_lock') else 'no Object Lock'}"


def _traffic(document: Document, rates: _Rates) -> Iterator[_Row]:
    endpoint = document.get("endpoint", {})
    requests = endpoint.get("requests")
    if requests is None:
        return
    count = sum(requests.values())
    errors = sum(endpoint.get("errors", {}).values())
    text = f"{count}, {endpoint.get('retries', 0)} of them retries; {errors} errors"
    if errors:
        text += " (" + ", ".join(f"{name} {n}" for name, n in sorted(endpoint["errors"].items())) + ")"
    rate = rates.since(count, sum(rates._before["endpoint"]["requests"].values()) if rates._before else None)
    yield "", "requests", text if rate is None else f"{text}; {rate:.1f}/s"
    busiest = sorted(document.get("latency", {}).get("s3", {}).items(), key=lambda item: -item[1]["count"])
    for operation, histogram in busiest[:_BUSIEST]:
        yield "", "", f"{operation:<24} {histogram['count']:>7}  {_quantiles(histogram)}"
    if "sent" in endpoint:
        for label, field in (("sent", "sent"), ("received", "received")):
            rate = rates.of(endpoint[field], "endpoint", field)
            yield "", label, size(endpoint[field]) + ("" if rate is None else f", {size(rate)}/s")
    if "cost" in endpoint:
        currency = endpoint.get("currency")
        table = f" {currency} by Amazon's prices" if currency else " by the setting prices"
        yield "", "cost", f"{sum(endpoint['cost'].values()):.4f}{table} since the mount, without storage"


def _quantiles(histogram: Mapping[str, Any]) -> str:
    return f"half in {_quantile(histogram, 0.5)}, 99 % in {_quantile(histogram, 0.99)}"


def _quantile(histogram: Mapping[str, Any], share: float) -> str:
    """The upper end of the class it is in."""
    for bound, count in histogram["buckets"].items():
        if count >= share * histogram["count"]:
            return span(float(bound))
    return "more"


def _writes(document: Document, rates: _Rates) -> Iterator[_Row]:
    files = document.get("files", {})
    if files.get("unpublished_bytes"):
        oldest = files.get("oldest_unpublished_s")
        age = "" if oldest is None else f", the oldest byte for {elapsed(oldest)}"
        yield "", "unpublished", f"{size(files['unpublished_bytes'])}{age}"
    for each in document.get("writes", ()):
        rate = rates.file("writes", each["path"], "size", each["size"])
        if each["waits_for_rename"]:
            text = (
                f"{each['path']}: {size(each['size'])} in the bucket, waits for its rename for {elapsed(each['age_s'])}"
            )
        else:
            parts = f"{each['parts']} parts done, {each['parts_in_flight']} under way"
            text = f"{each['path']}: {size(each['size'])}{rate}, {size(each['in_bucket'])} in the bucket, {parts}"
        yield "", "writing", text


def _reads(document: Document, rates: _Rates) -> Iterator[_Row]:
    for each in document.get("reads_of", ()):
        rate = rates.file("reads_of", each["path"], "position", each["position"])
        done = each["position"] / each["size"] if each["size"] else 1
        shown = bar(each["position"], each["size"])
        yield "", "reading", f"{shown} {done:4.0%} of {size(each['size'])}{rate}  {each['path']}"


def _resources(document: Document) -> Iterator[_Row]:
    memory, files = document.get("memory"), document.get("files", {})
    if memory:
        used = f"{bar(memory['in_use'], memory['budget'])} {size(memory['in_use'])} of {size(memory['budget'])}"
        yield "", "memory", f"{used}, at most {size(memory['peak'])} so far"
    if files:
        reading = f", {files['reading']} read" if "reading" in files else ""
        yield (
            "",
            "files",
            f"{files['open']} open: {files['writing']} written{reading}; {document.get('nodes')} names known",
        )
    cache = document.get("metadata_cache")
    if cache and "used" in cache:
        yield "", "metadata", f"{_hits(cache)}; {size(cache['used'])} of {size(cache['limit'])}"
    blocks = document.get("block_cache")
    if blocks:
        off = f"off: {blocks['off']}" if blocks["off"] else f"{_hits(blocks)}; {size(blocks['used'])}"
        yield "", "block cache", off if blocks["off"] else f"{off} of {size(blocks['limit'])}"


def _hits(counters: Mapping[str, int]) -> str:
    asked = counters["hits"] + counters["misses"]
    return f"{counters['hits'] / asked:.0%} of {asked} found" if asked else "nothing looked up so far"


def _errors(document: Document) -> Iterator[_Row]:
    now, endpoint = document.get("time", 0), document.get("endpoint", {})
    for each in reversed(document.get("recent_errors", ())):
        yield "warn", "error", f"{elapsed(max(0, now - each['time']))} ago: {each['text']}"
    if endpoint.get("last_error") and endpoint.get("last_error_at"):
        yield "", "last failure", f"{elapsed(max(0, now - endpoint['last_error_at']))} ago: {endpoint['last_error']}"


def screen(shown: Sequence[Line], columns: int, rows: int, *, colour: bool) -> str:
    """What makes a terminal show these lines from its first row on, cut to what it has."""
    kept = [(tone, text if len(text) <= columns else text[: columns - 1] + "…") for tone, text in shown]
    if len(kept) >= rows:
        kept = [*kept[: rows - 2], ("", f"… {len(kept) - rows + 2} more lines")]
    return "\033[H" + "".join(f"{coloured(line) if colour else line[1]}\033[K\n" for line in kept) + "\033[J"
