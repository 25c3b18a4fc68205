"""boto3 clients and their failures: the only importer of boto3 and botocore."""

from __future__ import annotations

import base64
import hashlib
import socket
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import boto3.session
import botocore.config
import botocore.exceptions
import botocore.handlers

from .. import __version__
from ..errors import S3fsxError
from ..store.endpoint import PROBE_LIMIT
from ..transfer.threads import check_cancelled
from .answers import signed
from .errors import Unproven, from_answer, from_failure, no_document, seconds_to_wait
from .lanes import METADATA_THREADS
from .lean import LeanClient
from .options import S3Options, is_aws
from .wire import Shared, Wire, limit_content, limit_time

ANSWERED = botocore.exceptions.ClientError  # the store answered, and the answer was no


def failure(what: str, error: Exception) -> S3fsxError:
    """What a client raised, as one of our errors."""
    if isinstance(error, botocore.exceptions.ClientError):
        answer: Mapping[str, Any] = error.response
        said, meta = answer.get("Error", {}), answer.get("ResponseMetadata", {})
        wait = seconds_to_wait(meta.get("HTTPHeaders", {}).get("retry-after"))
        code, message = said.get("Code") or "", said.get("Message") or ""
        if meta.get("HTTPStatusCode") == 404 and code in ("", "404"):
            if error.operation_name != "HeadObject":
                return no_document(what)
            if not signed(answer):
                return Unproven(f"{what}: 404 without a sign of S3")
        return from_answer(what, meta.get("HTTPStatusCode", 0), str(code), str(message), wait)
    cause = error.kwargs.get("error") if isinstance(error, botocore.exceptions.BotoCoreError) else None
    return from_failure(what, [kind.__name__ for kind in type(error).__mro__], str(cause or error))


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    """botocore >= 1.36 sends a CRC-32 instead, without which S3 does not do it either; older stores want this one."""
    body = params["body"]
    digest = hashlib.md5(body if isinstance(body, bytes) else body.encode(), usedforsecurity=False).digest()
    params["headers"].setdefault("Content-MD5", base64.b64encode(digest).decode())


def teach_conditions(client: Any) -> None:
    """IfNoneMatch, for a botocore before 1.35 (Debian 12 has 1.29), which refuses what its model does not know."""

    def take(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        if "IfNoneMatch" in params:
            context["s3fsx_if_none_match"] = params.pop("IfNoneMatch")

    def give(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        if "s3fsx_if_none_match" in context:
            params["headers"]["If-None-Match"] = context["s3fsx_if_none_match"]

    for operation in ("PutObject", "CompleteMultipartUpload"):
        if "IfNoneMatch" not in client.meta.service_model.operation_model(operation).input_shape.members:
            client.meta.events.register(f"provide-client-params.s3.{operation}", take)
            client.meta.events.register(f"before-call.s3.{operation}", give)


# Firewalls and load balancers forget a connection that was idle for 240 s (Azure) or 350 s (Amazon), most of them
# without a word: the next request would wait for its whole deadline, and the endpoint count as down. Linux asks after
# two hours.
_KEPT_ALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class ClientMaker:
    """Makes the clients of one store. They share a session: each further session costs 13 MiB of parsed API models; and
    the connections: a listing leaves one behind for the read that follows it."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._session: boto3.session.Session | None = None
        self._shared = Shared()

    def __call__(self, name: str) -> Any:
        """name: "metadata", "ping", "slow" (copies and completes, which the store answers late), "signed", "unsigned".

        Not for two threads at once.
        """
        options = self._options
        custom = bool(options.endpoint) and "amazonaws.com" not in options.endpoint
        style = options.addressing if options.addressing != "auto" else "path" if custom else "auto"
        read_timeout = {
            "metadata": min(options.read_timeout, options.metadata_deadline),
            "ping": min(options.read_timeout, PROBE_LIMIT),
            "slow": max(options.read_timeout, options.write_deadline),
        }.get(name, options.read_timeout)
        wanted: dict[str, Any] = {
            "signature_version": "s3v4",
            "connect_timeout": min(options.connect_timeout, options.metadata_deadline),
            "read_timeout": read_timeout,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": options.max_uploads + options.max_downloads + METADATA_THREADS,
            "s3": {"addressing_style": style, "payload_signing_enabled": name != "unsigned"},
            "user_agent_extra": f"s3fsx/{__version__}",
            "tcp_keepalive": True,
            # botocore >= 1.36 adds CRC32 trailers of its own, which several stores refuse or store as data.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "proxies": {"http": options.proxy, "https": options.proxy} if options.proxy else None,
        }
        known = botocore.config.Config.OPTION_DEFAULTS
        if self._session is None:
            self._session = boto3.session.Session(
                aws_access_key_id=options.access_key,
                aws_secret_access_key=options.secret_key,
                aws_session_token=options.session_token,
                profile_name=options.profile,
            )
        if not options.verify_tls:
            warnings.filterwarnings("ignore", "Unverified HTTPS request")  # ``launch`` says it, once
        client: Any = self._session.client(
            "s3",
            region_name=options.region,
            endpoint_url=options.endpoint or None,
            verify=(options.ca_file or True) if options.verify_tls else False,
            config=botocore.config.Config(**{key: value for key, value in wanted.items() if key in known}),
        )
        # Expect: 100-continue costs a round trip per part, and a second with stores that do not answer it.
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
        teach_conditions(client)
        redirects, longest = is_aws(options.endpoint), partial(self._longest, name)
        limit_content(client, redirects=redirects)
        limit_time(client, longest)
        client._endpoint.http_session._manager.connection_pool_kw["socket_options"].extend(_KEPT_ALIVE)
        return LeanClient(
            client,
            options.bucket,
            self._session.get_credentials,
            lambda url: Wire(client, url, longest, self._shared, check_cancelled, redirects=redirects),
            sign_payload=name != "unsigned",
        )

    def _longest(self, name: str, method: str) -> float:
        """Seconds for a whole answer: no attempt lasts longer than its operation may, so that an operation, which waits
        for its attempts, ends within twice its deadline."""
        options = self._options
        if name == "metadata":
            return options.metadata_deadline
        if name == "ping":
            return PROBE_LIMIT
        return options.read_deadline if method == "GET" else options.write_deadline
