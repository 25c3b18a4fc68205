"""What a store can do, in words: one line for each capability, with what it means for backups. Pure.

The mount and ``s3fsx check`` both speak from here, so that they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from .objects import Capabilities

SKEW_LIMIT = 60.0  # seconds; the store refuses requests from 15 minutes on, so this leaves time to set the clock

_INTEGRITY = {
    "crc32": "the store refuses a wrong CRC-32 of a part",
    "sha256": "the store refuses a wrong SHA-256 of a part (it does not check CRC-32)",
    "etag": "the MD5 of each part is compared with its ETag (the store checks no checksum)",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """capability: its name. value: what was found. consequence: what that means, "" where nothing is missing. weaker:
    something that other stores promise is not promised here."""

    capability: str
    value: str
    consequence: str = ""
    weaker: bool = False

    def __str__(self) -> str:
        return f"{self.capability:20} {self.value}{': ' if self.consequence else ''}{self.consequence}"


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer to what no mount needs to know. value: "yes", "no", ...; "" where it is not known, and ``why``."""

    value: str
    why: str = ""


def findings(
    found: Capabilities,
    *,
    clock_skew: float | None = None,
    versions: Asked | None = None,
    tags: Asked | None = None,
) -> tuple[Finding, ...]:
    """clock_skew: seconds the store's clock is ahead of ours; None where no answer told. versions, tags: None where
    nobody asked."""
    return (
        Finding("integrity", _INTEGRITY.get(found.integrity, found.integrity)),
        _etags(found.md5_etags),
        _has(
            "create only if new",
            found.conditional_put,
            "of two nodes that create a small file at the same moment, the last one wins whole",
        ),
        _has(
            "the same for parts",
            found.conditional_complete,
            "of two nodes that create a large file at the same moment, the last one wins whole",
        ),
        _has(
            "copy by parts",
            found.part_copy,
            "appending to a large file, and renaming one of over 5 GiB to a name that was not predicted, fail",
        ),
        _has("object lock", found.object_lock, "whoever has the keys can delete a backup that Proxmox protects"),
        *_versions(versions),
        *_tags(tags),
        *_clock(clock_skew),
        *(Finding("note", note, weaker=True) for note in found.notes),
    )


def weaker(found: Capabilities) -> str:
    """One line of what the mount does not promise on this store; "" where nothing is missing."""
    return "; ".join(
        f"no {finding.capability} ({finding.consequence})"
        for finding in findings(found)
        if finding.weaker and finding.capability != "note"
    )


def _has(capability: str, value: bool, without: str) -> Finding:
    return Finding(capability, "yes" if value else "no", "" if value else without, weaker=not value)


def _etags(md5: bool | None) -> Finding:
    if md5 is None:
        return Finding("ETags are MD5s", "not tried")
    consequence = "" if md5 else "small objects that other tools wrote are read unverified"
    return Finding("ETags are MD5s", "yes" if md5 else "no", consequence)


def _versions(asked: Asked | None) -> tuple[Finding, ...]:
    if asked is None:
        return ()
    kept = "what is deleted or replaced stays as an old version, and costs, until the bucket's lifecycle ends it"
    return (Finding("versions", asked.value or "not known", asked.why or (kept if asked.value == "yes" else "")),)


def _tags(asked: Asked | None) -> tuple[Finding, ...]:
    if asked is None:
        return ()
    without = "s3fsx pve lifecycle --glacier-days, which needs them, cannot be used"
    return (Finding("tags", asked.value or "not known", asked.why or (without if asked.value == "no" else "")),)


def _clock(skew: float | None) -> tuple[Finding, ...]:
    if skew is None:
        return ()
    value = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
    if abs(skew) <= SKEW_LIMIT:
        return (Finding("the store's clock", value),)
    return (
        Finding(
            "the store's clock", value, "beyond 15 minutes it refuses everything; set the clock (NTP)", weaker=True
        ),
    )
