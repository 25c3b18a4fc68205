"""Headers that ask for encryption. Pure.

Nothing is encrypted here: what is wrong is told as S3 tells it, what is right is refused, so that nobody believes in an
encryption that there is not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

from .errors import S3Error

SERVER = "x-amz-server-side-encryption"
_KEY_ID = f"{SERVER}-aws-kms-key-id"
_CUSTOMER = f"{SERVER}-customer-"
_OF_SOURCE = "x-amz-copy-source-server-side-encryption"
_METHODS = ("AES256", "aws:kms", "aws:kms:dsse")


def refuse(headers: Mapping[str, str]) -> None:
    """Raises S3Error: InvalidArgument for headers that contradict each other, else NotImplemented, if there are any."""
    server, key_id = headers.get(SERVER), headers.get(_KEY_ID)
    customer = {name.removeprefix(_CUSTOMER): value for name, value in headers.items() if name.startswith(_CUSTOMER)}
    if server is not None and customer:
        raise S3Error(
            "InvalidArgument",
            "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
            ArgumentName=SERVER,
            ArgumentValue=server,
        )
    if server is not None and server not in _METHODS:
        raise S3Error(
            "InvalidArgument",
            "The encryption method specified is not supported",
            ArgumentName=SERVER,
            ArgumentValue=server,
        )
    if key_id is not None and (server is None or not server.startswith("aws:kms")):
        raise S3Error(
            "InvalidArgument",
            f"Server Side Encryption with AWS KMS managed key requires HTTP header {SERVER} : aws:kms",
            ArgumentName=_KEY_ID,
        )
    if customer:
        _check_customer(customer)
    if (found := _named(headers)) is not None:
        raise S3Error("NotImplemented", Header=found)


def refuse_read(headers: Mapping[str, str]) -> None:
    """Of GET and HEAD. Raises S3Error: InvalidRequest."""
    if _named(headers) is not None:
        raise S3Error("InvalidRequest", "The encryption parameters are not applicable to this object.")


def _named(headers: Mapping[str, str]) -> str | None:
    return next((name for name in headers if name.startswith((SERVER, _OF_SOURCE))), None)


def _check_customer(given: Mapping[str, str]) -> None:
    """An algorithm, a key of 32 bytes and its MD5. Raises S3Error: InvalidArgument."""
    for name in ("algorithm", "key", "key-md5"):
        if name not in given:
            raise S3Error(
                "InvalidArgument",
                f"Requests specifying Server Side Encryption with Customer provided keys must provide {name}.",
                ArgumentName=f"{_CUSTOMER}{name}",
            )
    if given["algorithm"] != "AES256":
        raise S3Error("InvalidArgument", "The requested encryption algorithm is not valid.")
    try:
        key, digest = (base64.b64decode(given[name], validate=True) for name in ("key", "key-md5"))
    except (binascii.Error, ValueError):
        key, digest = b"", b""
    if len(key) != 32:
        raise S3Error("InvalidArgument", "The secret key was invalid for the specified algorithm.")
    if hashlib.md5(key, usedforsecurity=False).digest() != digest:
        raise S3Error("InvalidArgument", "The calculated MD5 hash of the key did not match the hash that was provided.")
