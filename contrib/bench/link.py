"""The network between the tools and the store: a namespace behind a veth pair, shaped with tc.

The store listens on one end, the tools run in the namespace with the other. So what they send and receive is counted
(the store's own traffic between its daemons is elsewhere), and one condition follows the other on the same store.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = "s3fsx-bench-"
NAMESPACES = Path("/run/netns")
START_LIMIT = 30.0  # seconds
BURST = "256kb"  # more than the largest packet before segmentation, which tbf would have to split otherwise
QUEUE = "8mb"  # of the shaper: twice the bandwidth-delay product of 1 Gbit/s and 30 ms; more would be a router's worst
PACKETS = 200_000  # of netem, whose 1000 would drop what is merely on its way: 15 ms of 1 GB/s are 10 000 packets
JUMBO, ETHERNET = 65535, 1500  # MTU. Without a limit as loopback has it (a veth with 1500 costs a quarter of the rate)


class LinkError(Exception):
    """One line: what of the network could not be made."""


@dataclass(frozen=True)
class Condition:
    """delay_ms: added to the round trip, half of it each way. mbit: 10^6 bit/s in each direction, None for no limit."""

    name: str
    delay_ms: int = 0
    mbit: int | None = None

    @property
    def payload(self) -> float | None:
        """Bytes/s of TCP payload that the limit lets through: of 1514 bytes (Ethernet with MTU 1500) 1448 are."""
        return self.mbit * 1e6 / 8 * 1448 / 1514 if self.mbit else None


CONDITIONS = {
    c.name: c
    for c in (
        Condition("plain"),
        Condition("10ms", 10),
        Condition("30ms", 30),
        Condition("1gbit", mbit=1000),
        Condition("1gbit-30ms", 30, 1000),
    )
}


@dataclass(frozen=True)
class Counters:
    """Bytes since the link was made, seen from the tools, TCP's and IP's headers included."""

    sent: int
    received: int

    def __sub__(self, other: Counters) -> Counters:
        return Counters(self.sent - other.sent, self.received - other.received)


@dataclass(frozen=True)
class Route:
    """How the tools reach the store under one condition. host, port: where it seems to listen. how: for the report."""

    condition: Condition
    host: str
    port: int
    how: str


def shaping(condition: Condition, device: str, *, netem: bool) -> list[list[str]]:
    """Arguments of tc, in order, for one end of the pair. netem goes above tbf: the shaper takes what has waited.
    Without netem the delay is the relay's."""
    commands = []
    parent = ["root", "handle", "1:"]
    if condition.delay_ms and netem:
        delay = f"{condition.delay_ms / 2:g}ms"
        commands.append(["qdisc", "add", "dev", device, *parent, "netem", "delay", delay, "limit", str(PACKETS)])
        parent = ["parent", "1:1", "handle", "10:"]
    if condition.mbit:
        rate = ["tbf", "rate", f"{condition.mbit}mbit", "burst", BURST, "limit", QUEUE]
        commands.append(["qdisc", "add", "dev", device, *parent, *rate])
    return commands


class Link:
    """The pair and the namespace; made by ``running_link``. address: where the store is to listen."""

    def __init__(self, number: int) -> None:
        self.namespace = f"{NAMED}{os.getpid()}"
        self._number = number
        self._outside, self._inside = f"s3b{number}o", f"s3b{number}i"
        # 198.18.0.0/15 is for benchmarks (RFC 2544); 4 addresses for each run.
        base = number * 4
        self.address, self._tools = (f"198.18.{(base + n) >> 8}.{(base + n) & 255}" for n in (1, 2))

    @property
    def prefix(self) -> list[str]:
        """Before a command that is to run in the namespace. nsenter and not ``ip netns exec``, whose mounts nobody
        else sees; it becomes the command, so the pid stays."""
        return ["nsenter", f"--net={NAMESPACES / self.namespace}"]

    def make(self) -> None:
        _run("ip", "netns", "add", self.namespace)
        pair = ["ip", "link", "add", self._outside, "type", "veth"]
        _run(*pair, "peer", "name", self._inside, "netns", self.namespace)
        _run("ip", "addr", "add", f"{self.address}/30", "dev", self._outside)
        _run("ip", "link", "set", self._outside, "up")
        _run(*self.prefix, "ip", "addr", "add", f"{self._tools}/30", "dev", self._inside)
        for device in (self._inside, "lo"):
            _run(*self.prefix, "ip", "link", "set", device, "up")

    def delete(self) -> None:
        """Whatever of it there is; the veth pair goes with the namespace, or by itself when there is none yet."""
        for command in (["ip", "link", "del", self._outside], ["ip", "netns", "del", self.namespace]):
            subprocess.run(command, capture_output=True, timeout=START_LIMIT, check=False)

    def counters(self) -> Counters:
        directory = Path("/sys/class/net") / self._outside / "statistics"
        received, sent = (int((directory / name).read_text()) for name in ("tx_bytes", "rx_bytes"))
        return Counters(sent, received)

    @contextmanager
    def condition(self, condition: Condition, port: int) -> Iterator[Route]:
        """Shapes the link while it is open. port: of the store."""
        mtu = str(ETHERNET if condition.mbit else JUMBO)
        ends: list[tuple[str, list[str]]] = [(self._outside, []), (self._inside, self.prefix)]
        try:
            for device, prefix in ends:
                _run(*prefix, "ip", "link", "set", device, "mtu", mtu)
            netem = self._shape(condition, ends)
            shaped = " + ".join([*(["tbf"] if condition.mbit else []), *(["netem"] if netem else [])])
            if condition.delay_ms and not netem:
                with self._relay(port, condition.delay_ms / 2000) as near:
                    yield Route(condition, "127.0.0.1", near, " + ".join(filter(None, [shaped, "relay"])))
            else:
                yield Route(condition, self.address, port, shaped or "veth")
        finally:
            for device, prefix in ends:
                subprocess.run(
                    [*prefix, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True, timeout=30, check=False
                )

    def _shape(self, condition: Condition, ends: Sequence[tuple[str, list[str]]]) -> bool:
        """Whether netem makes the delay. Raises LinkError when even the rate limit cannot be made."""
        for netem in (True, False) if condition.delay_ms else (False,):
            try:
                for device, prefix in ends:
                    for command in shaping(condition, device, netem=netem):
                        _run(*prefix, "tc", *command)
            except LinkError:
                if not netem:
                    raise
                continue
            return netem
        return False

    @contextmanager
    def _relay(self, port: int, delay: float) -> Iterator[int]:
        command = [*self.prefix, sys.executable, "-m", "contrib.bench.relay", self.address, str(port), str(delay)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                if not line:
                    raise LinkError(f"the relay does not start (exit status {process.wait(START_LIMIT)})")
                yield int(line)
            finally:
                process.stdin.close()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextmanager
def running_link() -> Iterator[Link]:
    """Raises LinkError. Also removes what a killed run has left."""
    missing = [program for program in ("ip", "tc", "nsenter") if shutil.which(program) is None]
    if missing:
        raise LinkError(f"{', '.join(missing)} missing: apt-get install iproute2 util-linux")
    _sweep()
    link = Link(os.getpid() % 16384)
    try:
        link.make()
        yield link
    finally:
        link.delete()


def _sweep() -> None:
    names = os.listdir(NAMESPACES) if NAMESPACES.is_dir() else []
    for name in names:
        found = re.fullmatch(rf"{NAMED}(\d+)", name)
        if found and not Path(f"/proc/{found[1]}").exists():
            with contextlib.suppress(LinkError):
                _run("ip", "netns", "del", name)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT, check=False)
    if done.returncode:
        raise LinkError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
