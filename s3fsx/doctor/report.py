"""Facts and findings as text and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from .facts import Facts, Finding, Subject

MASK = "****"


def lines(facts: Facts, findings: list[Finding]) -> Iterator[str]:
    yield ", ".join(f"{name} {version or 'missing'}" for name, version in facts.machine.versions.items())
    for subject in facts.subjects:
        yield f"{subject.label}: {', '.join(_state(subject)) or 'its settings cannot be used'}"
    if not facts.subjects:
        yield "nothing is configured and nothing is mounted"
    for finding in findings:
        where = f"{finding.where}: " if finding.where and not finding.what.startswith(finding.where) else ""
        yield f"{finding.severity:7}  {where}{finding.what}"
        if finding.fix:
            yield f"{'':7}    -> {finding.fix}"
    if not findings:
        yield "nothing is wrong"


def _state(subject: Subject) -> Iterator[str]:
    if subject.address:
        yield subject.address
    if subject.dead:
        yield f"dead on {subject.path}"
    elif subject.mounted:
        yield f"mounted on {subject.path}"
    elif subject.path:
        yield f"not mounted on {subject.path}"
    if subject.unit is not None:
        yield f"{subject.unit.name} {subject.unit.state}, {subject.unit.enabled or 'not enabled'}"
    if subject.store is not None and not subject.store.error:
        yield f"the store answers in {subject.store.seconds * 1000:.0f} ms"


def document(facts: Facts, findings: list[Finding]) -> dict[str, Any]:
    return {"findings": [asdict(finding) for finding in findings], **asdict(facts)}


def masked(text: str, secrets: Iterable[str]) -> str:
    """text without any of the secrets, also where a URL has them. For what settings are shown without them anyway: the
    belt beside the braces."""
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, MASK)
    return text
