"""Connections that are kept, and the spare."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from s3fsx.s3.connections import Connections


class Made:
    """As urllib3's: sock, close."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, 10)

    def close(self) -> None:
        self.sock.close()


class Store:
    """Accepts. made: our ends, theirs: the store's, in the order they came. go: connecting waits for it."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._lock = threading.Lock()
        self.made: list[Made] = []
        self.theirs: list[socket.socket] = []
        self.kept: list[Connections] = []
        self.go = threading.Event()
        self.go.set()
        self.fails = False

    def connections(self) -> Connections:
        self.kept.append(Connections(self.connect))
        return self.kept[-1]

    def connect(self) -> Made:
        assert self.go.wait(30)
        if self.fails:
            raise ConnectionRefusedError
        with self._lock:
            self.made.append(Made(self._server.getsockname()))
            self.theirs.append(self._server.accept()[0])
            return self.made[-1]


@pytest.fixture
def store() -> Iterator[Store]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = Store(server)
        yield store
        eventually(lambda: not any(connections._connecting for connections in store.kept))
        for made in store.made:
            made.close()
        for end in store.theirs:
            end.close()


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def closed(end: socket.socket) -> bool:
    end.settimeout(30)
    return end.recv(1) == b""


def test_the_next_request_finds_the_same_one_and_one_beside_it_a_spare(store: Store) -> None:
    connections = store.connections()
    first = connections.take()
    connections.give(first, reuse=True)
    eventually(lambda: len(connections._idle) == 2)
    assert connections.take() is first
    other = connections.take()
    assert other is not first
    assert other.made is store.made[1]
    eventually(lambda: len(store.made) == 3)  # for a third


def test_there_is_one_spare_however_many_are_taken_and_none_while_any_is_idle(store: Store) -> None:
    connections = store.connections()
    taken = [connections.take()]
    eventually(lambda: len(store.made) == 2)
    eventually(lambda: len(connections._idle) == 1)
    for connection in taken:
        connections.give(connection, reuse=True)
    for _ in range(10):
        connections.give(connections.take(), reuse=True)
    assert len(store.made) == 2
    assert not connections._connecting


def test_what_the_store_has_closed_is_not_taken(store: Store) -> None:
    connections = store.connections()
    connections.give(connections.take(), reuse=True)
    eventually(lambda: len(connections._idle) == 2)
    for end in store.theirs:
        end.close()
    assert connections.take().made in store.made[2:]
    assert store.made[0].sock.fileno() == store.made[1].sock.fileno() == -1


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(store: Store) -> None:
    connections = store.connections()
    first = connections.take()
    store.theirs[0].sendall(b"HTTP/1.1 200 OK\r\n")
    connections.give(first, reuse=True)
    assert connections.take() is not first
    assert first.sock.fileno() == -1


def test_a_spare_that_fails_is_no_error_and_is_tried_again(store: Store) -> None:
    connections = store.connections()
    store.go.clear()
    taking = threading.Thread(target=lambda: connections.give(connections.take(), reuse=True))
    taking.start()
    store.go.set()
    taking.join(30)
    eventually(lambda: len(connections._idle) == 2)
    store.fails = True
    both = connections.take(), connections.take()
    eventually(lambda: not connections._connecting)
    with pytest.raises(ConnectionRefusedError):
        connections.take()
    store.fails = False
    connections.give(both[0], reuse=True)
    connections.take()
    eventually(lambda: len(connections._idle) == 1)


def test_after_the_end_nothing_is_kept(store: Store) -> None:
    connections = store.connections()
    taken = connections.take()
    eventually(lambda: len(connections._idle) == 1)
    connections.close()
    connections.give(taken, reuse=True)
    assert all(closed(end) for end in store.theirs)
    assert connections.take().made in store.made[2:]


def test_a_spare_that_comes_after_the_end_is_closed(store: Store) -> None:
    connections = store.connections()
    first = connections.take()
    eventually(lambda: len(connections._idle) == 1)
    store.go.clear()
    spare = connections.take()  # and another is wanted
    assert connections._connecting
    connections.close()
    store.go.set()
    eventually(lambda: len(store.theirs) == 3)
    assert closed(store.theirs[2])
    for connection in (first, spare):
        connections.give(connection, reuse=True)
    assert not connections._idle


def test_without_a_thread_for_a_spare_there_is_a_connection_and_later_a_spare(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    connections = store.connections()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        first = connections.take()
    other = connections.take()
    eventually(lambda: len(connections._idle) == 1)
    for connection in (first, other):
        connections.give(connection, reuse=True)
