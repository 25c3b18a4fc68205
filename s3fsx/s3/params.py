"""Parameters of S3 requests, as botocore wants them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import Rejected, TooLarge
from ..store.objects import MAX_PARTS, UploadedPart
from .body import crc32_header
from .options import S3Options

Params = dict[str, Any]


class ParamMaker:
    """Knows the bucket and what every new object of this mount gets (storage class, encryption)."""

    def __init__(self, options: S3Options) -> None:
        self._bucket = options.bucket
        given = {
            "StorageClass": options.storage_class,
            "ServerSideEncryption": options.sse,
            "SSEKMSKeyId": options.sse_kms_key_id if options.sse == "aws:kms" else "",
        }
        self._new = {name: value for name, value in given.items() if value}

    def bucket(self) -> Params:
        return {"Bucket": self._bucket}

    def target(self, key: str) -> Params:
        return {"Bucket": self._bucket, "Key": key}

    def batch(self, keys: Iterable[str]) -> Params:
        # Not quiet: only what the answer names has been deleted.
        return self.bucket() | {"Delete": {"Objects": [{"Key": key} for key in keys], "Quiet": False}}

    def upload(self, key: str, upload_id: str) -> Params:
        return self.target(key) | {"UploadId": upload_id}

    def part(self, key: str, upload_id: str, number: int) -> Params:
        if number > MAX_PARTS:
            raise TooLarge(f"PUT {key}: part {number} of at most {MAX_PARTS}")
        return self.upload(key, upload_id) | {"PartNumber": number}

    def source(self, key: str, etag: str) -> Params:
        source: Params = {"CopySource": {"Bucket": self._bucket, "Key": key}}
        return source | ({"CopySourceIfMatch": f'"{etag}"'} if etag else {})

    def new_object(self, metadata: Mapping[str, str] | None) -> Params:
        return self._new | ({"Metadata": dict(metadata)} if metadata else {})

    def page(self, prefix: str, delimiter: str, token: str | None, limit: int) -> Params:
        # URL encoding, because XML 1.0 cannot carry control characters. Set here and not by botocore, so that
        # the decoding is ours (answers.decoder) in every version.
        params = {"Bucket": self._bucket, "Prefix": prefix, "MaxKeys": limit, "EncodingType": "url"}
        params |= {"Delimiter": delimiter} if delimiter else {}
        return params | ({"ContinuationToken": token} if token else {})

    def uploads(self, prefix: str) -> Params:
        # Without URL encoding: Ceph RGW 16 encodes these, but its answer does not say so, as one that ignores it.
        return {"Bucket": self._bucket, "Prefix": prefix}

    def range(self, key: str, start: int, length: int, etag: str) -> Params:
        params = self.target(key) | {"Range": f"bytes={start}-{start + length - 1}"}
        return params | ({"IfMatch": f'"{etag}"'} if etag else {})

    def complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart], *, checksums: bool) -> Params:
        """checksums: the upload was created for CRC32, so Amazon wants every part's again. Raises Rejected."""
        numbers = [part.number for part in parts]
        if not parts or numbers != sorted(set(numbers)):
            raise Rejected(f"COMPLETE {key}: parts missing or out of order")  # Ceph RGW 16 would sort them itself
        entries: list[Params] = []
        for part in parts:
            entries.append({"PartNumber": part.number, "ETag": f'"{part.etag}"'})
            if checksums and part.crc32 is not None:
                entries[-1]["ChecksumCRC32"] = crc32_header(part.crc32)
        return self.upload(key, upload_id) | {"MultipartUpload": {"Parts": entries}}
