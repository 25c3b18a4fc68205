"""If-Match and its like. Pure. RFC 9110, chapter 13, with what S3 makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .errors import S3Error
from .model import Object


def _tags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]


def matches(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in _tags(header)


def date(text: str) -> float | None:
    """Seconds since the epoch; None: no date, which is ignored."""
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def check_read(headers: Mapping[str, str], etag: str, modified: int) -> None:
    """modified: whole seconds. Raises S3Error: PreconditionFailed, NotModified."""
    if (header := headers.get("if-match")) is not None:
        if not matches(header, etag):
            raise S3Error("PreconditionFailed", Condition="If-Match")
    elif (since := _date(headers, "if-unmodified-since")) is not None and modified > since:
        raise S3Error("PreconditionFailed", Condition="If-Unmodified-Since")
    if (header := headers.get("if-none-match")) is not None:
        if matches(header, etag):
            raise S3Error("NotModified")
    elif (since := _date(headers, "if-modified-since")) is not None and modified <= since:
        raise S3Error("NotModified")


def check_copy(headers: Mapping[str, str], etag: str, modified: int) -> None:
    """Of the source of a copy. Raises S3Error: PreconditionFailed."""
    of_source = {
        name.removeprefix("x-amz-copy-source-"): value
        for name, value in headers.items()
        if name.startswith("x-amz-copy-source-if-")
    }
    try:
        check_read(of_source, etag, modified)
    except S3Error as error:
        if error.code == "NotModified":
            raise S3Error("PreconditionFailed") from None
        raise


def check_write(headers: Mapping[str, str], etag: str | None) -> None:
    """etag: None: there is no object. Raises S3Error. Amazon knows only ``*`` in If-None-Match."""
    if (header := headers.get("if-none-match")) is not None and etag is not None and matches(header, etag):
        raise S3Error("PreconditionFailed", Condition="If-None-Match")
    if (header := headers.get("if-match")) is not None:
        if etag is None:
            raise S3Error("NoSuchKey")
        if not matches(header, etag):
            raise S3Error("PreconditionFailed", Condition="If-Match")


def check_delete(headers: Mapping[str, str], found: Object | None) -> None:
    """What is not there is deleted whatever the condition says. Raises S3Error: PreconditionFailed."""
    if found is None:
        return
    if (header := headers.get("if-match")) is not None and not matches(header, found.etag):
        raise S3Error("PreconditionFailed", Condition="If-Match")
    if (text := headers.get("x-amz-if-match-last-modified-time")) is not None:
        when = date(text)
        if when is None or int(when) != found.modified // 10**9:
            raise S3Error("PreconditionFailed", Condition="x-amz-if-match-last-modified-time")
    if (text := headers.get("x-amz-if-match-size")) is not None and text != str(found.size):
        raise S3Error("PreconditionFailed", Condition="x-amz-if-match-size")


def range_holds(if_range: str | None, etag: str, modified: int) -> bool:
    """Whether a Range is to be obeyed."""
    if if_range is None:
        return True
    if if_range.strip().startswith(('"', "W/")):
        return if_range.strip() == f'"{etag}"'
    when = date(if_range)
    return if_range.strip() == etag if when is None else modified == int(when)


def _date(headers: Mapping[str, str], name: str) -> float | None:
    text = headers.get(name)
    return None if text is None else date(text)
