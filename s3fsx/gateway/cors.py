"""Cross-origin rules of a bucket: read from XML, written as XML, and what a browser is told by them. Pure.

By "Using cross-origin resource sharing" of the Amazon S3 user guide. They give nobody a right: they let a browser hand
an answer to a page of another origin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import S3Error
from .xml import Node, Tree

Rule = Mapping[str, Any]
METHODS = ("GET", "PUT", "HEAD", "POST", "DELETE")
_RULES = 100
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ELEMENTS = {
    "origins": "AllowedOrigin",
    "methods": "AllowedMethod",
    "headers": "AllowedHeader",
    "exposed": "ExposeHeader",
}


def parse_rules(tree: Tree) -> list[dict[str, Any]]:
    """Raises S3Error."""
    tree.only("CORSRule")
    rules = [_rule(element) for element in tree.all("CORSRule")]
    if not 1 <= len(rules) <= _RULES:
        raise S3Error("MalformedXML")
    return rules


def _rule(element: Tree) -> dict[str, Any]:
    element.only("ID", "MaxAgeSeconds", *_ELEMENTS.values())
    rule: dict[str, Any] = {
        key: [child.content().strip() for child in element.all(name)] for key, name in _ELEMENTS.items()
    }
    if not rule["origins"] or not rule["methods"]:
        raise S3Error("MalformedXML")
    for method in rule["methods"]:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest", f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )
    for key in ("origins", "headers"):
        for value in rule[key]:
            if value.count("*") > 1:
                raise S3Error("InvalidRequest", f'{_ELEMENTS[key]} "{value}" can not have more than one wildcard.')
    for value in rule["headers"]:
        if not _NAME.fullmatch(value):
            raise S3Error("InvalidRequest", f'AllowedHeader "{value}" contains invalid character.')
    for value in rule["exposed"]:
        if "*" in value or not _NAME.fullmatch(value):  # they stand in a header
            raise S3Error("InvalidRequest", f'ExposeHeader "{value}" is not the name of a header.')
    rule["id"] = element.text("ID", "")
    if len(rule["id"]) > 255:
        raise S3Error("InvalidArgument", "ID length should not exceed allowed limit of 255")
    age = element.text("MaxAgeSeconds", "").strip()
    if age and (not age.isascii() or not age.isdigit() or len(age) > 9):
        raise S3Error("MalformedXML")
    rule["age"] = int(age) if age else None
    return rule


def nodes(rules: Sequence[Rule]) -> list[Node]:
    told: list[Node] = []
    for rule in rules:
        fields: list[Node] = [("ID", rule["id"])] if rule["id"] else []
        for key, name in _ELEMENTS.items():
            fields += [(name, value) for value in rule[key]]
        if rule["age"] is not None:
            fields.append(("MaxAgeSeconds", str(rule["age"])))
        told.append(("CORSRule", fields))
    return told


def answer(rules: Sequence[Rule], origin: str, method: str, asked: Sequence[str]) -> list[tuple[str, str]]:
    """Headers by the first rule that fits, none if none does. asked: of Access-Control-Request-Headers, lower-case."""
    for rule in rules:
        allowed = next((pattern for pattern in rule["origins"] if _fits(pattern, origin)), None)
        if allowed is None or method not in rule["methods"]:
            continue
        if not all(any(_fits(pattern.lower(), name) for pattern in rule["headers"]) for name in asked):
            continue
        headers = [
            ("Access-Control-Allow-Origin", "*" if allowed == "*" else origin),
            ("Access-Control-Allow-Methods", ", ".join(rule["methods"])),
        ]
        if allowed != "*":
            headers.append(("Access-Control-Allow-Credentials", "true"))
        if asked:
            headers.append(("Access-Control-Allow-Headers", ", ".join(asked)))
        if rule["exposed"]:
            headers.append(("Access-Control-Expose-Headers", ", ".join(rule["exposed"])))
        if rule["age"] is not None:
            headers.append(("Access-Control-Max-Age", str(rule["age"])))
        headers.append(("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"))
        return headers
    return []


def _fits(pattern: str, text: str) -> bool:
    begin, star, end = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(begin) + len(end) and text.startswith(begin) and text.endswith(end)
