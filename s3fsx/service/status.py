"""The status of a mount over a Unix socket: one connection, one JSON document, whatever the store does.

The socket's name is the mount point, escaped, so that ``s3fsx status`` finds all mounts by a listing of the directory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

import trio

from .. import safepath
from ..errors import ConfigError, S3fsxError

log = logging.getLogger("s3fsx.status")

MAX_DOCUMENT = 1 << 20
MAX_CLIENTS = 8  # more wait in the listen queue
BACKLOG = 128
CONNECT_PAUSE = 0.02
ACCEPT_PAUSE = 1.0
CLIENT_DEADLINE = 5.0
SUFFIX = ".sock"
HASHED = "@"  # quote() escapes it, so that no mount point starts like this
# sun_path holds 108 bytes with the final NUL (unix(7)).
MAX_PATH = 107


def socket_path(runtime_dir: str, mountpoint: str) -> str:
    """The socket of a mount point (an absolute path): its name escaped, or hashed where that is too long for a socket.

    Raises ConfigError when runtime_dir alone is too long.
    """
    name = quote(mountpoint, safe="")
    for candidate in (name, HASHED + hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]):
        path = os.path.join(runtime_dir, candidate + SUFFIX)
        if len(os.fsencode(path)) <= MAX_PATH:
            return path
    raise ConfigError(f"runtime_dir = {runtime_dir[:80]}...: too long for a Unix socket of {MAX_PATH} bytes in it")


def sockets(runtime_dir: str) -> list[str]:
    """Every socket in runtime_dir. Raises S3fsxError when this user may not see them."""
    try:
        names = sorted(os.listdir(runtime_dir))
    except FileNotFoundError:
        return []
    except PermissionError:
        raise S3fsxError(
            f"{runtime_dir}: only {_owner(runtime_dir)} can see the mounts there; -o runtime_dir=DIR shows your own"
        ) from None
    except OSError as error:
        raise S3fsxError(f"{runtime_dir}: {error.strerror}") from None
    return [os.path.join(runtime_dir, name) for name in names if name.endswith(SUFFIX)]


def mounts(runtime_dir: str) -> dict[str, str]:
    """Mount point -> socket, for every socket whose name tells its mount point. Raises as ``sockets``."""
    named = {os.path.basename(path).removesuffix(SUFFIX): path for path in sockets(runtime_dir)}
    return {unquote(name): path for name, path in named.items() if not name.startswith(HASHED)}


def _owner(path: str) -> str:
    try:
        uid = os.stat(path).st_uid
    except OSError:  # a directory above it is closed, too
        return "root"
    return f"uid {uid}" if uid else "root"


def removed_if_dead(path: str) -> bool:
    """Whether nobody listens at a socket, which is then gone: a daemon that was killed leaves its own."""
    try:
        if _alive(path):
            return False
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        log.debug("%s: %s", path, error.strerror)
        return False
    return True


async def serve_status(
    path: str,
    snapshot: Callable[[], dict[str, object]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answers each connection with ``snapshot()`` as JSON until cancelled; then the socket is gone again.

    A stale socket is replaced, a living one is refused. Raises S3fsxError when the socket cannot be made.
    """
    try:
        listener = _listen(path)
    except OSError as error:
        raise S3fsxError(f"status socket {path}: {error.strerror or error}") from None
    identity = os.stat(path)
    limit = trio.CapacityLimiter(MAX_CLIENTS)
    try:
        with trio.socket.from_stdlib_socket(listener) as server:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await limit.acquire_on_behalf_of(token := object())
                    client = await _accepted(server)
                    nursery.start_soon(_answer, client, snapshot, limit, token)
    finally:
        with contextlib.suppress(OSError):
            now = os.stat(path)
            if (now.st_dev, now.st_ino) == (identity.st_dev, identity.st_ino):
                os.unlink(path)


async def _accepted(server: trio.socket.SocketType) -> trio.socket.SocketType:
    while True:
        try:
            return (await server.accept())[0]
        except OSError as error:  # the client has gone already, or this process has no descriptor left
            log.warning("status socket: %s", error.strerror)
            await trio.sleep(ACCEPT_PAUSE)


async def _answer(
    client: trio.socket.SocketType,
    snapshot: Callable[[], dict[str, object]],
    limit: trio.CapacityLimiter,
    token: object,
) -> None:
    """One client. Nothing that goes wrong here may end the mount."""
    try:
        with client, trio.move_on_after(CLIENT_DEADLINE):
            document = _document(snapshot)
            with contextlib.suppress(trio.BrokenResourceError):
                await trio.SocketStream(client).send_all(document)
    finally:
        limit.release_on_behalf_of(token)


def _document(snapshot: Callable[[], dict[str, object]]) -> bytes:
    try:
        document = json.dumps(snapshot(), default=str).encode()
    except Exception as error:
        log.exception("the state cannot be told")
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}).encode()
    if len(document) > MAX_DOCUMENT:
        return json.dumps({"error": f"status of {len(document)} bytes is too long"}).encode()
    return document


def _listen(path: str) -> socket.socket:
    safepath.private_directory(os.path.dirname(path), "runtime_dir")
    with contextlib.suppress(FileNotFoundError):
        if _alive(path):
            raise OSError(errno.EADDRINUSE, "another s3fsx answers there")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Before listen() nobody gets through, whatever the mode is meanwhile.
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):
            return True  # its queue is full
        return True


def read_status(path: str, timeout: float = 2.0) -> dict[str, object]:
    """The document behind a socket, within ``timeout`` seconds in all. Raises S3fsxError in one line."""
    deadline = time.monotonic() + timeout
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            while True:
                try:
                    client.connect(path)
                    break
                except BlockingIOError:  # connect(2) to a full queue does not wait when there is a timeout
                    if time.monotonic() > deadline:
                        raise TimeoutError from None
                    time.sleep(CONNECT_PAUSE)
            while len(received) <= MAX_DOCUMENT:
                client.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = client.recv(65536)
                if not chunk:
                    break
                received += chunk
        document = json.loads(received)
    except TimeoutError:
        raise S3fsxError(f"no answer within {timeout:g} s (the daemon hangs)") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise S3fsxError("no daemon answers: it is dead, or was started with another runtime_dir") from None
    except OSError as error:
        raise S3fsxError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise S3fsxError("the answer is no JSON document (the daemon ended meanwhile)") from None
    if not isinstance(document, dict):
        raise S3fsxError("the answer is no status")
    return document
