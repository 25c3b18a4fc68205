"""Cross-origin requests: the rules of a bucket, the question a browser asks first, and the headers of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import cors
from .backend import Buckets
from .call import Call
from .errors import S3Error
from .messages import Response
from .render import xml_response
from .xml import parse

_LIMIT = 64 << 10  # bytes of a configuration


async def get(call: Call) -> Response:
    bucket = await call.bucket(write=False)
    rules = bucket.settings.get("cors")
    if not rules:
        raise S3Error("NoSuchCORSConfiguration", BucketName=bucket.name)
    return xml_response("CORSConfiguration", cors.nodes(rules))


async def put(call: Call) -> Response:
    await call.owned()
    body = await call.payload.read()
    if len(body) > _LIMIT:
        raise S3Error("MaxMessageLengthExceeded")
    await call.backend.configure(call.bucket_name, {"cors": cors.parse_rules(parse(body, "CORSConfiguration"))})
    return Response(200)


async def delete(call: Call) -> Response:
    await call.owned()
    await call.backend.configure(call.bucket_name, {"cors": None})
    return Response(204)


async def preflight(place: Buckets, bucket_name: str, headers: Mapping[str, str]) -> Response:
    """Of OPTIONS, which nobody signs. Raises S3Error."""
    origin, method = headers.get("origin", ""), headers.get("access-control-request-method", "")
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in cors.METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method or None}")
    rules = (await place.bucket(bucket_name)).settings.get("cors")
    if not rules:
        raise S3Error("AccessForbidden", Method=method, ResourceType="BUCKET")
    told = cors.answer(rules, origin, method, _names(headers))
    if not told:
        message = "CORSResponse: This CORS request is not allowed by the rules of this bucket."
        raise S3Error("AccessForbidden", message, Method=method, ResourceType="OBJECT")
    return Response(200, told)


async def told(place: Buckets, bucket_name: str, method: str, headers: Mapping[str, str], answer: Response) -> Response:
    """With the headers that let a page of the request's origin see it; of errors, too."""
    try:
        rules = (await place.bucket(bucket_name)).settings.get("cors")
    except (S3Error, OSError):
        return answer
    method = headers.get("access-control-request-method", method)
    more = cors.answer(rules or (), headers["origin"], method, _names(headers))
    return replace(answer, headers=[*answer.headers, *more]) if more else answer


def _names(headers: Mapping[str, str]) -> list[str]:
    asked = headers.get("access-control-request-headers", "").split(",")
    return [name.strip().lower() for name in asked if name.strip()]
