"""What S3 calls an operation, for the access log and the metrics. Pure, and a closed set: labels must not grow."""

from __future__ import annotations

_VERBS = {"GET": "Get", "PUT": "Put", "HEAD": "Head", "DELETE": "Delete", "POST": "Post"}
_OBJECTS = {
    ("POST", "uploads"): "CreateMultipartUpload",
    ("GET", "uploadId"): "ListParts",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("PUT", "uploadId"): "UploadPart",
}
_BUCKETS = {
    ("PUT", ""): "CreateBucket",
    ("GET", "versions"): "ListObjectVersions",
    ("GET", "uploads"): "ListMultipartUploads",
    ("POST", "delete"): "DeleteObjects",
    ("GET", "publicAccessBlock"): "GetPublicAccessBlock",
    ("DELETE", "publicAccessBlock"): "DeletePublicAccessBlock",
    ("DELETE", "lifecycle"): "DeleteBucketLifecycle",
    ("GET", "object-lock"): "GetObjectLockConfiguration",
    ("PUT", "object-lock"): "PutObjectLockConfiguration",
}
_NOUNS = {
    "lifecycle": "LifecycleConfiguration",
    "notification": "NotificationConfiguration",
    "accelerate": "AccelerateConfiguration",
}


def name_of(method: str, on_object: bool, subresource: str) -> str:
    """Of an operation that ``gateway`` has."""
    special = (_OBJECTS if on_object else _BUCKETS).get((method, subresource))
    if special is not None:
        return special
    words = subresource.replace("-", " ").split()
    noun = _NOUNS.get(subresource) or "".join(word[:1].upper() + word[1:] for word in words)
    return f"{_VERBS[method]}{'Object' if on_object else 'Bucket'}{noun}"
