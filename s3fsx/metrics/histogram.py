"""How long things took, in classes of their length. Pure."""

from __future__ import annotations

from bisect import bisect_left

# Seconds. A store on loopback answers a HEAD in 2 ms; a part of 512 MiB may take its deadline of 2 minutes.
S3_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
# A write into the buffer takes 20 us, a rename may wait for the store until its deadline.
FUSE_BOUNDS = (0.00005, 0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0)


class Histogram:
    """bounds: upper ends of the classes, rising; what is above the last one is counted, too."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """0.2 us: this is done for every request of the kernel."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def document(self) -> dict[str, object]:
        """count, sum, and by upper end (as text) how many were at most that long."""
        below, buckets = 0, {}
        for bound, count in zip(self._bounds, self._counts, strict=False):
            below += count
            buckets[f"{bound:g}"] = below
        return {"count": below + self._counts[-1], "sum": self._sum, "buckets": buckets}
