"""The connections to one place of a store, shared by all clients: a request takes one that is connected already.

Each client of boto3 has a pool of its own, so that the first GET of a file would connect anew although a listing has
just been answered: a round trip before the request, two with TLS. Here one pool serves them all, and a *spare* is
connected in the background when the last idle one is taken: the checksums of a file, which are asked for together with
its first bytes, and the next block that is fetched ahead find theirs connected, too.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import Any

from .tls import TlsReuse

log = logging.getLogger("s3fsx.s3connections")


class Connection:
    """made: urllib3's, connected. fresh: no answer has come over it yet."""

    __slots__ = ("fresh", "made")

    def __init__(self, made: Any) -> None:
        self.made = made
        self.fresh = True

    @property
    def sock(self) -> Any:
        return self.made.sock

    def alive(self) -> bool:
        """The store has not closed it, nor said anything that nobody asked for (but what TLS says for itself)."""
        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.made.close()


def _close_all(idle: list[Connection]) -> None:
    while idle:
        idle.pop().close()


class Connections:
    """connect(): a new one of urllib3's, connected; blocks, and raises what urllib3 does.

    _idle: the latest used last, and taken first: its window is open, and the store may close what a burst has left.
    _connecting: a spare, in a thread.
    """

    def __init__(self, connect: Callable[[], Any], tls: TlsReuse | None = None) -> None:
        self._connect = connect
        self._tls = tls
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        weakref.finalize(self, _close_all, self._idle)  # of a client that nobody closed
        self._connecting = False
        self._closed = False

    def take(self) -> Connection:
        """Blocks where none is idle. Raises what urllib3 does when it cannot connect."""
        with self._lock:
            self._closed = False
            found = self._idle.pop() if self._living() else None
        if found is None:
            found = Connection(self._connect())
        with self._lock:
            wanted = not self._connecting and not self._living()
            self._connecting |= wanted
        if wanted:
            try:
                threading.Thread(target=self._connect_spare, name="s3fsx-spare", daemon=True).start()
            except RuntimeError:  # no more threads: this request has its connection all the same
                self._connecting = False
        return found

    def give(self, connection: Connection, *, reuse: bool) -> None:
        """Back. reuse: the answer was read to its end, and the store goes on."""
        with self._lock:
            if reuse and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def unanswered(self) -> None:
        """A request was sent and nothing came back: what has taken its connection away without a word (a firewall that
        forgets, a store that moved to another machine) has taken the idle ones, too, and each would cost an attempt."""
        with self._lock:
            _close_all(self._idle)

    def answered(self, connection: Connection) -> None:
        """The head of an answer was read."""
        if connection.fresh:
            connection.fresh = False
            if self._tls is not None:
                self._tls.keep(connection.sock)

    def close(self) -> None:
        """Those that are idle now, or given back before the next is taken."""
        with self._lock:
            self._closed = True
            _close_all(self._idle)

    def _living(self) -> bool:
        """Whether any is idle, the latest of them alive: those that the store has closed go. A look takes 2 us."""
        while self._idle and not self._idle[-1].alive():
            self._idle.pop().close()
        return bool(self._idle)

    def _connect_spare(self) -> None:
        """Where it fails, whoever needs one will learn why."""
        spare = None
        try:
            spare = Connection(self._connect())
        except Exception as error:
            log.debug("no spare connection: %s", type(error).__name__)
        with self._lock:
            self._connecting = False
            if spare is not None and not self._closed:
                self._idle.insert(0, spare)
                return
        if spare is not None:
            spare.close()
