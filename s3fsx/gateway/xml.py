"""XML of requests and answers. Pure.

An answer is built of pairs ``(name, text or children)``. Requests are parsed by defusedxml, which refuses entities and
DTDs; namespaces are ignored, as S3 does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from .errors import S3Error

Node: TypeAlias = "tuple[str, str | list[Node]]"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
LIMIT = 2 << 20  # bytes of a request's document: 10 000 parts with their checksums, 1000 keys of 1024 bytes
_SPECIAL = re.compile('[&<>"\\x00-\\x1f\\x7f\ufffe\uffff]')
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escape(text: str) -> str:
    """Control characters become references, as Amazon writes them: XML 1.0 knows no other way."""
    return _SPECIAL.sub(lambda found: _NAMED.get(found[0]) or f"&#x{ord(found[0]):x};", text)


def document(name: str, children: Iterable[Node], *, namespace: str = NAMESPACE) -> bytes:
    out = ['<?xml version="1.0" encoding="UTF-8"?>\n', f'<{name} xmlns="{namespace}">' if namespace else f"<{name}>"]
    for child in children:
        _write(child, out)
    out.append(f"</{name}>")
    return "".join(out).encode()


def _write(node: Node, out: list[str]) -> None:
    name, content = node
    out.append(f"<{name}>")
    if isinstance(content, str):
        out.append(escape(content))
    else:
        for child in content:
            _write(child, out)
    out.append(f"</{name.partition(' ')[0]}>")


def grantee(owner: str) -> Node:
    return (
        f'Grantee xmlns:xsi="{XSI}" xsi:type="CanonicalUser"',
        [("ID", owner), ("DisplayName", owner)],
    )


def group_grantee(uri: str) -> Node:
    return f'Grantee xmlns:xsi="{XSI}" xsi:type="Group"', [("URI", uri)]


class Tree:
    """An element of a request. Every miss is S3's MalformedXML."""

    def __init__(self, element: Element) -> None:
        self._element = element

    @property
    def name(self) -> str:
        return _local(self._element)

    def all(self, name: str = "") -> Iterator[Tree]:
        return (Tree(child) for child in self._element if not name or _local(child) == name)

    def one(self, name: str) -> Tree | None:
        found = list(self.all(name))
        if len(found) > 1:
            raise S3Error("MalformedXML")
        return found[0] if found else None

    def text(self, name: str, default: str | None = None) -> str:
        """Of a child. Raises S3Error without it and without a default."""
        found = self.one(name)
        if found is None:
            if default is None:
                raise S3Error("MalformedXML")
            return default
        return found.content()

    def content(self) -> str:
        if len(self._element):
            raise S3Error("MalformedXML")
        return self._element.text or ""

    def only(self, *names: str) -> None:
        if any(child.name not in names for child in self.all()):
            raise S3Error("MalformedXML")


def parse(body: bytes, root: str) -> Tree:
    """Raises S3Error: MalformedXML for anything but one well-formed document with this root."""
    try:
        element = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        raise S3Error("MalformedXML") from None
    if element is None or _local(element) != root:
        raise S3Error("MalformedXML")
    return Tree(element)


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
