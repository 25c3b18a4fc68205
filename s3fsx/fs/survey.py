"""What ``s3fsx recover`` says about the unfinished uploads in a bucket: whose they are, and what may be done. Pure.

The law: several nodes share a bucket, and an upload is somebody's work until the opposite is known. It is touched only
through the journal that names it, this machine's or the copy of a node that is gone for good, or, where no journal
names it, by its age.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..local.nodecopy import CopiedUpload, NodeCopy, difference
from ..local.records import UploadRecord
from ..store.objects import UploadedPart

GIB = 1 << 30
ABORT, PUBLISH, KEEP = "abort", "publish", "keep"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A multipart upload as the store tells it. initiated: Unix seconds."""

    key: str
    upload_id: str
    initiated: float
    parts: tuple[UploadedPart, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """Everything the judgement rests on. node: this machine's id, "" without a journal. older_than: seconds, None for
    no limit given. price: USD per GiB and month."""

    node: str
    records: tuple[UploadRecord, ...]
    copies: tuple[NodeCopy, ...]
    now: float
    older_than: float | None
    price: float


@dataclass(frozen=True, slots=True)
class Finding:
    """owner: "this node", "node" (then node and host say which) or "nobody". age: seconds. monthly: USD. action: what
    ``--apply``, with the flag that ``why`` names, does with it."""

    key: str
    upload_id: str
    owner: str
    node: str
    host: str
    state: str
    path: str
    age: float
    parts: int
    size: int
    monthly: float
    action: str
    why: str


def judge(upload: Unfinished, known: Known) -> Finding:
    owner, node, host, state, path, action, why = _judge(upload, known)
    size = sum(part.size for part in upload.parts)
    age = max(0.0, known.now - upload.initiated)
    monthly = size / GIB * known.price
    return Finding(
        upload.key, upload.upload_id, owner, node, host, state, path, age, len(upload.parts), size, monthly, action, why
    )


def _judge(upload: Unfinished, known: Known) -> tuple[str, str, str, str, str, str, str]:
    for record in known.records:
        if (record.key, record.upload_id) == (upload.key, upload.upload_id):
            action, why = _of_this_node(record.state)
            return "this node", known.node, "", record.state, record.path, action, why
    for copy in known.copies:
        for copied in copy.uploads:
            if (copied.key, copied.upload_id) == (upload.key, upload.upload_id):
                if copy.node == known.node:
                    why = "named by the copy of this machine's journal only: its mount has just dealt with it"
                    return "this node", known.node, copy.host, copied.state, copied.path, KEEP, why
                action, why = _of_another(copied, copy, upload.parts)
                return "node", copy.node, copy.host, copied.state, copied.path, action, why
    if any(record.key == upload.key and not record.upload_id for record in known.records):
        why = "perhaps the one whose id this machine never learnt: the next mount, or --apply, looks"
        return "this node", known.node, "", "opening", "", KEEP, why
    action, why = _of_nobody(known.now - upload.initiated, known.older_than)
    return "nobody", "", "", "", "", action, why


def _of_this_node(state: str) -> tuple[str, str]:
    if state == "settled":
        return KEEP, "closed, every part is there, waits for its rename: it is there again at the next mount"
    if state == "publishing":
        return PUBLISH, "was about to become visible: the next mount, or --apply, finishes that"
    return ABORT, "nothing of it returned success: the next mount, or --apply, aborts it"


def _of_another(copied: CopiedUpload, copy: NodeCopy, parts: Sequence[UploadedPart]) -> tuple[str, str]:
    flags = f"if {copy.host} is gone for good: --node {copy.node} --apply"
    if copied.state not in ("settled", "publishing"):
        return ABORT, f"nothing of it returned success; {flags}"
    if wrong := difference(copied, parts):
        return KEEP, f"its parts are not what the node wrote ({wrong})"
    return PUBLISH, f"every part is there, as the node wrote it; becomes {copied.path}; {flags}"


def _of_nobody(age: float, older_than: float | None) -> tuple[str, str]:
    if older_than is not None and age > older_than:
        return ABORT, "no journal names it, and it is older than --older-than"
    return KEEP, "no journal names it: another program's, or a node's that left no copy; see --older-than"


def choose(copies: Sequence[NodeCopy], node: str, this_node: str) -> NodeCopy:
    """The copy that ``--node`` means: the id, the first 6 digits of it or more, or the host. Raises ConfigError."""
    found = [c for c in copies if c.host == node or (len(node) >= 6 and c.node.startswith(node))]
    if not found:
        raise ConfigError(f"--node {node}: no journal copy of that node in the bucket")
    if len(found) > 1:
        raise ConfigError(f"--node {node}: {len(found)} nodes match; use the id: {', '.join(c.node for c in found)}")
    if found[0].node == this_node:
        raise ConfigError(f"--node {node}: that is this machine; --apply without --node deals with its journal")
    return found[0]


def prefixes_above(prefix: str, keys: Sequence[str]) -> list[str]:
    """Every prefix a mount can have that works on one of these keys: where the journal copies of all nodes may be."""
    found = {prefix}
    for key in keys:
        names = key.split("/")[:-1]
        found |= {"".join(f"{name}/" for name in names[:n]) for n in range(len(names) + 1)}
    return sorted(found)


# -- for people


def lines(document: Mapping[str, object], findings: Sequence[Finding], copies: Sequence[NodeCopy]) -> Iterator[str]:
    """document: what stands above the uploads, by label."""
    for label, value in document.items():
        yield f"{label:14} {value}"
    for copy in copies:
        yield f"{'journal copy':14} node {copy.node} ({copy.host}), {_count(len(copy.uploads), 'unfinished upload')}"
    parts, size = sum(f.parts for f in findings), sum(f.size for f in findings)
    monthly = sum(f.monthly for f in findings)
    yield (
        f"{'in the bucket':14} {_count(len(findings), 'unfinished upload')}, {_count(parts, 'part')}, {human(size)}, "
        f"{monthly:.2f} USD a month"
    )
    for finding in findings:
        whose = finding.owner if finding.owner != "node" else f"node {finding.node} ({finding.host})"
        state = f", {finding.state}" if finding.state else ""
        path = f", file {finding.path}" if finding.path else ""
        yield f"  {finding.key}"
        yield (
            f"    {whose}{state}{path}; {_age(finding.age)} old, {_count(finding.parts, 'part')}, "
            f"{human(finding.size)}, {finding.monthly:.2f} USD a month"
        )
        yield f"    {finding.action}: {finding.why}"


def human(size: int) -> str:
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{size} B"


def _age(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
