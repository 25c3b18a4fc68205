"""The status of a mount over a Unix socket: one connection, one JSON document, whatever the store does.

The socket's name is the mount point, escaped, so that ``s3fsx status`` finds all mounts by a listing of the directory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

import trio

from .errors import ConfigError, S3fsxError

MAX_DOCUMENT = 1 << 20
MAX_CLIENTS = 8  # more wait in the listen queue
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


def mounts(runtime_dir: str) -> dict[str, str]:
    """Mount point -> socket, for every socket in runtime_dir that tells its mount point."""
    try:
        names = sorted(os.listdir(runtime_dir))
    except FileNotFoundError:
        return {}
    return {
        unquote(name.removesuffix(SUFFIX)): os.path.join(runtime_dir, name)
        for name in names
        if name.endswith(SUFFIX) and not name.startswith(HASHED)
    }


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
                    try:
                        client, _ = await server.accept()
                    except BaseException:
                        limit.release_on_behalf_of(token)
                        raise
                    nursery.start_soon(_answer, client, snapshot, limit, token)
    finally:
        with contextlib.suppress(OSError):
            now = os.stat(path)
            if (now.st_dev, now.st_ino) == (identity.st_dev, identity.st_ino):
                os.unlink(path)


async def _answer(
    client: trio.socket.SocketType,
    snapshot: Callable[[], dict[str, object]],
    limit: trio.CapacityLimiter,
    token: object,
) -> None:
    try:
        with client, trio.move_on_after(CLIENT_DEADLINE):
            document = json.dumps(snapshot(), default=str).encode()
            if len(document) > MAX_DOCUMENT:
                document = json.dumps({"error": f"status of {len(document)} bytes is too long"}).encode()
            with contextlib.suppress(OSError):
                await trio.SocketStream(client).send_all(document)
    finally:
        limit.release_on_behalf_of(token)


def _listen(path: str) -> socket.socket:
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    status = os.stat(directory)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        # Not set right by a chmod: it may be /tmp.
        raise OSError(errno.EPERM, f"{directory} must belong to this user and be writable for nobody else")
    with contextlib.suppress(FileNotFoundError):
        if _alive(path):
            raise OSError(errno.EADDRINUSE, "another s3fsx answers there")
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Before listen() nobody gets through, whatever the mode is meanwhile.
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(MAX_CLIENTS)
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
        except TimeoutError:
            return True
        return True


def read_status(path: str, timeout: float = 2.0) -> dict[str, object]:
    """The document behind a socket, within ``timeout`` seconds in all. Raises S3fsxError in one line."""
    deadline = time.monotonic() + timeout
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            client.connect(path)
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
        raise S3fsxError("no s3fsx runs there") from None
    except OSError as error:
        raise S3fsxError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise S3fsxError("the answer is no JSON document (the daemon ended meanwhile)") from None
    if not isinstance(document, dict):
        raise S3fsxError("the answer is no status")
    return document
