"""What a worker thread does with a client, where that is more than one method and its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import ConnectionFailed, Corrupted, NotFound, ServerFault, UploadGone
from .s3client import ANSWERED, failure
from .s3params import Params

# 404 of an object without the kind of lock asked for: Amazon's code, and Ceph's.
_NO_LOCK = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})


def complete(params: Params, upload: Params, client: Any) -> None:
    """Ceph RGW 16 answers 500 for ever when the upload is not there; so after a 500, see whether it is."""
    try:
        client.complete_multipart_upload(**params)
    except ANSWERED as error:
        said = failure("", error)
        if isinstance(said, Corrupted):  # the list of parts, not the parts
            raise ConnectionFailed(f"COMPLETE {params['Key']}: {said}") from None
        if not isinstance(said, ServerFault):
            raise
        try:
            client.list_parts(**upload, MaxParts=1)
        except ANSWERED as missing:
            if isinstance(failure("", missing), (NotFound, UploadGone)):
                raise UploadGone(f"COMPLETE {params['Key']}: the upload is gone") from None
        raise


def body(answer: Params, what: str, length: int, check: Callable[[], None]) -> bytes:
    """``length`` bytes, of an answer that ``check`` finds to be the one that was asked for."""
    stream = answer["Body"]
    try:
        check()
        data: bytes = stream.read()
    except BaseException:
        stream.close()  # ends the connection: what is left of this body may be the whole object
        raise
    if len(data) != length:
        raise ConnectionFailed(f"{what}: {len(data)} bytes came of {length}")
    return data


def legal_hold(params: Params, client: Any) -> bool:
    try:
        answer = client.get_object_legal_hold(**params)
    except ANSWERED as error:
        if _code(error) in _NO_LOCK:
            return False
        raise _hidden(params, error) from None
    return bool(answer.get("LegalHold", {}).get("Status") == "ON")


def retained_until(params: Params, client: Any) -> float:
    try:
        answer = client.get_object_retention(**params)
    except ANSWERED as error:
        if _code(error) in _NO_LOCK:
            return 0.0
        raise _hidden(params, error) from None
    until = answer.get("Retention", {}).get("RetainUntilDate")
    return 0.0 if until is None else float(until.timestamp())


def _hidden(params: Params, error: Exception) -> Exception:
    """405 is Amazon's answer where the current version is a delete marker: there is no object."""
    return NotFound(f"{params['Key']}: was deleted") if _code(error) == "MethodNotAllowed" else error


def _code(error: Exception) -> str:
    response: Params = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))
