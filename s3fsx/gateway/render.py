"""Answers as S3 writes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import formatdate

from .errors import S3Error
from .messages import Response
from .xml import Node, document

_FIRST, _LAST = -30610224000, 253402300799  # seconds; the years 1000 to 9999
XML = ("Content-Type", "application/xml")


def error_response(error: S3Error, request_id: str, resource: str = "") -> Response:
    if error.status == 304:
        return Response(304, error.headers)
    children: list[Node] = [("Code", error.code), ("Message", error.message)]
    children += [(name, value) for name, value in error.fields.items()]
    children += [("Resource", resource), ("RequestId", request_id), ("HostId", request_id)]
    return Response(error.status, (*error.headers, XML), document("Error", children, namespace=""))


def xml_response(name: str, children: Iterable[Node], headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(200, (*headers, XML), document(name, children))


def iso(nanoseconds: int) -> str:
    """As in listings: milliseconds, which are those of whole seconds, as the header tells no more."""
    return datetime.fromtimestamp(_seconds(nanoseconds), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def http_date(nanoseconds: int) -> str:
    return formatdate(_seconds(nanoseconds), usegmt=True)


def _seconds(nanoseconds: int) -> int:
    """A file system may know years that a date has no digits for."""
    return min(max(nanoseconds // 10**9, _FIRST), _LAST)
