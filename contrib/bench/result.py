"""One measured job: what all else is computed from."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Result:
    """One job of one tool in one round, under one condition of the network (link: "30ms", or "30ms tls").

    seconds: what the job is judged by; of one operation where it does many and ``size`` is 0. size: bytes that were
    moved in that time. cpu_s: of the tool. rss_peak, disk_peak: bytes. steps: seconds of each. requests: by kind.
    sent, received: bytes on the wire.
    """

    link: str
    tool: str
    job: str
    round: int
    seconds: float
    size: int
    cpu_s: float
    rss_peak: int
    disk_peak: int
    steps: dict[str, float]
    requests: dict[str, int]
    sent: int
    received: int

    @property
    def speed(self) -> float:
        """Bytes/s, or times/s: more is better."""
        return (self.size or 1) / self.seconds

    @property
    def cpu_s_per_gib(self) -> float | None:
        return self.cpu_s / (self.size / 2**30) if self.size else None


def as_json(result: Result) -> dict[str, object]:
    return asdict(result)
