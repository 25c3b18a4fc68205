"""What the gateway counts, and the same as Prometheus' families. Pure: all of it happens in one event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..metrics.exposition import Family, Sample
from ..metrics.histogram import Histogram

# Seconds. docs/GATEWAY.md: a small GET takes 5 ms, a PUT of 64 MiB half a second; a Complete copies all of the object.
BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
NONE = "none"  # the operation of a request that was refused before it had one

FAMILIES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("s3fsx_gateway_info", "gauge", "Always 1; its label is the version.", ("version",)),
    (
        "s3fsx_gateway_requests_total",
        "counter",
        'Requests that were answered; operation is S3\'s name or "none", status 2xx to 5xx.',
        ("operation", "status"),
    ),
    (
        "s3fsx_gateway_errors_total",
        "counter",
        "Answers that were an error, by its code, also when the status had to be 200.",
        ("code",),
    ),
    (
        "s3fsx_gateway_request_duration_seconds",
        "histogram",
        "From the head of a request until its answer begins, so with the body of a PUT and without that of a GET.",
        ("operation",),
    ),
    ("s3fsx_gateway_requests_in_flight", "gauge", "Requests whose answer has not ended.", ()),
    ("s3fsx_gateway_received_bytes_total", "counter", "Bytes of the bodies of requests.", ()),
    ("s3fsx_gateway_sent_bytes_total", "counter", "Bytes of answers, heads included, as far as they were sent.", ()),
    ("s3fsx_gateway_connections", "gauge", "Open connections, with those that wait for one of the places.", ()),
    ("s3fsx_gateway_connections_total", "counter", "Connections that were accepted.", ()),
)


class Meter:
    """The counters are for ``http``, which adds to them; requests and errors come by the methods."""

    def __init__(self, version: str) -> None:
        self.in_flight = 0
        self.received = 0
        self.sent = 0
        self.open = 0
        self.accepted = 0
        self._version = version
        self._requests: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[str] = Counter()
        self._durations: dict[str, Histogram] = {}

    def answered(self, operation: str, status: int, seconds: float) -> None:
        """operation: "" when there was none."""
        operation = operation or NONE
        self._requests[operation, f"{status // 100}xx"] += 1
        if operation not in self._durations:
            self._durations[operation] = Histogram(BOUNDS)
        self._durations[operation].observe(seconds)

    def failed(self, code: str) -> None:
        self._errors[code] += 1

    def families(self) -> Iterator[Family]:
        values: dict[str, Iterable[Sample]] = {
            "s3fsx_gateway_info": [Sample({"version": self._version}, 1)],
            "s3fsx_gateway_requests_total": (
                Sample({"operation": operation, "status": status}, count)
                for (operation, status), count in sorted(self._requests.items())
            ),
            "s3fsx_gateway_errors_total": (
                Sample({"code": code}, count) for code, count in sorted(self._errors.items())
            ),
            "s3fsx_gateway_request_duration_seconds": (
                sample
                for operation, histogram in sorted(self._durations.items())
                for sample in _samples({"operation": operation}, histogram)
            ),
            "s3fsx_gateway_requests_in_flight": [Sample({}, self.in_flight)],
            "s3fsx_gateway_received_bytes_total": [Sample({}, self.received)],
            "s3fsx_gateway_sent_bytes_total": [Sample({}, self.sent)],
            "s3fsx_gateway_connections": [Sample({}, self.open)],
            "s3fsx_gateway_connections_total": [Sample({}, self.accepted)],
        }
        for name, kind, help, _ in FAMILIES:
            yield Family(name, kind, help, tuple(values[name]))


def _samples(labels: Mapping[str, str], histogram: Histogram) -> Iterator[Sample]:
    document = histogram.document()
    buckets, count, total = document["buckets"], document["count"], document["sum"]
    assert isinstance(buckets, dict)
    assert isinstance(count, int)
    assert isinstance(total, float)
    for bound, below in buckets.items():
        yield Sample({**labels, "le": bound}, below, "_bucket")
    yield Sample({**labels, "le": "+Inf"}, count, "_bucket")
    yield Sample(labels, total, "_sum")
    yield Sample(labels, count, "_count")
