"""What of a request goes on to the upstream, and what of its answer comes back. Pure.

Lists of what passes, not of what does not: nothing reaches the upstream that was not looked at here, as the upstream
would do it with a key that may do more than the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from ...s3.sign import query_string, quoted_key
from .. import attributes
from ..backend import Source
from ..checksums import Algorithm
from ..errors import S3Error

_REQUEST = frozenset(
    (
        *attributes.KEPT,
        *("content-md5", "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"),
        *("x-amz-tagging", "x-amz-tagging-directive", "x-amz-metadata-directive", "x-amz-storage-class"),
        *("x-amz-bypass-governance-retention", "x-amz-mp-object-size", "x-amz-object-attributes", "x-amz-max-parts"),
        *("x-amz-part-number-marker", "x-amz-bucket-object-lock-enabled", "x-amz-optional-object-attributes"),
        *("x-amz-if-match-last-modified-time", "x-amz-if-match-size"),
    )
)
_REQUEST_PREFIXES = (
    "x-amz-meta-",
    "x-amz-checksum-",
    "x-amz-copy-source-if-",
    "x-amz-copy-source-range",
    "x-amz-copy-source-server-side-encryption-",
    "x-amz-object-lock-",
    "x-amz-server-side-encryption",
)
# The upstream's to do or to refuse; all else that the directory refuses is refused here, too.
_UPSTREAMS = ("x-amz-server-side-encryption", "x-amz-copy-source-server-side-encryption", "x-amz-storage-class")
_ANSWER = frozenset(
    (*attributes.KEPT, "etag", "last-modified", "content-range", "accept-ranges", "retry-after", "content-md5")
)
_NOT_BACK = ("x-amz-request-id", "x-amz-id-2", "x-amz-bucket-region")  # the gateway has its own
# fmt: off
_QUERY = frozenset((
    "prefix", "delimiter", "marker", "max-keys", "list-type", "continuation-token", "start-after", "fetch-owner",
    "encoding-type", "key-marker", "version-id-marker", "upload-id-marker", "max-uploads", "max-parts",
    "part-number-marker", "partNumber", "versionId", "response-cache-control", "response-content-disposition",
    "response-content-encoding", "response-content-language", "response-content-type", "response-expires",
))
# fmt: on
CHUNK = 1 << 20  # bytes of data in a chunk of aws-chunked


def path_of(bucket: str, key: str) -> str:
    """Raises S3Error for a key with a segment ``..``: a server or proxy that resolved it would be in another bucket."""
    if ".." in key.split("/"):
        raise S3Error("InvalidURI", "A key with a segment .. does not go through this gateway.")
    return f"/{bucket}/{quoted_key(key)}" if key else f"/{bucket}"


def query_of(sub: str, query: Mapping[str, str]) -> str:
    """sub: what selects the operation. A second one in the query does not pass."""
    kept = {name: value for name, value in query.items() if name in _QUERY}
    if sub:
        kept[sub] = query[sub]
    return query_string(kept)


def refuse(headers: Mapping[str, str]) -> None:
    """What would give rights that the gateway does not know of. Raises S3Error."""
    attributes.refuse_unknown({name: value for name, value in headers.items() if not name.startswith(_UPSTREAMS)})
    attributes.refuse_lists(headers)


def headers_of(headers: Mapping[str, str], source: Source | None = None) -> dict[str, str]:
    """source: of a copy, as it was authorised, so that the upstream cannot read it in another way. Raises S3Error for
    text that is neither ASCII nor UTF-8, which no signature can cover."""
    kept = {name: value for name, value in headers.items() if name in _REQUEST or name.startswith(_REQUEST_PREFIXES)}
    encoding = [part.strip() for part in kept.pop("content-encoding", "").split(",")]
    if left := ",".join(part for part in encoding if part and part != "aws-chunked"):
        kept["content-encoding"] = left
    if source is not None:
        version = f"?versionId={quote(source.version, safe='')}" if source.version else ""
        kept["x-amz-copy-source"] = path_of(source.bucket, source.key) + version
    for name, value in kept.items():
        try:
            kept[name] = value.encode("latin-1").decode()
        except UnicodeError:
            raise S3Error("InvalidArgument", "A header is no UTF-8", ArgumentName=name) from None
    return kept


def answer_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in headers
        if name in _ANSWER or (name.startswith("x-amz-") and name not in _NOT_BACK)
    ]


class Framed:
    """A body as aws-chunked with its checksum in a trailer, which needs to be known only behind the last byte."""

    def __init__(self, length: int, algorithm: Algorithm) -> None:
        self._left = length
        self._in_chunk = 0
        self._algorithm = algorithm
        digest = "A" * (4 * -(-algorithm.size // 3))
        full, rest = divmod(length, CHUNK)
        self.length = full * (len(f"{CHUNK:x}") + 4 + CHUNK) + len(self.end(digest)) - 2
        self.length += (len(f"{rest:x}") + 4 + rest) if rest else 0
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes | memoryview]:
        view = memoryview(data)
        while view:
            if not self._in_chunk:
                self._in_chunk = min(CHUNK, self._left)
                yield f"{chr(13) + chr(10) if self._begun else ''}{self._in_chunk:x}\r\n".encode()
                self._begun = True
            piece = view[: self._in_chunk]
            yield piece
            self._in_chunk -= len(piece)
            self._left -= len(piece)
            view = view[len(piece) :]

    def end(self, checksum: str) -> bytes:
        """After all of the data, of which there must be some."""
        return f"\r\n0\r\n{self._algorithm.header}:{checksum}\r\n\r\n".encode()
