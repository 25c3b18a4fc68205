"""Facts and findings as text and as JSON. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import quote, quote_plus

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
    """text without any of the secrets, however they are written in it. For what settings are shown without them anyway:
    the belt beside the braces."""
    for form in sorted({form for secret in secrets if secret for form in _forms(secret)}, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _forms(secret: str) -> set[str]:
    """As it is, in a URL, in a log that shows it quoted, in a header, and all of them in JSON."""
    plain = {secret, repr(secret)[1:-1], base64.b64encode(secret.encode(errors="replace")).decode()}
    for escaped in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        plain |= {escaped, re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), escaped)}
    return plain | {json.dumps(form)[1:-1] for form in plain}


def unit_file(text: str) -> str:
    """A unit of systemd without what it sets: people put keys there. But for the mount point, which is asked for."""
    joined = text.replace("\\\n", " ")
    return re.sub(r"(?m)^(\s*(?:Environment|SetCredential\w*)\s*=)(?!MOUNTPOINT=\S+$).+$", rf"\1{MASK}", joined)
