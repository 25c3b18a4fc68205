"""Uploads by an HTML form: its fields and file as they come, and what its policy allows. Pure.

By "Browser-based uploads using POST" of the Amazon S3 API reference. The file is the last field; what follows it is
ignored, as S3 does.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from .errors import S3Error

_FIELDS = 64 << 10  # bytes of all before the file
_BOUNDARY = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(r"^content-disposition:\s*form-data(.*)$", re.IGNORECASE | re.MULTILINE)
_PARAMETER = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_EXPIRATION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
# Fields that the policy need not allow; nor a checksum, which asks for nothing but that the file be whole.
_IGNORED = ("x-ignore-", "x-amz-checksum-")
_FREE = {"x-amz-signature", "signature", "awsaccesskeyid", "file", "policy"}


class Parser:
    """fields: lower-case names, complete once ``at_file``; the file's bytes are then what ``feed`` gives."""

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.search(content_type)
        if found is None:
            raise S3Error("MalformedPOSTRequest")
        self._delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
        self._buffer = bytearray(b"\r\n")  # the first delimiter has no line before it
        self._state = "fields"  # file, end
        self.fields: dict[str, str] = {}
        self.filename = ""

    @property
    def at_file(self) -> bool:
        return self._state != "fields"

    @property
    def ended(self) -> bool:
        return self._state == "end"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises S3Error."""
        if self._state == "end":
            return
        self._buffer += data
        while self._state == "fields" and self._field():
            pass
        if self._state == "fields" and len(self._buffer) > _FIELDS:
            raise S3Error("MaxPostPreDataLengthExceededError")
        if self._state == "file":
            end = self._buffer.find(self._delimiter)
            if end >= 0:
                piece, self._state = bytes(self._buffer[:end]), "end"
                self._buffer.clear()
            else:
                sure = max(0, len(self._buffer) - len(self._delimiter) + 1)
                piece = bytes(self._buffer[:sure])
                del self._buffer[:sure]
            if piece:
                yield piece

    def _field(self) -> bool:
        """Takes one from the buffer; False while it is not there in full."""
        begin = len(self._delimiter)
        if len(self._buffer) < begin + 2:
            return False
        if not self._buffer.startswith(self._delimiter):
            raise S3Error("MalformedPOSTRequest")
        if self._buffer[begin : begin + 2] == b"--":
            raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.", ArgumentName="file")
        head_end = self._buffer.find(b"\r\n\r\n", begin)
        if head_end < 0:
            return False
        head = self._buffer[begin:head_end].decode("utf-8", "replace")
        disposition = _DISPOSITION.search(head.replace("\r\n", "\n"))
        parameters = dict(_PARAMETER.findall(disposition[1])) if disposition else {}
        if "name" not in parameters:
            raise S3Error("MalformedPOSTRequest")
        name = parameters["name"].lower()
        if name == "file":
            self.filename = re.split(r"[/\\]", parameters.get("filename", ""))[-1]
            del self._buffer[: head_end + 4]
            # An empty file has its delimiter at once, without a line of its own.
            self._state = "file"
            return False
        end = self._buffer.find(self._delimiter, head_end + 4)
        if end < 0:
            return False
        self.fields[name] = self._buffer[head_end + 4 : end].decode("utf-8", "replace")
        del self._buffer[:end]
        if len(self.fields) > 200:
            raise S3Error("MaxPostPreDataLengthExceededError")
        return True


def policy_of(text: str) -> Mapping[str, Any]:
    """Decoded. Raises S3Error: InvalidPolicyDocument."""
    try:
        document = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise S3Error("InvalidPolicyDocument") from None
    if not isinstance(document, dict) or not isinstance(document.get("expiration"), str):
        raise S3Error("InvalidPolicyDocument", "Invalid Policy: Policy missing expiration.")
    if not isinstance(document.get("conditions"), list) or not document["conditions"]:
        raise S3Error("InvalidPolicyDocument", "Invalid Policy: Policy missing conditions.")
    return document


def check_policy(policy: Mapping[str, Any], fields: Mapping[str, str], now: float) -> tuple[int, int]:
    """fields: with ``bucket``. Returns the least and the greatest size of the file. Raises S3Error."""
    if not _EXPIRATION.fullmatch(policy["expiration"]):
        raise S3Error("InvalidPolicyDocument", "Invalid Policy: Invalid 'expiration' value.")
    try:
        expires = datetime.fromisoformat(policy["expiration"])
    except ValueError:
        raise S3Error("InvalidPolicyDocument", "Invalid Policy: Invalid 'expiration' value.") from None
    if now >= expires.timestamp():
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    least, most = 0, 5 << 30
    allowed = set(_FREE)
    for condition in policy["conditions"]:
        kind, name, value = _condition(condition)
        if kind == "content-length-range":
            least, most = max(least, int(name)), min(most, int(value))
            continue
        allowed.add(name)
        given = fields.get(name)
        holds = given is not None and (given == value if kind == "eq" else given.startswith(value))
        if not holds:
            raise S3Error(
                "AccessDenied", f"Invalid according to Policy: Policy Condition failed: {json.dumps(condition)}"
            )
    extra = {name for name in fields if name not in allowed and not name.startswith(_IGNORED)}
    if extra:
        raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {', '.join(sorted(extra))}")
    return least, most


def _condition(condition: object) -> tuple[str, str, str]:
    """(kind, name, value); of a range its two numbers. Raises S3Error."""
    wrong = S3Error("InvalidPolicyDocument", "Invalid Policy: Invalid condition.")
    if isinstance(condition, dict) and len(condition) == 1:
        [(name, value)] = condition.items()
        if not isinstance(value, str):
            raise wrong
        return "eq", name.lower(), value
    if not isinstance(condition, list) or len(condition) != 3 or not isinstance(condition[0], str):
        raise wrong
    kind = condition[0].lower()
    if kind == "content-length-range":
        numbers = [str(number) for number in condition[1:]]
        if not all(number.isascii() and number.isdigit() and len(number) < 16 for number in numbers):
            raise wrong
        return kind, numbers[0], numbers[1]
    _, name, value = condition
    if kind not in ("eq", "starts-with") or not isinstance(name, str) or not isinstance(value, str):
        raise wrong
    if not name.startswith("$"):
        raise wrong
    return kind, name[1:].lower(), value
