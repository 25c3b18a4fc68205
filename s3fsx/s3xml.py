"""The document of a listing, as botocore's dictionary; pure. botocore takes 85 ms of CPU for 1000 entries, of which
dateutil has half; this takes 6."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from xml.etree import ElementTree

_TEXTS = frozenset({"NextContinuationToken", "EncodingType"})


def listing(body: bytes) -> dict[str, Any]:
    """Of ListObjectsV2. Raises ValueError where anything is not as usual: botocore may see more in it."""
    page: dict[str, Any] = {}
    contents: list[dict[str, Any]] = []
    prefixes: list[dict[str, Any]] = []
    try:
        root = ElementTree.fromstring(body, ElementTree.XMLParser(encoding="utf-8"))
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    for child in root:
        name = _name(child)
        if name == "Contents":
            contents.append(_entry(child))
        elif name == "CommonPrefixes":
            prefixes.append({_name(below): below.text or "" for below in child})
        elif name == "IsTruncated":
            page[name] = {"true": True, "false": False}.get(child.text or "")
            if page[name] is None:
                raise ValueError("neither true nor false")
        elif name in _TEXTS:
            page[name] = child.text or ""
    return page | {"Contents": contents, "CommonPrefixes": prefixes}


def _entry(element: ElementTree.Element) -> dict[str, Any]:
    entry: dict[str, Any] = {_name(child): child.text or "" for child in element}
    if "Size" in entry:
        entry["Size"] = int(entry["Size"])
    if "LastModified" in entry:
        entry["LastModified"] = datetime.fromisoformat(entry["LastModified"])
        if entry["LastModified"].tzinfo is None:
            raise ValueError("a time of no zone")
    return entry


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
