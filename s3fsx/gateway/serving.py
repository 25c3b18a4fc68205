"""``s3fsx gateway serve``: backend, gateway and server put together, until a signal ends it."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import resource
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TextIO

import trio

from .. import __version__
from ..configuration.values import is_local, listen
from ..errors import ConfigError, S3fsxError
from ..metrics import exposition
from ..metrics import server as metrics_server
from ..s3.sign import Keys
from .accounts import of_lines
from .backend import Backend
from .connection import Limits
from .directory.provider import DirectoryBackend
from .expiring import keep_expiring
from .gateway import Gateway
from .http import Server
from .keynames import INTERNAL
from .messages import Request, Response
from .meter import Meter
from .upstream.client import Client, Place
from .upstream.forward import Forward
from .upstream.owners import Owners, is_state
from .users import Current, read_private

log = logging.getLogger("s3fsx.gateway")

_DESCRIPTORS = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """path: of the directory that is served, or upstream: the URL of another S3, with state, a directory for users and
    owners of buckets. listen: HOST:PORT, port 0 for any; the rest as the command's arguments."""

    path: str = ""
    upstream: str = ""
    upstream_key_file: str = ""
    upstream_region: str = "us-east-1"
    upstream_ca: str = ""
    upstream_trailers: bool = False
    state: str = ""
    listen: str = "127.0.0.1:9000"
    tls_cert: str = ""
    tls_key: str = ""
    access_key_file: str = ""
    no_auth: bool = False
    region: str = "us-east-1"
    domain: tuple[str, ...] = ("localhost",)
    access_log: str = ""
    sigv2: bool = False
    acl: bool = False
    metrics: str = ""
    metrics_public: bool = False

    @property
    def root(self) -> str:
        """Where the users are."""
        return self.path or self.state

    @property
    def address(self) -> tuple[str, int]:
        """Raises ConfigError."""
        host, _, port = self.listen.rpartition(":")
        host = host.strip("[]")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"listen {self.listen!r}: HOST:PORT, such as 127.0.0.1:9000 or [::1]:9000")
        return host, int(port)

    @property
    def metrics_address(self) -> str:
        """As ``values.listen`` has it; "": nowhere. Raises ConfigError."""
        try:
            return str(listen().parse(self.metrics.removeprefix("unix:")))
        except ValueError as error:
            raise ConfigError(f"metrics {self.metrics!r}: {error}") from None

    @property
    def loopback(self) -> bool:
        host, _ = self.address
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def check(settings: Settings) -> None:
    """Raises ConfigError."""
    if settings.no_auth and settings.access_key_file:
        raise ConfigError("no_auth and access_key_file exclude each other")
    if settings.no_auth and settings.acl:
        raise ConfigError("no_auth and acl exclude each other: without keys everybody may do all")
    if settings.no_auth and not settings.loopback:
        raise ConfigError(f"no_auth is for a loopback address only, not {settings.listen}: give --access-key-file FILE")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigError("tls_cert and tls_key belong together")
    metrics = settings.metrics_address
    if metrics and not settings.metrics_public and not is_local(metrics):
        raise ConfigError(f"metrics {metrics} is for other machines, too: set metrics_public, or use 127.0.0.1")
    if bool(settings.path) == bool(settings.upstream):
        raise ConfigError("what is to be served? give --path DIR, or --upstream URL, not both")
    if settings.upstream and not (settings.upstream_key_file and settings.state):
        raise ConfigError("upstream needs --upstream-key-file FILE, with a line ACCESS:SECRET, and --state DIR")
    if settings.upstream and settings.acl:
        raise ConfigError("acl is for a directory: another S3 has lists of its own, which know none of the users here")
    if settings.path and is_state(settings.path):
        raise ConfigError(
            f"path {settings.path}: the state of a gateway in front of another S3: give --state, --upstream"
        )
    if settings.path and settings.state:
        raise ConfigError("state is for --upstream; the users of a directory are in it")
    if not os.path.isdir(settings.root):
        name = "path" if settings.path else "state"
        raise ConfigError(f"{name} {settings.root}: no such directory: mkdir {settings.root}")
    if os.path.exists(os.path.join(settings.root, os.fsdecode(INTERNAL), "bucket.json")):
        parent = os.path.dirname(os.path.abspath(settings.root))
        raise ConfigError(f"path {settings.root} is a bucket, and its directories would become buckets: serve {parent}")


def serve(settings: Settings, out: TextIO = sys.stdout) -> None:
    """Raises ConfigError, S3fsxError."""
    check(settings)
    current = None if settings.no_auth else Current(settings.root, settings.access_key_file, log.warning)
    if current is not None and not current().keys:
        raise ConfigError(
            f"nobody has a key: --access-key-file FILE with a line ACCESS:SECRET, or "
            f"'s3fsx gateway user add --path {settings.root} NAME', or --no-auth"
        )
    context = None
    if settings.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(settings.tls_cert, settings.tls_key, "")  # a password would be asked for
        except OSError as error:
            raise ConfigError(f"tls_cert {settings.tls_cert}, tls_key {settings.tls_key}: {error}") from None
    _raise_descriptors()
    forward = _forward(settings) if settings.upstream else None
    place = forward or DirectoryBackend(settings.path)
    try:
        place.claim()
    except BlockingIOError:
        raise S3fsxError(f"{settings.root} is served by another s3fsx gateway") from None
    try:
        access = AccessLog(settings.access_log) if settings.access_log else None
        meter = Meter(__version__)
        gateway = Gateway(
            place,
            current,
            settings.region,
            settings.domain,
            access,
            sigv2=settings.sigv2,
            acl=settings.acl,
            meter=meter,
            forward=forward,
        )
        trio.run(_run, settings, Server(gateway, Limits(), meter), place, context, meter, out)
    finally:
        place.release()


def _forward(settings: Settings) -> Forward:
    """Raises ConfigError."""
    place = Place.parse(settings.upstream)
    pairs = of_lines(read_private(settings.upstream_key_file), settings.upstream_key_file).keys
    if len(pairs) != 1:
        raise ConfigError(f"{settings.upstream_key_file}: one line ACCESS:SECRET is needed, not {len(pairs)}")
    ((access, (_, secret)),) = pairs.items()
    context = None
    if place.secure:
        try:
            context = ssl.create_default_context(cafile=settings.upstream_ca or None)
        except OSError as error:
            raise ConfigError(f"upstream_ca {settings.upstream_ca}: {error}") from None
    client = Client(place, Keys(access, secret), settings.upstream_region, context)
    return Forward(client, Owners(settings.state), settings.upstream_region, trailers=settings.upstream_trailers)


def _raise_descriptors() -> None:
    """512 connections have a socket and up to three files each; the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def open_listeners(settings: Settings) -> list[trio.SocketListener]:
    """Raises ConfigError, S3fsxError."""
    host, port = settings.address
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise S3fsxError(f"cannot listen on {settings.listen}: {error.strerror or error}") from None
    where = [str(listener.socket.getsockname()[0]) for listener in listeners]
    if settings.no_auth and not all(ipaddress.ip_address(address).is_loopback for address in where):
        for listener in listeners:
            await listener.aclose()
        raise ConfigError(f"no_auth is for a loopback address only, but {host} is {', '.join(where)}")
    return listeners


async def _run(
    settings: Settings,
    server: Server,
    place: Backend | Forward,
    context: ssl.SSLContext | None,
    meter: Meter,
    out: TextIO,
) -> None:
    host, _ = settings.address
    listeners = await open_listeners(settings)
    port = listeners[0].socket.getsockname()[1]
    served = [trio.SSLListener(listener, context) for listener in listeners] if context else listeners
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, served)
            scheme = "https" if context else "http"
            shown = f"[{host}]" if ":" in host else host
            out.write(snippets(f"{scheme}://{shown}:{port}", settings))
            out.flush()
            if isinstance(place, Forward):
                nursery.start_soon(place.keep_connected)
            else:
                nursery.start_soon(keep_expiring, place)
            if address := settings.metrics_address:
                nursery.start_soon(
                    metrics_server.serve, address, lambda: exposition.render(meter.families()), "metrics"
                )
            nursery.start_soon(_stop, signals, server, nursery.cancel_scope)


async def _stop(signals: AsyncIterator[int], server: Server, scope: trio.CancelScope) -> None:
    async for _ in signals:
        log.info("stopping")
        server.stop()
        await server.stopped.wait()
        scope.cancel()


def snippets(endpoint: str, settings: Settings) -> str:
    keys = "any keys" if settings.no_auth else "your keys"
    return (
        f"s3fsx gateway: {endpoint} serves {settings.path or settings.upstream}, region {settings.region}, {keys}\n"
        f"  s3fsx:   s3fsx mount s3://BUCKET DIRECTORY -o endpoint={endpoint},region={settings.region}\n"
        f"  rclone:  rclone lsd \":s3,provider=Other,env_auth,endpoint='{endpoint}',region={settings.region}:\"\n"
        f"  aws:     aws --endpoint-url {endpoint} --region {settings.region} s3 ls\n"
    )


class AccessLog:
    """A line of JSON for each request: to a file, or to stderr for "-"."""

    def __init__(self, path: str) -> None:
        self._failed = False
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = 2 if path == "-" else os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigError(f"access_log {path}: {error.strerror}") from None

    def __call__(
        self, request: Request, user: str, operation: str, region: str, response: Response, seconds: float
    ) -> None:
        """seconds: until the answer began. The query is left out: it may hold a signature."""
        body = response.body
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": request.id,
            "peer": request.peer,
            "user": user,
            "operation": operation,
            "method": request.method,
            "path": request.target.partition(b"?")[0].decode("latin-1"),
            "status": response.status,
            "received": request.body.received,
            "sent": len(body) if isinstance(body, bytes) else body.length,
            "seconds": round(seconds, 6),
        }
        try:
            os.write(self._descriptor, json.dumps(entry).encode() + b"\n")
            self._failed = False
        except OSError as error:  # the answer is none the worse
            if not self._failed:
                log.warning("the access log cannot be written: %s", error.strerror or error)
            self._failed = True
