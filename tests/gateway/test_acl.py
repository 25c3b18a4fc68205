"""Access control lists: what they grant while they are switched on, and that they grant nothing else."""

from __future__ import annotations

import functools
import itertools
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.errors import ConfigError
from s3fsx.gateway import acl
from s3fsx.gateway.accounts import Accounts, User, checked
from s3fsx.gateway.errors import S3Error
from s3fsx.gateway.model import Bucket, Object
from s3fsx.gateway.serving import Settings, check
from s3fsx.gateway.xml import document, parse
from tests.gateway.test_api import code
from tests.gatewayserver import ACCOUNTS, Running, running_gateway

_numbers = itertools.count()
DENIED = ("AccessDenied", 403)
USERS = Accounts(
    {**ACCOUNTS.users, "owner": User("owner"), "reader": User("reader", read_only=True)},
    {**ACCOUNTS.keys, "ownerkey": ("owner", "ownersecret"), "readerkey": ("reader", "readersecret")},
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_gateway(tmp_path_factory.mktemp("acl") / "buckets", ["--acl"], USERS) as found:
        yield found


@pytest.fixture(scope="module")
def owner(running: Running) -> Iterator[Any]:
    client = running.server.new_client("ownerkey", "ownersecret")
    yield client
    client.close()


@pytest.fixture(scope="module")
def other(running: Running) -> Iterator[Any]:
    client = running.server.new_client(running.server.alt_access_key, running.server.alt_secret_key)
    yield client
    client.close()


@pytest.fixture
def bucket(owner: Any) -> str:
    name = f"acl-{next(_numbers)}"
    owner.create_bucket(Bucket=name)
    return name


def unsigned(running: Running, path: str, method: str = "GET", data: bytes | None = None) -> tuple[int, str]:
    """(status, code) for whoever has no key."""
    request = urllib.request.Request(f"{running.server.endpoint}/{path}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().partition("<Code>")[2].partition("</Code>")[0]


def to(name: str, permission: str) -> dict[str, Any]:
    return {"Grantee": {"Type": "CanonicalUser", "ID": name}, "Permission": permission}


def policy(*grants: dict[str, Any], owned_by: str = "owner") -> dict[str, Any]:
    return {"Owner": {"ID": owned_by}, "Grants": list(grants)}


def told(answer: Any) -> list[tuple[str, str]]:
    return [
        (grant["Grantee"].get("ID") or grant["Grantee"]["URI"].rpartition("/")[2], grant["Permission"])
        for grant in answer["Grants"]
    ]


@pytest.mark.parametrize("permission", ["FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP"])
def test_a_grant_of_a_bucket(owner: Any, other: Any, bucket: str, permission: str) -> None:
    owner.put_object(Bucket=bucket, Key="x", Body=b"1")
    assert code(lambda: other.list_objects(Bucket=bucket)) == DENIED
    owner.put_bucket_acl(
        Bucket=bucket, AccessControlPolicy=policy(to("owner", "FULL_CONTROL"), to("other", permission))
    )
    assert told(owner.get_bucket_acl(Bucket=bucket)) == [("owner", "FULL_CONTROL"), ("other", permission)]
    for needed, does in {
        "READ": functools.partial(other.list_objects_v2, Bucket=bucket),
        "WRITE": functools.partial(other.put_object, Bucket=bucket, Key="y", Body=b"2"),
        "READ_ACP": functools.partial(other.get_bucket_acl, Bucket=bucket),
        "WRITE_ACP": functools.partial(other.put_bucket_acl, Bucket=bucket, ACL="private"),
    }.items():
        if permission in (needed, "FULL_CONTROL"):
            does()
        else:
            assert code(does) == DENIED
    # None of them is a right to configure the bucket, to what others have written, or to delete it.
    for does in (
        functools.partial(other.get_object, Bucket=bucket, Key="x"),
        functools.partial(other.get_object_tagging, Bucket=bucket, Key="x"),
        functools.partial(other.get_bucket_lifecycle_configuration, Bucket=bucket),
        functools.partial(other.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}),
        functools.partial(other.delete_bucket_cors, Bucket=bucket),
        functools.partial(other.delete_bucket, Bucket=bucket),
    ):
        assert code(does) == DENIED


def test_a_public_object(running: Running, owner: Any, bucket: str) -> None:
    owner.put_object(Bucket=bucket, Key="open", Body=b"1", ACL="public-read")
    owner.put_object(Bucket=bucket, Key="shut", Body=b"1")
    assert unsigned(running, f"{bucket}/open") == (200, "")
    assert unsigned(running, f"{bucket}/shut") == (403, "AccessDenied")
    assert unsigned(running, f"{bucket}/none") == (403, "AccessDenied")  # nor is it told what there is not
    assert unsigned(running, f"{bucket}/open?acl") == (403, "AccessDenied")
    assert unsigned(running, f"{bucket}/open?tagging") == (403, "AccessDenied")
    assert unsigned(running, f"{bucket}/open", "DELETE") == (403, "AccessDenied")
    assert unsigned(running, bucket) == (403, "AccessDenied")
    assert unsigned(running, "") == (403, "AccessDenied")
    assert unsigned(running, "acl-anybody", "PUT") == (403, "AccessDenied")
    owner.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert unsigned(running, bucket) == (200, "")
    assert unsigned(running, f"{bucket}/none") == (404, "NoSuchKey")
    assert unsigned(running, f"{bucket}/shut") == (403, "AccessDenied")
    assert owner.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    owner.put_object_acl(Bucket=bucket, Key="open", ACL="private")
    assert unsigned(running, f"{bucket}/open") == (403, "AccessDenied")


def test_a_bucket_for_all_to_write(running: Running, owner: Any, other: Any, bucket: str) -> None:
    owner.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = owner.put_object(Bucket=bucket, Key="x", Body=b"1")["VersionId"]
    owner.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert unsigned(running, f"{bucket}/y", "PUT", b"2") == (200, "")
    assert unsigned(running, f"{bucket}/y") == (403, "AccessDenied")  # who wrote it is not known
    assert owner.get_object(Bucket=bucket, Key="y")["Body"].read() == b"2"  # it is in the owner's bucket
    # Versions, retention and uploads of others stay beyond reach.
    assert code(lambda: other.delete_object(Bucket=bucket, Key="x", VersionId=version)) == DENIED
    gone = other.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "x", "VersionId": version}]})
    assert [error["Code"] for error in gone["Errors"]] == ["AccessDenied"]
    assert unsigned(running, f"{bucket}/z?uploads", "POST", b"") == (403, "AccessDenied")
    upload = {"Bucket": bucket, "Key": "z"}
    upload["UploadId"] = owner.create_multipart_upload(**upload)["UploadId"]
    assert code(lambda: other.upload_part(**upload, PartNumber=1, Body=b"1")) == DENIED
    assert code(lambda: other.abort_multipart_upload(**upload)) == DENIED
    other.put_object(Bucket=bucket, Key="mine", Body=b"3")
    assert other.get_object(Bucket=bucket, Key="mine")["Body"].read() == b"3"
    assert told(other.get_object_acl(Bucket=bucket, Key="mine")) == [("other", "FULL_CONTROL")]


def test_the_bypass_is_no_matter_of_lists(running: Running, owner: Any, other: Any) -> None:
    owner.create_bucket(Bucket="acl-locked", ObjectLockEnabledForBucket=True, ACL="public-read-write")
    until = "2099-01-01T00:00:00Z"
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    assert code(lambda: other.put_object(Bucket="acl-locked", Key="x", Body=b"", **lock)) == DENIED
    version = owner.put_object(Bucket="acl-locked", Key="x", Body=b"", **lock)["VersionId"]
    delete = functools.partial(other.delete_object, Bucket="acl-locked", Key="x", BypassGovernanceRetention=True)
    assert code(functools.partial(delete, VersionId=version)) == DENIED


def test_a_list_of_an_object(owner: Any, other: Any, bucket: str) -> None:
    owner.put_object(Bucket=bucket, Key="x", Body=b"1", Tagging="a=b", GrantRead='id="other"')
    assert told(owner.get_object_acl(Bucket=bucket, Key="x")) == [("other", "READ")]
    assert other.get_object(Bucket=bucket, Key="x")["Body"].read() == b"1"
    assert code(lambda: other.get_object_acl(Bucket=bucket, Key="x")) == DENIED
    assert code(lambda: other.put_object_acl(Bucket=bucket, Key="x", ACL="public-read")) == DENIED
    other.create_bucket(Bucket="acl-of-other")
    source = {"Bucket": bucket, "Key": "x"}
    assert code(lambda: other.copy_object(Bucket="acl-of-other", Key="y", CopySource=source)) == DENIED  # its tags
    other.copy_object(Bucket="acl-of-other", Key="y", CopySource=source, TaggingDirective="REPLACE")
    before = owner.head_object(Bucket=bucket, Key="x")["LastModified"]
    owner.put_object_acl(Bucket=bucket, Key="x", AccessControlPolicy=policy(to("other", "WRITE_ACP")))
    assert code(lambda: other.get_object(Bucket=bucket, Key="x")) == DENIED
    assert code(lambda: other.copy_object(Bucket="acl-of-other", Key="y", CopySource=source)) == DENIED
    other.put_object_acl(Bucket=bucket, Key="x", ACL="authenticated-read")
    assert other.get_object(Bucket=bucket, Key="x")["ETag"]
    assert told(owner.get_object_acl(Bucket=bucket, Key="x")) == [
        ("owner", "FULL_CONTROL"),
        ("AuthenticatedUsers", "READ"),
    ]
    assert owner.head_object(Bucket=bucket, Key="x")["LastModified"] == before


def test_who_may_only_read_is_granted_no_more(running: Running, owner: Any, bucket: str) -> None:
    grants = policy(to("owner", "FULL_CONTROL"), to("reader", "FULL_CONTROL"))
    owner.put_bucket_acl(Bucket=bucket, AccessControlPolicy=grants)
    reader = running.server.new_client("readerkey", "readersecret")
    try:
        reader.list_objects(Bucket=bucket)
        assert code(lambda: reader.put_object(Bucket=bucket, Key="x", Body=b"1")) == DENIED
        assert code(lambda: reader.put_bucket_acl(Bucket=bucket, ACL="public-read")) == DENIED
    finally:
        reader.close()


def test_what_is_wrong_with_a_list(owner: Any, bucket: str) -> None:
    put = functools.partial(owner.put_bucket_acl, Bucket=bucket)
    assert code(lambda: put(AccessControlPolicy=policy(to("nobody-there", "READ")))) == ("InvalidArgument", 400)
    by_mail = {"Grantee": {"Type": "AmazonCustomerByEmail", "EmailAddress": "a@b"}, "Permission": "READ"}
    assert code(lambda: put(AccessControlPolicy=policy(by_mail))) == ("UnresolvableGrantByEmailAddress", 400)
    to_logs = {
        "Grantee": {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/s3/LogDelivery"},
        "Permission": "READ",
    }
    assert code(lambda: put(AccessControlPolicy=policy(to_logs))) == ("InvalidArgument", 400)
    assert code(lambda: put(AccessControlPolicy=policy(owned_by="other"))) == DENIED
    assert code(lambda: put(ACL="private", GrantRead="id=other")) == ("InvalidRequest", 400)
    assert code(lambda: put(GrantRead="other")) == ("InvalidArgument", 400)
    assert code(lambda: put(ACL="log-delivery-write")) == ("NotImplemented", 501)
    put(AccessControlPolicy=policy())
    assert told(owner.get_bucket_acl(Bucket=bucket)) == []
    owner.put_object(Bucket=bucket, Key="x", Body=b"1")  # it stays the owner's


def test_a_block_of_public_access(running: Running, owner: Any, bucket: str) -> None:
    def block(**values: bool) -> None:
        owner.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=values)

    get = functools.partial(owner.get_public_access_block, Bucket=bucket)
    assert code(get) == ("NoSuchPublicAccessBlockConfiguration", 404)
    owner.put_object(Bucket=bucket, Key="x", Body=b"1", ACL="public-read")
    block(BlockPublicAcls=True)
    assert get()["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": False,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": False,
    }
    assert code(lambda: owner.put_bucket_acl(Bucket=bucket, ACL="authenticated-read")) == DENIED
    assert code(lambda: owner.put_object(Bucket=bucket, Key="y", Body=b"", ACL="public-read")) == DENIED
    assert unsigned(running, f"{bucket}/x") == (200, "")
    block(IgnorePublicAcls=True)
    assert unsigned(running, f"{bucket}/x") == (403, "AccessDenied")
    owner.delete_public_access_block(Bucket=bucket)
    assert unsigned(running, f"{bucket}/x") == (200, "")


def test_the_owner_of_a_bucket_owns_all(running: Running, owner: Any, other: Any, bucket: str) -> None:
    def rule(value: str) -> None:
        owner.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": value}]})

    get = functools.partial(owner.get_bucket_ownership_controls, Bucket=bucket)
    assert code(get) == ("OwnershipControlsNotFoundError", 404)
    owner.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert code(lambda: rule("BucketOwnerEnforced")) == ("InvalidBucketAclWithObjectOwnership", 400)
    rule("BucketOwnerPreferred")
    other.put_object(Bucket=bucket, Key="a", Body=b"", ACL="bucket-owner-full-control")
    other.put_object(Bucket=bucket, Key="b", Body=b"")
    assert [owner.get_object_acl(Bucket=bucket, Key=key)["Owner"]["ID"] for key in "ab"] == ["owner", "other"]
    owner.put_object(Bucket=bucket, Key="c", Body=b"", ACL="public-read")
    owner.put_bucket_acl(Bucket=bucket, ACL="private")
    rule("BucketOwnerEnforced")
    assert get()["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert unsigned(running, f"{bucket}/c") == (403, "AccessDenied")
    unsupported = ("AccessControlListNotSupported", 400)
    assert code(lambda: owner.put_object(Bucket=bucket, Key="d", Body=b"", ACL="public-read")) == unsupported
    assert code(lambda: owner.put_bucket_acl(Bucket=bucket, ACL="private")) == unsupported
    assert code(lambda: owner.put_object_acl(Bucket=bucket, Key="c", ACL="private")) == unsupported
    owner.delete_bucket_ownership_controls(Bucket=bucket)


def test_lists_mean_nothing_while_they_are_off(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "buckets", ["--acl"], USERS) as running:
        c = running.server.client
        c.create_bucket(Bucket="acl-off", ACL="public-read-write")
        c.put_object(Bucket="acl-off", Key="x", Body=b"1", ACL="public-read")
        assert unsigned(running, "acl-off/x") == (200, "")
    with running_gateway(tmp_path / "buckets", (), USERS) as running:
        assert unsigned(running, "acl-off/x") == (403, "AccessDenied")
        assert unsigned(running, "acl-off") == (403, "AccessDenied")
        other = running.server.new_client(running.server.alt_access_key, running.server.alt_secret_key)
        try:
            for does in (other.get_object, other.head_object, other.get_object_acl, other.delete_object):
                assert code(functools.partial(does, Bucket="acl-off", Key="x"))[1] == 403
            assert code(lambda: other.put_object(Bucket="acl-off", Key="y", Body=b"")) == DENIED
            assert code(lambda: other.list_objects(Bucket="acl-off")) == DENIED
        finally:
            other.close()
        assert not running.server.client.get_bucket_policy_status(Bucket="acl-off")["PolicyStatus"]["IsPublic"]


def test_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="acl"):
        check(Settings(str(tmp_path), no_auth=True, acl=True))
    with pytest.raises(ConfigError, match="without a key"):
        checked(User(acl.ANONYMOUS))


@given(st.text("idur=\"', a@:/", max_size=30))
def test_no_nonsense_in_a_header_grants(text: str) -> None:
    try:
        grants = acl.of_headers({"x-amz-grant-read": text}, "o", "o", lambda name: name == "a")
    except S3Error as error:
        assert error.status == 400  # noqa: PT017  # it may be right, too
    else:
        assert grants is not None
        assert set(grants) <= {("a", "READ")}


def test_what_is_told_is_read_again() -> None:
    grants = (("a", "READ"), (acl.ALL, "WRITE_ACP"), ("b<&", "FULL_CONTROL"))
    tree = parse(document("AccessControlPolicy", acl.nodes("a", grants)), "AccessControlPolicy")
    assert acl.of_document(tree, "a", lambda _: True) == grants


def test_an_object_keeps_its_list() -> None:
    for grants in (None, (), (("a", "READ"),)):
        found = Object("k", 1, "e", 1, acl=grants)
        assert Object.from_json(found.to_json(), 1).acl == grants
    assert acl.of_object(Object("k", 1, "e", 1, owner="a"), Bucket("b", 0, "o")) == (("a", "FULL_CONTROL"),)
