"""What a browser asks for the page of somebody else. Pure.

Where nobody has a key (``--no-auth``) any page that is open on this machine could write to 127.0.0.1: a form or a
``fetch`` needs no leave of ours, and a name of its own that now leads to 127.0.0.1 (DNS rebinding) may even read. Both
are told by headers that a page cannot set: Host, Origin (with each POST to another site) and Sec-Fetch-Site.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from .errors import S3Error


def refuse_foreign(headers: Mapping[str, str], domains: Sequence[str]) -> None:
    """domains: names of this gateway, beside localhost and addresses. Raises S3Error: AccessDenied."""
    host = headers.get("host", "127.0.0.1").lower()  # none: HTTP/1.0, which no browser speaks
    if not _own(host, domains):
        message = "Without keys a gateway answers to addresses, localhost and the names given with --domain only."
        raise S3Error("AccessDenied", message, Host=host)
    site = headers.get("sec-fetch-site", "none")
    followed = headers.get("sec-fetch-mode") == "navigate"
    if _host_of(headers.get("origin", f"http://{host}")) != host or (
        site not in ("none", "same-origin") and not followed
    ):
        raise S3Error("AccessDenied", "Without keys a gateway does not answer to pages of other sites.")


def _own(host: str, domains: Sequence[str]) -> bool:
    name, colon, port = host.rpartition(":")
    name = name if colon and port.isdigit() else host
    if any(name == domain or name.endswith(f".{domain}") for domain in ("localhost", *domains)):
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
