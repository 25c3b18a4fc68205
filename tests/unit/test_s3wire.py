"""Requests over shared connections to a store that goes away without a word."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s3fsx.errors import ConnectionFailed
from s3fsx.s3.client import ClientMaker, failure
from s3fsx.s3.options import S3Options

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "1"\r\n\r\n'
CONNECTIONS = 8


class Store:
    """Answers HEAD. ``forgets`` makes it (or a firewall before it) answer the next request on each connection there is
    with a reset. together: requests that have to be there before the first is answered."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.together = threading.Barrier(CONNECTIONS)
        self._generation = 0
        self.answer = ANSWER
        self.accepted: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def forgets(self) -> None:
        self._generation += 1

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end = self._server.accept()[0]
                self.accepted.append(end)
                self.threads.append(threading.Thread(target=self._serve, args=(end, self._generation), daemon=True))
                self.threads[-1].start()

    def _serve(self, end: socket.socket, generation: int) -> None:
        with suppress(OSError), end:
            while end.recv(1 << 16):
                if generation != self._generation:
                    return
                if generation == 0:
                    self.together.wait(30)
                end.sendall(self.answer)
                if b"408" in self.answer:
                    return


@pytest.fixture
def store() -> Iterator[Store]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = Store(server)
        yield store
        server.shutdown(socket.SHUT_RDWR)
        for end in store.accepted:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in store.threads:
            thread.join(30)


@pytest.fixture
def client(store: Store) -> Iterator[Any]:
    host, port = store._server.getsockname()
    client = ClientMaker(S3Options("b", f"http://{host}:{port}", access_key="a", secret_key="s"))("metadata")
    yield client
    client.close()


def test_idle_connections_that_were_forgotten_cost_one_attempt_and_not_one_each(store: Store, client: Any) -> None:
    burst = [
        threading.Thread(target=client.head_object, kwargs={"Bucket": "b", "Key": "k"}) for _ in range(CONNECTIONS)
    ]
    for thread in burst:
        thread.start()
    for thread in burst:
        thread.join(30)
    assert len(client._lean[1].connections._idle) >= CONNECTIONS
    store.forgets()
    with pytest.raises(Exception, match=r"without response|reset"):
        client.head_object(Bucket="b", Key="k")
    assert client.head_object(Bucket="b", Key="k")["ETag"] == '"1"'


def test_a_connection_that_is_idle_is_asked_before_a_firewall_forgets_it(store: Store, client: Any) -> None:
    connections = client._learnt()[1].connections
    connection = connections.take()
    sock = connection.sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle, every, count = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
    assert [sock.getsockopt(socket.IPPROTO_TCP, which) for which in (idle, every, count)] == [60, 10, 3]
    connections.give(connection, reuse=True)


@pytest.mark.parametrize("method", ["get_object", "head_object", "put_object", "delete_object"])
@pytest.mark.parametrize(
    "late",
    [
        b"HTTP/1.1 408 Request Time-out\r\nContent-length: 13\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n"
        b"<html>\n</html",
        b"HTTP/1.0 408 Request Time-out\r\nContent-Type: text/html\r\n\r\n<html><body>\n<h1>408</h1>\n</body></html>\n",
    ],
)
def test_what_a_proxy_says_to_an_idle_connection_is_a_lost_connection(
    store: Store, client: Any, late: bytes, method: str
) -> None:
    """HAProxy's, to a spare on which no request came; ours may cross it."""
    store.together = threading.Barrier(1)
    store.answer = late
    with pytest.raises((ClientError, HTTPException, OSError)) as caught:
        getattr(client, method)(Bucket="b", Key="k")
    assert isinstance(failure(method, caught.value), ConnectionFailed)
