"""A TCP relay that delays: ``python -m contrib.bench.relay HOST PORT SECONDS``, for kernels without netem.

Every byte leaves SECONDS after it arrived, in either direction; the first of a connection two delays later, for the
handshake that a relay cannot delay. At most 8 MiB of each connection and direction are on their way, about the window
that Linux lets TCP have. Not with splice(2): a pipe holds 256 pieces of what TCP happened to receive, which was 46 MB/s
at 30 ms. Prints the port it listens on (of loopback), ends with its standard input.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from queue import SimpleQueue

PIECE = 64 << 10
PIECES = 128
BACKLOG = 128

Piece = tuple[float, memoryview, int]  # when it may leave, where it is, how much it is


class Direction:
    """One half of a connection: a thread that takes bytes in and notes when they may leave, and one that lets them."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float, opened: float) -> None:
        self._source, self._target = source, target
        self._delay = delay
        self._opened = opened  # nothing leaves before
        self._due: SimpleQueue[Piece] = SimpleQueue()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._made = 0
        self._leaving = threading.Thread(target=self._leave, daemon=True)

    def run(self) -> None:
        """Returns when the source has ended and all has left, or either side is gone."""
        self._leaving.start()
        taken = 1
        while taken:
            buffer = self._buffer()
            try:
                taken = self._source.recv_into(buffer)
            except OSError:
                taken = 0
            self._due.put((max(time.monotonic(), self._opened) + self._delay, buffer, taken))
        self._leaving.join()

    def _buffer(self) -> memoryview:
        if self._free.empty() and self._made < PIECES:
            self._made += 1
            return memoryview(bytearray(PIECE))
        return self._free.get()

    def _leave(self) -> None:
        gone = False
        while True:
            due, buffer, count = self._due.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not count:
                    self._target.shutdown(socket.SHUT_WR)
                elif not gone:
                    self._target.sendall(buffer[:count])
            except OSError:
                gone = True  # the source must learn it
                with contextlib.suppress(OSError):
                    self._source.shutdown(socket.SHUT_RDWR)
            if not count:
                return
            self._free.put(buffer)


def serve(client: socket.socket, store: tuple[str, int], delay: float) -> None:
    """One connection, to its end."""
    with client:
        try:
            server = socket.create_connection(store)
        except OSError:
            return
        with server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened = time.monotonic() + 2 * delay
            backward = threading.Thread(target=Direction(server, client, delay, 0.0).run, daemon=True)
            backward.start()
            Direction(client, server, delay, opened).run()
            backward.join()


def accept(listener: socket.socket, store: tuple[str, int], delay: float) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, store, delay), daemon=True).start()


def main(host: str, port: str, delay: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=accept, args=(listener, (host, int(port)), float(delay)), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
