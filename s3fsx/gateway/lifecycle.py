"""Lifecycle rules of a bucket: read from XML, written as XML, and what they say of an object at a moment. Pure.

Expiration (days or a date), of versions that are not current, of markers that stand alone, and aborting uploads.
Transitions are refused: there is one storage class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from .errors import S3Error
from .model import Object
from .xml import Node, Tree

Rule = Mapping[str, Any]
_DAY = 86400
_RULES = 1000


def parse_rules(tree: Tree) -> list[dict[str, Any]]:
    """Raises S3Error."""
    rules = [_rule(element) for element in tree.all("Rule")]
    tree.only("Rule")
    if not 1 <= len(rules) <= _RULES:
        raise S3Error("MalformedXML")
    for number, rule in enumerate(rules):
        rule["id"] = rule["id"] or f"rule-{number + 1}"
    if len({rule["id"] for rule in rules}) != len(rules):
        raise S3Error("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
    return rules


def _rule(element: Tree) -> dict[str, Any]:
    for transition in element.all("Transition"):
        if transition.one("Date") is not None:
            _date(transition.text("Date"))
    if any(name in ("Transition", "NoncurrentVersionTransition") for name in (child.name for child in element.all())):
        raise S3Error("NotImplemented", "Transitions are not implemented: there is one storage class.")
    status, name = element.text("Status"), element.text("ID", "")
    if status not in ("Enabled", "Disabled"):
        raise S3Error("MalformedXML")
    if len(name) > 255:
        raise S3Error("InvalidArgument", "ID length should not exceed allowed limit of 255")
    rule: dict[str, Any] = {"id": name, "status": status, **_filter(element)}
    if (expiration := element.one("Expiration")) is not None:
        given = [child.name for child in expiration.all()]
        if len(given) != 1:
            raise S3Error("MalformedXML")
        if given[0] == "Days":
            rule["days"] = _positive(expiration, "Days")
        elif given[0] == "Date":
            rule["date"] = _date(expiration.text("Date"))
        elif given[0] == "ExpiredObjectDeleteMarker":
            rule["markers"] = expiration.text("ExpiredObjectDeleteMarker") == "true"
        else:
            raise S3Error("MalformedXML")
    if (noncurrent := element.one("NoncurrentVersionExpiration")) is not None:
        rule["noncurrent"] = _positive(noncurrent, "NoncurrentDays")
        if noncurrent.one("NewerNoncurrentVersions") is not None:
            rule["newer"] = _positive(noncurrent, "NewerNoncurrentVersions")
    if (abort := element.one("AbortIncompleteMultipartUpload")) is not None:
        rule["abort"] = _positive(abort, "DaysAfterInitiation")
    if not {"days", "date", "markers", "noncurrent", "abort"} & rule.keys():
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule")
    return rule


def _positive(element: Tree, name: str) -> int:
    text = element.text(name).strip()
    if not text.lstrip("-").isdigit() or len(text) > 9:
        raise S3Error("MalformedXML")
    if int(text) < 1:
        raise S3Error("InvalidArgument", f"'{name}' must be a positive integer")
    return int(text)


def _date(text: str) -> int:
    """Seconds since the epoch, of a midnight."""
    try:
        if len(text) < 10 or text[4] != "-":
            raise ValueError
        when = datetime.fromisoformat(text)
    except ValueError:
        raise S3Error("MalformedXML") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if int(when.timestamp()) % _DAY:
        raise S3Error("InvalidArgument", "'Date' must be at midnight GMT")
    return int(when.timestamp())


def _filter(element: Tree) -> dict[str, Any]:
    found = element.one("Filter")
    if found is None:
        return {"prefix": element.text("Prefix", ""), "tags": [], "old": element.one("Prefix") is not None}
    if element.one("Prefix") is not None or len(list(found.all())) > 1:
        raise S3Error("MalformedXML")
    both = found.one("And") or found
    both.only("Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan")
    made: dict[str, Any] = {
        "prefix": both.text("Prefix", ""),
        "tags": [[tag.text("Key"), tag.text("Value")] for tag in both.all("Tag")],
        "old": False,
    }
    for name, key in (("ObjectSizeGreaterThan", "above"), ("ObjectSizeLessThan", "below")):
        if both.one(name) is not None:
            made[key] = _positive(both, name) if both.text(name) != "0" else 0
    return made


def nodes(rules: Sequence[Rule]) -> list[Node]:
    return [("Rule", _nodes(rule)) for rule in rules]


def _nodes(rule: Rule) -> list[Node]:
    out: list[Node] = [("ID", rule["id"])]
    parts: list[Node] = [("Prefix", rule["prefix"])] if rule["prefix"] else []
    parts += [("Tag", [("Key", name), ("Value", value)]) for name, value in rule["tags"]]
    if "above" in rule:
        parts.append(("ObjectSizeGreaterThan", str(rule["above"])))
    if "below" in rule:
        parts.append(("ObjectSizeLessThan", str(rule["below"])))
    if rule["old"]:
        out.append(("Prefix", rule["prefix"]))
    else:
        out.append(("Filter", [("And", parts)] if len(parts) > 1 else parts or [("Prefix", "")]))
    out.append(("Status", rule["status"]))
    if "days" in rule:
        out.append(("Expiration", [("Days", str(rule["days"]))]))
    if "date" in rule:
        text = datetime.fromtimestamp(rule["date"], UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        out.append(("Expiration", [("Date", text)]))
    if "markers" in rule:
        out.append(("Expiration", [("ExpiredObjectDeleteMarker", "true" if rule["markers"] else "false")]))
    if "noncurrent" in rule:
        more: list[Node] = [("NewerNoncurrentVersions", str(rule["newer"]))] if "newer" in rule else []
        out.append(("NoncurrentVersionExpiration", [*more, ("NoncurrentDays", str(rule["noncurrent"]))]))
    if "abort" in rule:
        out.append(("AbortIncompleteMultipartUpload", [("DaysAfterInitiation", str(rule["abort"]))]))
    return out


def _applies(rule: Rule, key: str) -> bool:
    return bool(rule["status"] == "Enabled" and key.startswith(rule["prefix"]))


def _fits(rule: Rule, found: Object) -> bool:
    return (
        _applies(rule, found.key)
        and all((name, value) in found.tags for name, value in rule["tags"])
        and found.size > rule.get("above", -1)
        and ("below" not in rule or found.size < rule["below"])
    )


def due(seconds: float, days: int) -> float:
    """The midnight after so many days, as S3 counts them."""
    return float((int(seconds) // _DAY + days + 1) * _DAY)


def doomed(rules: Sequence[Rule], versions: Sequence[Object], now: float) -> list[Object]:
    """Of all versions of a key, newest first: those to be deleted. The latest one is deleted without its version, so
    that a versioned bucket gets a marker; a marker that stands alone goes by its version."""
    out = []
    for position, version in enumerate(versions):
        written = version.modified / 1e9
        for rule in rules:
            if not _fits(rule, version):
                continue
            if version.latest and version.marker:
                alone = len(versions) == 1
                expired = alone and (
                    rule.get("markers", False) or ("days" in rule and now >= due(written, rule["days"]))
                )
            elif version.latest:
                expired = ("days" in rule and now >= due(written, rule["days"])) or now >= rule.get("date", now + 1)
            else:
                since = versions[position - 1].modified / 1e9  # it is not current since then
                expired = "noncurrent" in rule and position > rule.get("newer", 0)
                expired = expired and now >= due(since, rule["noncurrent"])
            if expired:
                out.append(version)
                break
    return out


def expiration(rules: Sequence[Rule], found: Object) -> str:
    """x-amz-expiration: when this object is going to expire, and by which rule. "": by none."""
    chosen: tuple[float, str] | None = None
    for rule in rules:
        if not _fits(rule, found) or not ("days" in rule or "date" in rule):
            continue
        when = due(found.modified / 1e9, rule["days"]) if "days" in rule else float(rule["date"])
        if chosen is None or when < chosen[0]:
            chosen = when, rule["id"]
    if chosen is None:
        return ""
    return f'expiry-date="{formatdate(chosen[0], usegmt=True)}", rule-id="{quote(chosen[1])}"'


def aborted(rules: Sequence[Rule], key: str, initiated: int, now: float) -> bool:
    """initiated: ns."""
    return any(_applies(rule, key) and "abort" in rule and now >= due(initiated / 1e9, rule["abort"]) for rule in rules)
