"""Every metric of a mount: its name, what it says, and where it stands in the document of ``s3fsx status``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .exposition import Family, Sample

Document = Mapping[str, Any]
# A number; None for "not known"; or by the values of the labels (a text for one label), numbers or histograms.
Values = float | None | Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """labels: beside ``mountpoint``, which every sample has. read: its values, of a document."""

    name: str
    kind: str
    help: str
    read: Callable[[Document], Values]
    labels: tuple[str, ...] = ()


def _outcomes(d: Document) -> Values:
    outcomes = d["endpoint"]["outcomes"].items()
    return {(operation, outcome): n for operation, counts in outcomes for outcome, n in counts.items()}


def _info(d: Document) -> Values:
    return {(d["version"], d["source"], d["endpoint"]["url"]): 1}


METRICS = (
    Metric(
        "s3fsx_info",
        "gauge",
        "Always 1; its labels say what is mounted.",
        _info,
        ("version", "source", "endpoint"),
    ),
    Metric("s3fsx_start_time_seconds", "gauge", "Unix time of the mount.", lambda d: d["started"]),
    Metric("s3fsx_process_cpu_seconds_total", "counter", "CPU time of the daemon.", lambda d: d["process"]["cpu_s"]),
    Metric("s3fsx_process_resident_bytes", "gauge", "RAM of the daemon.", lambda d: d["process"]["resident"]),
    # The endpoint.
    Metric(
        "s3fsx_endpoint_up",
        "gauge",
        "1 while the store answers, 0 while the breaker is open.",
        lambda d: int(not d["endpoint"]["down"]),
    ),
    Metric(
        "s3fsx_endpoint_down_seconds",
        "gauge",
        "How long the present outage has lasted, 0 without one.",
        lambda d: d["endpoint"]["down_for_s"],
    ),
    Metric("s3fsx_endpoint_outages_total", "counter", "Openings of the breaker.", lambda d: d["endpoint"]["outages"]),
    Metric(
        "s3fsx_endpoint_refused_seconds",
        "gauge",
        "Between the first and the last refusal (403 and the like) since anything succeeded; 0 for a single one.",
        lambda d: d["endpoint"]["refused_for_s"],
    ),
    Metric(
        "s3fsx_endpoint_last_success_timestamp_seconds",
        "gauge",
        "Unix time of the latest answer of the store.",
        lambda d: d["endpoint"]["last_success"],
    ),
    Metric(
        "s3fsx_endpoint_clock_skew_seconds",
        "gauge",
        "How far the clock of the store is ahead of ours, within a second. At 900 it refuses everything.",
        lambda d: d["endpoint"]["clock_skew_s"],
    ),
    # Requests to the store.
    Metric(
        "s3fsx_s3_requests_total",
        "counter",
        'Attempts that ended; outcome is "ok", "abandoned" or the class of the error.',
        _outcomes,
        ("operation", "outcome"),
    ),
    Metric(
        "s3fsx_s3_retries_total", "counter", "Attempts after the first of a call.", lambda d: d["endpoint"]["retries"]
    ),
    Metric(
        "s3fsx_s3_requests_in_flight",
        "gauge",
        "Attempts under way, with those that wait for a thread.",
        lambda d: d["endpoint"]["requests_under_way"],
        ("operation",),
    ),
    Metric(
        "s3fsx_s3_request_duration_seconds",
        "histogram",
        "How long an attempt took, without the wait for a thread.",
        lambda d: d["latency"]["s3"],
        ("operation",),
    ),
    Metric(
        "s3fsx_s3_sent_bytes_total",
        "counter",
        "Bytes of objects sent to the store, repeated attempts included.",
        lambda d: d["endpoint"]["sent"],
    ),
    Metric(
        "s3fsx_s3_received_bytes_total",
        "counter",
        "Bytes of objects that came from the store in whole answers.",
        lambda d: d["endpoint"]["received"],
    ),
    Metric(
        "s3fsx_s3_cost_total",
        "counter",
        "What the store will bill by the setting prices (default: Amazon's, in dollars), without storage.",
        lambda d: d["endpoint"]["cost"],
        ("paid_for",),
    ),
    # Requests of programs.
    Metric(
        "s3fsx_fuse_request_duration_seconds",
        "histogram",
        "How long a request of the kernel took.",
        lambda d: d["latency"]["fuse"],
        ("operation",),
    ),
    Metric(
        "s3fsx_fuse_requests_in_flight",
        "gauge",
        "Requests of the kernel that are being answered.",
        lambda d: d["requests_under_way"],
    ),
    Metric(
        "s3fsx_fuse_errors_total",
        "counter",
        "Failures told to programs that are the store's or ours.",
        lambda d: d["errors"],
    ),
    # Files.
    Metric("s3fsx_open_files", "gauge", "Open file handles.", lambda d: d["files"]["open"]),
    Metric("s3fsx_writers", "gauge", "Files open for writing.", lambda d: d["files"]["writing"]),
    Metric("s3fsx_readers", "gauge", "Open files that are read.", lambda d: d["files"]["reading"]),
    Metric(
        "s3fsx_files_waiting_for_rename",
        "gauge",
        "Temporary names that were closed and wait for their rename, as vzdump makes it.",
        lambda d: d["files"]["waiting_for_rename"],
    ),
    Metric(
        "s3fsx_unpublished_bytes",
        "gauge",
        "Size of the files that are written and not in the bucket under their name.",
        lambda d: d["files"]["unpublished_bytes"],
    ),
    Metric(
        "s3fsx_unpublished_age_seconds",
        "gauge",
        "Age of the oldest byte that is not in the bucket under its name, 0 without one.",
        lambda d: d["files"]["oldest_unpublished_s"],
    ),
    Metric(
        "s3fsx_unfinished_uploads",
        "gauge",
        "Multipart uploads in the journal that are neither completed nor aborted.",
        lambda d: d["files"]["unfinished_uploads"],
    ),
    Metric("s3fsx_parts_in_flight", "gauge", "Parts being sent.", lambda d: d["parts"]["in_flight"]),
    Metric("s3fsx_parts_waiting", "gauge", "Parts that wait for a place to be sent.", lambda d: d["parts"]["waiting"]),
    Metric("s3fsx_parts_places", "gauge", "Parts that may be sent at once now.", lambda d: d["parts"]["places"]),
    Metric("s3fsx_inodes", "gauge", "Names in memory.", lambda d: d["nodes"]),
    Metric("s3fsx_hidden_keys", "gauge", "Keys that no file name can show.", lambda d: d["hidden_keys"]),
    # Memory.
    Metric("s3fsx_memory_budget_bytes", "gauge", "The setting memory_budget.", lambda d: d["memory"]["budget"]),
    Metric("s3fsx_memory_used_bytes", "gauge", "What of it is in use.", lambda d: d["memory"]["in_use"]),
    Metric(
        "s3fsx_memory_reserved_bytes", "gauge", "What of it writers were promised.", lambda d: d["memory"]["reserved"]
    ),
    Metric("s3fsx_memory_peak_bytes", "gauge", "The most that was in use.", lambda d: d["memory"]["peak"]),
    # Verified reads.
    Metric(
        "s3fsx_read_verified_bytes_total",
        "counter",
        "Bytes read that were compared with a checksum.",
        lambda d: d["reads"]["verified"],
    ),
    Metric(
        "s3fsx_read_unverified_bytes_total",
        "counter",
        "Bytes read that have no checksum.",
        lambda d: d["reads"]["unverified"],
    ),
    Metric(
        "s3fsx_read_healed_total",
        "counter",
        "Reads that came wrong and right when repeated.",
        lambda d: d["reads"]["healed"],
    ),
    Metric("s3fsx_read_corrupted_total", "counter", "Reads that stayed wrong.", lambda d: d["reads"]["fatal"]),
    # Caches.
    Metric("s3fsx_metadata_cache_hits_total", "counter", "Objects found in it.", lambda d: d["metadata_cache"]["hits"]),
    Metric(
        "s3fsx_metadata_cache_misses_total", "counter", "Objects not in it.", lambda d: d["metadata_cache"]["misses"]
    ),
    Metric(
        "s3fsx_metadata_cache_evictions_total",
        "counter",
        "Objects that were pushed out.",
        lambda d: d["metadata_cache"]["evictions"],
    ),
    Metric("s3fsx_metadata_cache_bytes", "gauge", "Its size on disk.", lambda d: d["metadata_cache"]["used"]),
    Metric(
        "s3fsx_metadata_cache_limit_bytes", "gauge", "The setting cache_size.", lambda d: d["metadata_cache"]["limit"]
    ),
    Metric("s3fsx_block_cache_hits_total", "counter", "Reads it answered.", lambda d: d["block_cache"]["hits"]),
    Metric("s3fsx_block_cache_misses_total", "counter", "Reads it could not.", lambda d: d["block_cache"]["misses"]),
    Metric(
        "s3fsx_block_cache_evictions_total",
        "counter",
        "Versions of objects that were pushed out or outdated.",
        lambda d: d["block_cache"]["evicted"],
    ),
    Metric(
        "s3fsx_block_cache_damaged_total",
        "counter",
        "Reads that found something else on the disk than was stored there.",
        lambda d: d["block_cache"]["damaged"],
    ),
    Metric(
        "s3fsx_block_cache_stored_bytes_total", "counter", "Bytes written to it.", lambda d: d["block_cache"]["stored"]
    ),
    Metric(
        "s3fsx_block_cache_dropped_bytes_total",
        "counter",
        "Bytes that found no room in its queue or on its disk.",
        lambda d: d["block_cache"]["dropped"],
    ),
    Metric("s3fsx_block_cache_bytes", "gauge", "Its size on disk.", lambda d: d["block_cache"]["used"]),
    Metric(
        "s3fsx_block_cache_limit_bytes", "gauge", "The setting block_cache_size.", lambda d: d["block_cache"]["limit"]
    ),
    Metric("s3fsx_block_cache_versions", "gauge", "Versions of objects in it.", lambda d: d["block_cache"]["versions"]),
    Metric(
        "s3fsx_block_cache_failed",
        "gauge",
        "1 when its disk failed and it is off for the rest of the mount.",
        lambda d: int(d["block_cache"]["failed"]),
    ),
    Metric(
        "s3fsx_block_cache_spare_bytes",
        "gauge",
        "Free space of its disk beyond block_cache_reserve, as of its latest look; below 0 the reserve is used up.",
        lambda d: d["block_cache"]["spare"],
    ),
)


def families(document: Document) -> Iterator[Family]:
    """Of the document of one mount. What an older daemon's document does not have is left out."""
    common = {"mountpoint": str(document["mountpoint"])}
    for metric in METRICS:
        try:
            values = metric.read(document)
        except KeyError:
            continue
        yield Family(metric.name, metric.kind, metric.help, tuple(_samples(metric, common, values)))


def _samples(metric: Metric, common: Mapping[str, str], values: Values) -> Iterator[Sample]:
    if values is None:
        return
    if not isinstance(values, Mapping):
        yield Sample(common, values)
        return
    for key, value in values.items():
        keys = key if isinstance(key, tuple) else (key,)
        labels = {**common, **dict(zip(metric.labels, keys, strict=True))}
        if metric.kind == "histogram":
            yield from _histogram(labels, value)
        else:
            yield Sample(labels, value)


def _histogram(labels: Mapping[str, str], value: Document) -> Iterator[Sample]:
    for bound, count in value["buckets"].items():
        yield Sample({**labels, "le": bound}, count, "_bucket")
    yield Sample({**labels, "le": "+Inf"}, value["count"], "_bucket")
    yield Sample(labels, value["sum"], "_sum")
    yield Sample(labels, value["count"], "_count")
