"""docs/SECURITY.md: each action is needed for what its table says, and nothing else is allowed.

That they are enough is shown by all other tests here, whose mounts have these rights and no more. Where Ceph RGW lets
an uploader do anything with his own objects and uploads, whatever the policy says, somebody else's are used.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s3fsx.errors import AccessDenied, NotFound
from s3fsx.s3.options import S3Options
from s3fsx.s3.probe import probe
from s3fsx.s3.store import S3Store
from s3fsx.store.endpoint import Endpoint
from tests import policy
from tests.checklogs import LogWatch
from tests.mount.harness import Mount, eventually
from tests.s3server import S3Server

pytestmark = [pytest.mark.mount, pytest.mark.rgw]

PREFIX = "pve/"
OTHERS = "elsewhere/secret"
QUICK = {"list_ttl": "0.1s", "attr_ttl": "0.1s"}


@dataclass(frozen=True)
class Guest:
    """A mount with the documented rights, and a raw client with the same keys. mount.view: the owner's."""

    mount: Mount
    client: Any

    @property
    def bucket(self) -> str:
        return self.mount.bucket

    def path(self, name: str) -> Path:
        return self.mount.path / "dump" / name

    @property
    def options(self) -> S3Options:
        server = self.mount.server
        return S3Options(
            bucket=self.bucket,
            endpoint=server.endpoint,
            region=server.region,
            access_key=server.alt_access_key,
            secret_key=server.alt_secret_key,
        )

    def may(self, given: list[policy.Statement]) -> None:
        policy.put(self.mount.server, self.bucket, given)

    def denied(self, operation: str, **params: object) -> None:
        with pytest.raises(ClientError) as said:
            getattr(self.client, operation)(**{"Bucket": self.bucket, **params})
        answer = said.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403, (operation, answer)


@pytest.fixture(scope="module")
def shared(rgw: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    bucket = rgw.make_bucket("policy", object_lock=True)
    client = rgw.new_client(rgw.alt_access_key, rgw.alt_secret_key)
    home = tmp_path_factory.mktemp("policy") / "node"
    with Mount(rgw, bucket, PREFIX, home, LogWatch(), QUICK) as mount:
        rgw.client.put_object(Bucket=bucket, Key=OTHERS, Body=b"secret")
        yield Guest(mount, client)
    client.close()


@pytest.fixture
def guest(shared: Guest, log_watch: LogWatch) -> Iterator[Guest]:
    log_watch.follow(shared.mount.log_file)
    yield shared
    shared.may(all_statements(shared.bucket))


def all_statements(bucket: str) -> list[policy.Statement]:
    return [s for name in ("read-write", "object-lock") for s in policy.statements(name, bucket, PREFIX)]


def lists(guest: Guest, name: str) -> None:
    """Of a directory that was not listed before, so that no listing in memory can answer."""
    assert os.listdir(guest.mount.path / "snippets") == []


def reads(guest: Guest, name: str) -> None:
    assert guest.path(name).read_bytes() == b"backup"


def writes(guest: Guest, name: str) -> None:
    guest.path(f"new-{name}").write_bytes(b"x")
    assert guest.mount.view.body(f"dump/new-{name}") == b"x"


def deletes(guest: Guest, name: str) -> None:
    guest.path(name).unlink()
    assert guest.mount.view.keys(f"dump/{name}") == []


def protects(guest: Guest, name: str) -> None:
    guest.path(f"{name}.protected").touch()
    guest.path(f"{name}.protected").unlink()


NEEDED: dict[str, Callable[[Guest, str], None]] = {
    "s3:ListBucket": lists,
    "s3:GetObject": reads,
    "s3:PutObject": writes,
    "s3:DeleteObject": deletes,
    "s3:GetObjectLegalHold": deletes,
    "s3:GetObjectRetention": deletes,
    "s3:PutObjectLegalHold": protects,
}


@pytest.mark.expect_log(": 403", optional=True)
@pytest.mark.parametrize("action", NEEDED)
def test_needed(guest: Guest, action: str) -> None:
    """It fails without, with EACCES and without an effect, and works with it, without a remount."""
    name = f"owners-{action[3:]}"
    guest.mount.view.put(f"dump/{name}", b"backup")
    eventually(guest.path(name).exists, "the mount sees it")
    guest.may(policy.without(action, all_statements(guest.bucket)))
    with pytest.raises(OSError, match=rf"Errno {errno.EACCES}"):
        NEEDED[action](guest, name)
    assert guest.mount.view.keys(f"dump/{name}") == [f"dump/{name}"]
    assert guest.mount.view.keys(f"dump/new-{name}") == []
    guest.may(all_statements(guest.bucket))
    NEEDED[action](guest, name)


@pytest.mark.expect_log("could not abort the upload now")
def test_aborting_is_needed(guest: Guest) -> None:
    """Without, the parts of a backup that was given up stay."""
    guest.may(policy.without("s3:AbortMultipartUpload", all_statements(guest.bucket)))
    archive = guest.path("vzdump-qemu-1-2026_11_20-13_15_26.vma.dat")
    with archive.open("wb") as file:
        file.write(b"\x28\xb5\x2f\xfd" + bytes(9 << 20))
        file.flush()
        eventually(lambda: guest.mount.view.uploads() != [], "an upload has begun")
        archive.unlink()
    assert guest.mount.view.uploads() != []
    guest.may(all_statements(guest.bucket))
    upload = guest.mount.server.client.list_multipart_uploads(Bucket=guest.bucket)["Uploads"][0]
    guest.client.abort_multipart_upload(Bucket=guest.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    assert guest.mount.view.uploads() == []


def test_listing_uploads_and_parts_is_needed(guest: Guest) -> None:
    """RGW shows its maker the parts of an upload in any case, so it is the owner's here."""
    owner, key = guest.mount.server.client, f"{PREFIX}dump/upload"
    upload = {"Key": key, "UploadId": owner.create_multipart_upload(Bucket=guest.bucket, Key=key)["UploadId"]}
    try:
        guest.client.list_parts(Bucket=guest.bucket, **upload)
        guest.client.list_multipart_uploads(Bucket=guest.bucket, Prefix=key)
        guest.may(policy.without("s3:ListMultipartUploadParts", all_statements(guest.bucket)))
        guest.denied("list_parts", **upload)
        guest.may(policy.without("s3:ListBucketMultipartUploads", all_statements(guest.bucket)))
        guest.denied("list_multipart_uploads", Prefix=key)
    finally:
        owner.abort_multipart_upload(Bucket=guest.bucket, **upload)


async def test_asking_for_the_lock_is_needed(guest: Guest) -> None:
    """Without, a line says so, and the mount works."""
    async with S3Store(guest.options, Endpoint()) as store:
        assert (await probe(store, PREFIX, multipart=False)).object_lock
        guest.may(policy.without("s3:GetBucketObjectLockConfiguration", all_statements(guest.bucket)))
        found = await probe(store, PREFIX, multipart=False)
        assert not found.object_lock
        assert "s3:GetBucketObjectLockConfiguration" in found.notes[0]


def test_every_action_is_tried_and_explained() -> None:
    documented = set(policy.actions("read-write") + policy.actions("object-lock"))
    listing = {"s3:ListMultipartUploadParts", "s3:ListBucketMultipartUploads"}
    tried = {*NEEDED, *listing, "s3:AbortMultipartUpload", "s3:GetBucketObjectLockConfiguration"}
    assert documented == tried
    rows = re.findall(r"^\| `(s3:\w+)` \|", policy.DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(documented)
    assert set(policy.actions("read-only")) < set(policy.actions("read-write"))


def test_nothing_else_is_allowed(guest: Guest) -> None:
    owner = guest.mount.server.client
    other = guest.mount.server.make_bucket("other")
    guest.mount.view.put("dump/owners", b"backup")
    own = f"{PREFIX}dump/owners"
    version = owner.head_object(Bucket=guest.bucket, Key=own)["VersionId"]
    # Elsewhere in the bucket.
    guest.denied("list_objects_v2")
    guest.denied("list_objects_v2", Prefix="elsewhere/")
    guest.denied("list_object_versions", Prefix=PREFIX)
    guest.denied("get_object", Key=OTHERS)
    guest.denied("head_object", Key=OTHERS)
    guest.denied("put_object", Key="elsewhere/mine", Body=b"")
    guest.denied("delete_object", Key=OTHERS)
    guest.denied("create_multipart_upload", Key="elsewhere/mine")
    guest.denied("copy_object", Key=f"{PREFIX}copy", CopySource={"Bucket": guest.bucket, "Key": OTHERS})
    guest.denied("get_object_legal_hold", Key=OTHERS)
    guest.denied("put_object_legal_hold", Key=OTHERS, LegalHold={"Status": "ON"})
    # What destroys for good, or changes the rules.
    guest.denied("delete_object", Key=own, VersionId=version)
    guest.denied("get_object", Key=own, VersionId=version)
    guest.denied("put_object_retention", Key=own, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": 4e9})
    guest.denied("put_object_acl", Key=own, ACL="public-read")
    guest.denied("get_bucket_policy")
    guest.denied("put_bucket_policy", Policy=json.dumps({"Version": "2012-10-17", "Statement": []}))
    guest.denied("delete_bucket_policy")
    guest.denied("put_bucket_acl", ACL="public-read")
    guest.denied("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})
    guest.denied("put_object_lock_configuration", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    guest.denied("delete_bucket_lifecycle")
    guest.denied("delete_bucket")
    # Another bucket of the same owner.
    guest.denied("list_objects_v2", Bucket=other)
    guest.denied("put_object", Bucket=other, Key="x", Body=b"")
    guest.denied("delete_bucket", Bucket=other)
    assert owner.get_object(Bucket=guest.bucket, Key=OTHERS)["Body"].read() == b"secret"


def test_reading_only(guest: Guest) -> None:
    guest.may(policy.statements("read-only", guest.bucket, PREFIX))
    guest.mount.view.put("dump/owners", b"backup")
    own = f"{PREFIX}dump/owners"
    assert guest.client.get_object(Bucket=guest.bucket, Key=own)["Body"].read() == b"backup"
    assert guest.client.list_objects_v2(Bucket=guest.bucket, Prefix=PREFIX)["KeyCount"] > 0
    guest.denied("put_object", Key=own, Body=b"")
    guest.denied("delete_object", Key=own)
    guest.denied("create_multipart_upload", Key=own)
    guest.denied("put_object_legal_hold", Key=own, LegalHold={"Status": "ON"})
    guest.denied("list_objects_v2")
    guest.denied("get_object", Key=OTHERS)


def test_a_condition_that_an_absent_prefix_fulfils_shows_the_whole_bucket(guest: Guest) -> None:
    """Why the manual warns of StringLikeIfExists."""
    guest.denied("list_objects_v2")
    loose = json.loads(json.dumps(all_statements(guest.bucket)).replace('"StringLike"', '"StringLikeIfExists"'))
    guest.may(loose)
    keys = [entry["Key"] for entry in guest.client.list_objects_v2(Bucket=guest.bucket)["Contents"]]
    assert OTHERS in keys


def test_uploads_cannot_be_listed_under_a_condition(guest: Guest) -> None:
    """A quirk of Ceph RGW 16 the manual tells of; when this fails, the policy can be tightened."""
    condition = {"StringLike": {"s3:prefix": [f"{PREFIX}*"]}}
    guest.may([{**statement, "Condition": condition} for statement in all_statements(guest.bucket)[:2]])
    guest.denied("list_multipart_uploads", Prefix=PREFIX)


def test_the_pattern_for_everything_does_not_match_the_empty_prefix(guest: Guest) -> None:
    """Why the manual leaves the condition out for a mount without a prefix; another quirk of Ceph RGW 16."""
    everything = {"StringLike": {"s3:prefix": ["*"]}}
    resource = [f"arn:aws:s3:::{guest.bucket}"]
    guest.may([{"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": resource, "Condition": everything}])
    guest.client.list_objects_v2(Bucket=guest.bucket, Prefix=PREFIX)
    guest.denied("list_objects_v2", Prefix="")


async def test_what_is_missing_is_not_forbidden(guest: Guest) -> None:
    """To keys that may not list the whole bucket RGW says 403 of it; the list below the prefix knows."""
    missing = f"{PREFIX}dump/missing"
    guest.denied("head_object", Key=missing)
    with pytest.raises(FileNotFoundError):
        guest.path("missing.protected").touch()
    async with S3Store(guest.options, Endpoint()) as store:
        asked: list[Callable[[str], Awaitable[object]]] = [
            store.head,
            store.legal_hold,
            store.retained_until,
            lambda key: store.get_range(key, 0, 1, etag=""),
            lambda key: store.set_legal_hold(key, True),
        ]
        for ask in asked:
            with pytest.raises(NotFound):
                await ask(missing)
            with pytest.raises(AccessDenied):
                await ask(OTHERS)
