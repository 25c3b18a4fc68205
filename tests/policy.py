"""The least-privilege policies of docs/SECURITY.md, as bucket policies for the alternative user of the test server.

The file is the only place where they are written down: what admins copy is what the tests run with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.gatewayserver import allow
from tests.s3server import S3Server

DOCUMENT = Path(__file__).parents[1] / "docs" / "SECURITY.md"
USER = "arn:aws:iam:::user/other"  # contrib/rgw.py
OWNER = "arn:aws:iam:::user/tester"

Statement = dict[str, Any]

_granted: dict[tuple[str, str], list[Statement]] = {}  # by endpoint and bucket: several prefixes may be mounted


def statements(name: str, bucket: str, prefix: str) -> list[Statement]:
    """Of the block below <!-- NAME -->: "read-write", "read-only" or "object-lock" (which is a list of statements).
    Without a prefix there is no condition, as the document says."""
    blocks = re.findall(rf"^<!-- {name} -->\n```json\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"{DOCUMENT} has {len(blocks)} blocks {name}"
    document = json.loads(blocks[0].replace("BUCKET", bucket).replace("PREFIX", prefix))
    found: list[Statement] = document if isinstance(document, list) else document["Statement"]
    return found if prefix else [{k: v for k, v in s.items() if k != "Condition"} for s in found]


def actions(name: str) -> list[str]:
    return [action for statement in statements(name, "b", "p") for action in statement["Action"]]


def without(action: str, given: Iterable[Statement]) -> list[Statement]:
    kept = [{**s, "Action": [a for a in s["Action"] if a != action]} for s in given]
    return [s for s in kept if s["Action"]]


def put(server: S3Server, bucket: str, given: Iterable[Statement]) -> None:
    """These are all the rights of the alternative user. The bucket's owner gets what an uploader's ACL would keep from
    him: tests look at what was written with his keys."""
    mine = [{**s, "Principal": {"AWS": USER}} for s in given]
    everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    owners = {"Effect": "Allow", "Principal": {"AWS": OWNER}, "Action": "s3:*", "Resource": everything}
    policy = {"Version": "2012-10-17", "Statement": [*mine, owners]}
    server.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def grant(server: S3Server, bucket: str, prefix: str, *, object_lock: bool = False) -> None:
    """What docs/SECURITY.md gives to a mount of this prefix, besides what was granted for other prefixes before. The
    gateway has rights to whole buckets; moto enforces nothing."""
    if server.name == "gateway":
        allow(server, bucket, "rw")
    if server.name != "rgw":
        return
    given = _granted.setdefault((server.endpoint, bucket), [])
    for name in ("read-write", "object-lock") if object_lock else ("read-write",):
        given += [s for s in statements(name, bucket, prefix) if s not in given]
    put(server, bucket, given)


def grant_reading(server: S3Server, bucket: str, prefix: str) -> None:
    """Only that, as docs/SECURITY.md has it."""
    if server.name == "gateway":
        allow(server, bucket, "ro")
    else:
        put(server, bucket, statements("read-only", bucket, prefix))


def revoke(server: S3Server, bucket: str) -> None:
    if server.name == "gateway":
        allow(server, bucket, "")
    else:
        server.client.delete_bucket_policy(Bucket=bucket)
