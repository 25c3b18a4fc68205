"""A TCP relay that delays: ``python -m contrib.bench.relay HOST PORT SECONDS``, for kernels without netem.

Every byte leaves SECONDS after it arrived, in either direction; the first of a connection two delays later, for the
handshake that a relay cannot delay. Bytes stay in the kernel (splice(2) through a pipe), so it costs little. A pipe of
1 MiB has 256 slots and TCP fills each with up to 32 KiB: a window of 8 MiB for each connection and direction, like
Linux' own largest. Prints the port it listens on (of loopback), ends with its standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
from queue import SimpleQueue

PIPE = 1 << 20  # bytes; what root and everybody else may have (/proc/sys/fs/pipe-max-size)
BACKLOG = 128


class Direction:
    """One half of a connection: a thread that takes bytes in and notes when they may leave, and one that lets them."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float, opened: float) -> None:
        self._source, self._target = source, target
        self._delay = delay
        self._opened = opened  # nothing leaves before
        self._due: SimpleQueue[tuple[float, int]] = SimpleQueue()
        self._out, self._in = os.pipe()
        fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, PIPE)
        self._leaving = threading.Thread(target=self._leave, daemon=True)

    def run(self) -> None:
        """Returns when the source has ended and all has left, or either side is gone."""
        self._leaving.start()
        taken = 1
        while taken:
            try:
                taken = os.splice(self._source.fileno(), self._in, PIPE)
            except OSError:
                taken = 0
            self._due.put((max(time.monotonic(), self._opened) + self._delay, taken))
        self._leaving.join()
        os.close(self._out)
        os.close(self._in)

    def _leave(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, left = self._due.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not left:
                    self._target.shutdown(socket.SHUT_WR)
                    return
                while left:
                    left -= os.splice(self._out, self._target.fileno(), left)
        # The target is gone: the source must learn it, and the other thread, which may wait for room in the pipe.
        with contextlib.suppress(OSError):
            self._source.shutdown(socket.SHUT_RDWR)
        while left:
            left -= len(os.read(self._out, left))
            while not left:
                left = self._due.get()[1]
                if not left:
                    return


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
            back = Direction(server, client, delay, 0.0)
            backward = threading.Thread(target=back.run, daemon=True)
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
