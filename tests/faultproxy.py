"""A fault-injecting HTTP proxy between s3fsx (or boto3) and a real store.

    with FaultProxy(server.endpoint) as proxy:
        proxy.add(Rule(SERVER_ERROR, {"PUT PART"}, times=2))
        ...                                   # a client of proxy.endpoint
        proxy.clear()

The Host header is signed and passed on unchanged, so the store must not mind: path style addressing does not. One
thread per connection; what is random comes from ``seed``.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

from tests.exchange import Exchange, Hangup, Head, Request, Wire
from tests.faultkinds import Fault, Nothing

JOIN_LIMIT = 10.0  # seconds
BACKLOG = 128


@dataclass(frozen=True)
class Rule:
    """When a fault happens. kinds: names of ``s3server.KINDS``, empty for all. key: searched in the key (of a LIST
    ""). skip: matching requests that are spared first. times: how often in all, None for ever."""

    fault: Fault
    kinds: Set[str] = frozenset()
    key: str = ""
    skip: int = 0
    times: int | None = None
    probability: float = 1.0

    def matches(self, request: Request) -> bool:
        return (not self.kinds or request.kind in self.kinds) and re.search(self.key, request.key) is not None


@dataclass
class _Active:
    rule: Rule
    skip: int
    left: float
    removed: threading.Event = field(default_factory=threading.Event)


class FaultProxy:
    """seen: requests by kind. injected: faults by the name of their class. The first rule that applies wins."""

    def __init__(self, store: str, *, seed: int = 0) -> None:
        parts = urlsplit(store)
        assert parts.hostname is not None
        self._store = (parts.hostname, parts.port or 80)
        self.seen: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._rules: list[_Active] = []
        self._open = threading.Event()  # cleared: a black hole
        self._open.set()
        self._stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    # -- rules

    def add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(_Active(rule, rule.skip, float("inf") if rule.times is None else rule.times))
        return rule

    def remove(self, rule: Rule) -> None:
        """Connections that stall because of it are closed."""
        with self._lock:
            for active in [a for a in self._rules if a.rule is rule]:
                active.removed.set()
                self._rules.remove(active)

    def clear(self) -> None:
        for rule in [active.rule for active in self._rules]:
            self.remove(rule)

    @contextlib.contextmanager
    def fault(self, *rules: Rule) -> Iterator[None]:
        for rule in rules:
            self.add(rule)
        try:
            yield
        finally:
            for rule in rules:
                self.remove(rule)

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """Nothing is accepted, read or answered. Linux lets a second listen(2) shorten the backlog, so that not even a
        connection comes about (one or two still do)."""
        self._listener.listen(0)
        self._open.clear()
        self.injected["BlackHole"] += 1
        try:
            yield
        finally:
            self._listener.listen(BACKLOG)
            self._open.set()

    def _choose(self, request: Request) -> _Active:
        with self._lock:
            self.seen[request.kind] += 1
            for active in self._rules:
                if not active.left or not active.rule.matches(request):
                    continue
                if active.skip:
                    active.skip -= 1
                    continue
                if self._rng.random() >= active.rule.probability:
                    continue
                active.left -= 1
                self.injected[type(active.rule.fault).__name__] += 1
                return active
        return _Active(Rule(Nothing()), 0, 1)

    # -- connections

    def __enter__(self) -> FaultProxy:
        self._run(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping.set()
        self._open.set()
        self.clear()
        with self._lock:
            for sock in (self._listener, *self._sockets):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(JOIN_LIMIT)
            assert not thread.is_alive(), "a thread of the fault proxy does not end"
        self._listener.close()

    def _run(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while True:
            self._open.wait()
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._stopping.is_set():
                sock.close()
                return
            self._run(self._serve, sock)

    @contextlib.contextmanager
    def _kept(self, sock: socket.socket) -> Iterator[socket.socket]:
        """Known to ``__exit__`` while it is open."""
        with self._lock:
            self._sockets.add(sock)
        try:
            yield sock
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, Hangup):
            client = Wire(stack.enter_context(self._kept(sock)), self._open.wait)  # type: ignore[arg-type]
            store: Wire | None = None

            def connect() -> Wire:
                nonlocal store
                if store is None or not store.idle_and_open():
                    store = Wire(stack.enter_context(self._kept(socket.create_connection(self._store, 10))))
                    store.sock.settimeout(None)
                return store

            while not self._stopping.is_set() and (head := Head.read(client)):
                request = Request.of(head)
                if head.get("transfer-encoding"):
                    return  # no client of ours sends one
                active = self._choose(request)
                if head.get("expect"):
                    client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                with self._lock:
                    rng = random.Random(self._rng.random())
                active.rule.fault.run(Exchange(request, client, connect, rng, active.removed.wait))  # type: ignore[arg-type]
