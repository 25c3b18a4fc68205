"""``GET /metrics`` on a socket of its own. Whatever its clients do costs the mount a task and a second.

Not a web server: one request per connection, a few at once, each within seconds. When the address cannot be had (yet)
that is one WARNING and is tried again; the mount goes on.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address

import trio

from .. import safepath
from ..errors import ConfigError
from .exposition import CONTENT_TYPE

log = logging.getLogger("s3fsx.metrics")

MAX_CLIENTS = 8  # more wait in the listen queue
BACKLOG = 32
MAX_HEAD = 8 << 10
CLIENT_DEADLINE = 5.0  # seconds for a request and its answer
AGAIN = 30.0  # seconds between attempts to listen
_PAUSE = 1.0
PATH = "/metrics"


async def serve(listen: str, text: Callable[[], str], setting: str = "metrics_listen") -> None:
    """Runs until cancelled. listen: a value of ``values.listen``. text: what is answered; called in the event loop.
    setting: what the warning names."""
    told = ""
    while True:
        try:
            server = trio.socket.from_stdlib_socket(_listener(listen))
        except (OSError, ConfigError) as error:
            why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            if why != told:
                log.warning("%s %s: %s; tried again every %.0f s", setting, listen, why, AGAIN)
                told = why
            await trio.sleep(AGAIN)
            continue
        told = ""
        log.info("metrics at %s", f"http://{listen}{PATH}" if not listen.startswith("/") else listen)
        try:
            with server:
                await _accept(server, text)
        finally:
            if listen.startswith("/"):
                with contextlib.suppress(OSError):
                    os.unlink(listen)


async def _accept(server: trio.socket.SocketType, text: Callable[[], str]) -> None:
    limit = trio.CapacityLimiter(MAX_CLIENTS)
    async with trio.open_nursery() as nursery:
        while True:
            await limit.acquire_on_behalf_of(token := object())
            nursery.start_soon(_client, await _accepted(server), text, limit, token)


async def _accepted(server: trio.socket.SocketType) -> trio.socket.SocketType:
    while True:
        try:
            return (await server.accept())[0]
        except OSError as error:  # gone already, or this process has no descriptor left
            log.debug("metrics: %s", error.strerror)
            await trio.sleep(_PAUSE)


async def _client(
    client: trio.socket.SocketType, text: Callable[[], str], limit: trio.CapacityLimiter, token: object
) -> None:
    """Nothing that goes wrong here may end the mount."""
    try:
        with client, trio.move_on_after(CLIENT_DEADLINE), contextlib.suppress(OSError, trio.BrokenResourceError):
            answer = _answer(await _request(client), text)
            stream = trio.SocketStream(client)
            await stream.send_all(answer)
            await stream.send_eof()
            while await client.recv(4096):  # closing with unread bytes would reset the connection under the answer
                pass
    finally:
        limit.release_on_behalf_of(token)


async def _request(client: trio.socket.SocketType) -> bytes:
    """The head of a request, as far as it is of use."""
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) <= MAX_HEAD:
        piece = await client.recv(4096)
        if not piece:
            break
        head += piece
    return head


def _answer(head: bytes, text: Callable[[], str]) -> bytes:
    method, _, rest = head.partition(b"\n")[0].strip().partition(b" ")
    target, _, version = rest.partition(b" ")
    if len(head) > MAX_HEAD or not version.startswith(b"HTTP/1."):
        return _response("400 Bad Request", "not a request\n")
    if target.partition(b"?")[0] != PATH.encode():
        return _response("404 Not Found", f"only {PATH} is here\n")
    if method != b"GET":
        return _response("405 Method Not Allowed", "only GET\n", "Allow: GET\r\n")
    try:
        return _response("200 OK", text(), kind=CONTENT_TYPE)
    except Exception:
        log.exception("the metrics cannot be told")
        return _response("500 Internal Server Error", "see the log\n")


def _response(status: str, text: str, more: str = "", kind: str = "text/plain; charset=utf-8") -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + body


def _listener(listen: str) -> socket.socket:
    """Raises OSError, ConfigError for a directory in which others could replace the socket."""
    if listen.startswith("/"):
        return _unix_listener(listen)
    host, _, port = listen.rpartition(":")
    address = ip_address(host.strip("[]"))
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), int(port)))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _unix_listener(path: str) -> socket.socket:
    if why := safepath.fault(os.path.dirname(path)):
        raise ConfigError(f"not safe, {why}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if os.path.lexists(path):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
                if probe.connect_ex(path) != errno.ECONNREFUSED:
                    raise OSError(errno.EADDRINUSE, "another program listens there, or it is no socket")
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
