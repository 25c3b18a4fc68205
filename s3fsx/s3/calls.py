"""What a worker thread does with a client, where that is more than one method and its answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from ..errors import ConnectionFailed, Corrupted, NotFound, ServerFault, UploadGone
from ..metrics.traffic import Traffic
from ..store.objects import ListPage, Payload
from ..transfer.threads import check_cancelled
from . import answers
from .body import Body, check_crcs, crc32_header, md5
from .client import ANSWERED, failure
from .hidden import upload_is_gone
from .params import Params

T = TypeVar("T")

# 404 of an object without the kind of lock asked for: Amazon's code, and Ceph's.
_NO_LOCK = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})
# Of a store that does not know the question.
_UNKNOWN = frozenset({"NotImplemented", "XNotImplemented", "MethodNotAllowed"})
_SMALL = 8 << 20  # bytes whose MD5, 12 ms, is not noticed beside their PUT


def call(method: str, params: Params, parse: Callable[[Params], T]) -> Callable[[Any], T]:
    """One method of the client, and what is made of its answer."""
    return lambda client: parse(getattr(client, method)(**params))


def page(
    params: Params, prefix: str, traffic: Traffic, early: Callable[[str], object] | None
) -> Callable[[Any], ListPage]:
    """early: called in the loop, where this is made."""
    told: Params = {}
    if early is not None:
        in_loop = trio.lowlevel.current_trio_token().run_sync_soon

        def tell(token: str) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                in_loop(early, token)

        told = {"early": tell}
    return call("list_objects_v2", params | told, lambda answer: answers.page(traffic.seen(answer), prefix))


def sender(
    integrity: str,
    method: str,
    what: str,
    params: Params,
    payload: Payload,
    parse: Callable[[Params], T],
    traffic: Traffic,
    *,
    md5_etag: bool = False,
    etag: Callable[[Params], str] = answers.written,
) -> Callable[[Any], T]:
    """Sends the payload and verifies it as ``Capabilities.integrity`` says. md5_etag: the ETag will be its MD5. etag:
    finds it in the answer."""
    if integrity == "crc32":
        params["ChecksumCRC32"] = crc32_header(payload.crc32)

    def work(client: Any) -> T:
        check_crcs(payload, what)
        body = Body(payload, check_cancelled)
        try:
            answer: Params = getattr(client, method)(**params, Body=body if payload.size else b"")
        finally:
            traffic.add_sent(body.tell())
        traffic.seen(answer)
        found = etag(answer)
        small = md5_etag and payload.size <= _SMALL and not answers.opaque(answer)
        if integrity == "etag" or small:
            expected = md5(payload)
            if found != expected:
                raise Corrupted(f"{what}: arrived with MD5 {found} instead of {expected}")
        return parse(answer)

    return work


def nothing(_: Params) -> None:
    return None


def complete(params: Params, upload: Params, client: Any) -> str:
    """The object's ETag. Ceph RGW 16 answers 500 for ever when the upload is not there; so after a 500, see whether it
    is."""
    try:
        return answers.completed(client.complete_multipart_upload(**params))
    except ANSWERED as error:
        said = failure("", error)
        if isinstance(said, Corrupted):  # the list of parts, not the parts
            raise ConnectionFailed(f"COMPLETE {params['Key']}: {said}") from None
        if not isinstance(said, ServerFault):
            raise
        if upload_is_gone(upload, client):
            raise UploadGone(f"COMPLETE {params['Key']}: the upload is gone") from None
        raise


def body(answer: Params, what: str, length: int, check: Callable[[], None], traffic: Traffic) -> bytes:
    """``length`` bytes, of an answer that ``check`` finds to be the one that was asked for."""
    stream = answer["Body"]
    try:
        check()
        # Without a length it might not end; with one, the check has compared it.
        data: bytes = stream.read(None if "ContentLength" in answer else length + 1)
        if len(data) != length:
            raise ConnectionFailed(f"{what}: {len(data)} bytes came of {length}")
    except BaseException:
        stream.close()  # ends the connection: what is left of this body may be the whole object
        raise
    traffic.seen(answer)
    traffic.add_received(length)
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


def has_object_lock(params: Params, client: Any) -> bool:
    try:
        return answers.has_object_lock(client.get_object_lock_configuration(**params))
    except ANSWERED as error:
        code = _code(error)
        if code in _NO_LOCK or code in _UNKNOWN or (code.startswith("NoSuch") and code != "NoSuchBucket"):
            return False
        raise


def _hidden(params: Params, error: Exception) -> Exception:
    """405 is Amazon's answer where the current version is a delete marker: there is no object."""
    return NotFound(f"{params['Key']}: was deleted") if _code(error) == "MethodNotAllowed" else error


def _code(error: Exception) -> str:
    response: Params = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))
