"""Lifecycle rules of a bucket: which ones are ours, which ones are dangerous, which backups may become cold. Pure.

What a rule can say limits what can be promised. It selects by prefix, tag and size, and knows the age of an object,
but not that a backup is protected or the newest of its guest. So there are two rules:

- *ia*, on the prefix of the backups, by age. Only for classes that are read like any other (STANDARD_IA and so on),
  where a protected or a newest backup loses nothing.
- *cold*, for GLACIER and DEEP_ARCHIVE, whose objects cannot be read for hours: on the prefix **and a tag**. s3fsx sets
  the tag, on each run, on backups that are old enough, not protected, and not among the newest of their guest; and
  takes it away again from those that became protected before they went. An object without the tag is never frozen:
  when nobody runs it any more, nothing becomes cold.

Objects of less than SMALLEST stay where they are: notes, protection marks and logs have to be readable, and Amazon
bills each of these as 128 KiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError

Rule = Mapping[str, Any]  # as S3 has it: ID, Status, Filter, Transitions, Expiration, ...

READABLE = ("STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR")
FROZEN = ("GLACIER", "DEEP_ARCHIVE")
TAG = "s3fsx-cold"
SMALLEST = 128 << 10  # bytes
DAY = 86400.0

# pve-storage, Plugin.pm and Storage.pm: archive names that Proxmox itself gives.
_ARCHIVE = re.compile(
    r"vzdump-(?P<kind>qemu|lxc|openvz)-(?P<vmid>[0-9]{1,9})-(?P<time>[0-9]{4}_[0-9]{2}_[0-9]{2}-[0-9]{2}_[0-9]{2}_[0-9]{2})"
    r"\.(?:tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)"
)
_MARK = ".protected"


@dataclass(frozen=True, slots=True)
class Policy:
    """name: of the storage. prefix: of its backups in the bucket. transition_days, glacier_days: age at which an object
    becomes transition_class and glacier_class; 0: never. warm: the newest backups of each guest that stay readable."""

    name: str
    prefix: str
    transition_days: int = 0
    transition_class: str = "STANDARD_IA"
    glacier_days: int = 0
    glacier_class: str = "GLACIER"
    warm: int = 3

    def check(self) -> None:
        """Raises ConfigError."""
        if not self.transition_days and not self.glacier_days:
            raise ConfigError("neither transition days nor glacier days: nothing to do; --remove takes the rules away")
        if self.transition_days and self.transition_class not in READABLE:
            raise ConfigError(
                f"{self.transition_class} for every backup would freeze protected and newest ones, too: use one of "
                f"{', '.join(READABLE)}, and --glacier-days for what is old"
            )
        if self.glacier_days and self.glacier_class not in FROZEN:
            raise ConfigError(f"{self.glacier_class}: use one of {', '.join(FROZEN)}")
        if self.transition_days and self.glacier_days and self.glacier_days <= self.transition_days:
            raise ConfigError(f"glacier days ({self.glacier_days}) have to be more than transition days")
        if self.glacier_days and self.warm < 1:
            raise ConfigError("at least the newest backup of each guest has to stay readable")

    def rules(self) -> list[dict[str, Any]]:
        made = []
        if self.transition_days:
            where = {"Prefix": self.prefix, "ObjectSizeGreaterThan": SMALLEST}
            made.append(_rule(_id(self.name, "ia"), where, self.transition_days, self.transition_class))
        if self.glacier_days:
            tagged = {"Prefix": self.prefix, "Tags": [{"Key": TAG, "Value": self.name}]}
            made.append(_rule(_id(self.name, "cold"), tagged, self.glacier_days, self.glacier_class))
        return made


def _rule(name: str, where: Mapping[str, Any], days: int, storage_class: str) -> dict[str, Any]:
    return {
        "ID": name,
        "Status": "Enabled",
        "Filter": {"And": dict(where)},
        "Transitions": [{"Days": days, "StorageClass": storage_class}],
    }


def _id(name: str, which: str) -> str:
    return f"s3fsx-{name}-{which}"


def is_ours(rule: Rule, name: str) -> bool:
    return rule.get("ID") in (_id(name, "ia"), _id(name, "cold"))


def policy_of(there: Iterable[Rule], policy: Policy) -> Policy:
    """``policy`` with the days and classes that our rules in the bucket say."""
    for rule in there:
        move: Mapping[str, Any] = next(iter(rule.get("Transitions") or ()), {})
        days, storage_class = int(move.get("Days") or 0), str(move.get("StorageClass", ""))
        if rule.get("ID") == _id(policy.name, "ia"):
            policy = replace(policy, transition_days=days, transition_class=storage_class)
        elif rule.get("ID") == _id(policy.name, "cold"):
            policy = replace(policy, glacier_days=days, glacier_class=storage_class)
    return policy


def merged(there: Sequence[Rule], name: str, ours: Sequence[Rule]) -> list[Rule]:
    """The rules that are there, in their order, without our former ones; then ours."""
    return [*(_written(rule) for rule in there if not is_ours(rule, name)), *ours]


def _written(rule: Rule) -> Rule:
    """As it has to be written. Ceph RGW 16 returns several conditions side by side in Filter; S3 has one there, or
    And, and a rule that lost its tag would be one for everything."""
    where = rule.get("Filter") or {}
    if "And" in where or len(where) < 2:
        return rule
    several = {k: v for k, v in where.items() if k != "Tag"}
    return {**rule, "Filter": {"And": several | ({"Tags": [where["Tag"]]} if "Tag" in where else {})}}


def weakened(wanted: Sequence[Rule], stored: Sequence[Rule]) -> list[str]:
    """The ids of rules that the store does not have as they were written: one that lost its tag or prefix would freeze
    or delete what it was not meant for. (Sizes are not compared: Ceph RGW 16 drops them, and all that changes
    then is that small objects move with the others.)"""
    found = {str(rule.get("ID")): _meaning(rule) for rule in stored}
    named = [rule for rule in wanted if rule.get("ID")]
    return [str(rule["ID"]) for rule in named if found.get(str(rule["ID"])) != _meaning(rule)]


def _meaning(rule: Rule) -> tuple[object, ...]:
    conditions = (_written(rule).get("Filter") or {}).get("And") or rule.get("Filter") or {}
    tags = [*(conditions.get("Tags") or ()), *([conditions["Tag"]] if conditions.get("Tag") else ())]
    return (
        rule.get("Status"),
        prefix_of(rule),
        sorted((tag["Key"], tag["Value"]) for tag in tags),
        [(move.get("Days"), move.get("StorageClass")) for move in rule.get("Transitions") or ()],
        (rule.get("Expiration") or {}).get("Days"),
    )


def prefix_of(rule: Rule) -> str:
    """Empty where it is for the whole bucket."""
    where = rule.get("Filter") or {}
    return str((where.get("And") or {}).get("Prefix") or where.get("Prefix") or rule.get("Prefix") or "")


def _touches(rule: Rule, prefix: str) -> bool:
    other = prefix_of(rule)
    return rule.get("Status") == "Enabled" and (other.startswith(prefix) or prefix.startswith(other))


def deleting(rules: Iterable[Rule], prefix: str) -> Iterator[str]:
    """A line for each rule that deletes objects of a mount with this prefix by itself."""
    for rule in rules:
        expiration = rule.get("Expiration") or {}
        age = expiration.get("Days") or expiration.get("Date")
        if age and _touches(rule, prefix):
            when = f"after {age} days" if isinstance(age, int) else f"on {age}"
            which = rule.get("ID") or "(no name)"
            yield f"the bucket's lifecycle rule {which} deletes objects {when}, backups among them"


def freezing(rules: Iterable[Rule], prefix: str, name: str) -> Iterator[str]:
    """A line for each rule, not ours, that makes objects of a mount with this prefix unreadable."""
    for rule in rules:
        classes = {str(move.get("StorageClass")) for move in rule.get("Transitions") or ()} & set(FROZEN)
        if classes and not is_ours(rule, name) and _touches(rule, prefix):
            yield (
                f"the bucket's lifecycle rule {rule.get('ID') or '(no name)'} moves objects to "
                f"{', '.join(sorted(classes))}, where backups and their notes cannot be read"
            )


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of the backups' directory. key: without the prefix. modified: Unix seconds."""

    key: str
    modified: float
    storage_class: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """cold: may be frozen, gets the tag. warm: old enough, but stays: must not have the tag. protected_frozen: is
    protected and cannot be read all the same."""

    cold: tuple[str, ...]
    warm: tuple[str, ...]
    protected_frozen: tuple[str, ...]


def judge(objects: Iterable[Stored], policy: Policy, now: float) -> Verdict:
    """Younger objects than glacier_days are in none of the lists: their time is yet to come."""
    every = {item.key: item for item in objects}
    guests: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key in every:
        if found := _ARCHIVE.fullmatch(key):
            guests.setdefault((found["kind"], found["vmid"]), []).append((found["time"], key))
    newest = {key for backups in guests.values() for _, key in sorted(backups)[-policy.warm :]}
    cold: list[str] = []
    warm: list[str] = []
    frozen: list[str] = []
    for key, item in sorted(every.items()):
        protected = key + _MARK in every
        if item.storage_class in FROZEN:
            if protected:
                frozen.append(key)
        elif _ARCHIVE.fullmatch(key) and now - item.modified >= policy.glacier_days * DAY:
            (warm if protected or key in newest else cold).append(key)
    return Verdict(tuple(cold), tuple(warm), tuple(frozen))
