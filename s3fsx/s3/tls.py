"""What a new TLS connection to the store can do without: the check of a chain of certificates, where an earlier session
is resumed (with TLS 1.2 a round trip, too), and the parsing of a bundle of authorities, which urllib3 does for every
connection anew (38 ms of CPU for certifi's)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any


class TlsReuse:
    """Of the connections that ``context`` wraps: they offer the session of an earlier one, and read a bundle only when
    it has changed.

    For a context of clients of one store. A store that does not know the session (any more) makes a full handshake. The
    session's secret is known to the store alone whose certificate was verified, so nobody else can resume it.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._session: ssl.SSLSession | None = None
        self._loaded: set[tuple[object, ...]] = set()
        self._wrap: Callable[..., ssl.SSLSocket] = context.wrap_socket
        self._load: Callable[..., None] = context.load_verify_locations
        made: Any = context  # by botocore: it cannot be of a class of ours
        made.wrap_socket = self._wrap_resuming
        made.load_verify_locations = self._load_once

    def keep(self, connected: ssl.SSLSocket) -> None:
        """After an answer was read: a server of TLS 1.3 sends its sessions before it."""
        if connected.session is not None and connected.session.has_ticket:
            self._session = connected.session

    def _wrap_resuming(self, sock: Any, *args: Any, **options: Any) -> ssl.SSLSocket:
        if self._session is not None:
            options.setdefault("session", self._session)
        return self._wrap(sock, *args, **options)

    def _load_once(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        key = (cafile, os.stat(cafile).st_mtime_ns if cafile else 0, capath, cadata)
        if key not in self._loaded:
            self._load(cafile, capath, cadata)
            self._loaded.add(key)
