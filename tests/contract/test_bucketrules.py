"""Lifecycle rules and tags on real stores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from s3fsx.configuration.settings import Settings
from s3fsx.errors import ConfigError, S3fsxError
from s3fsx.pve.bucketrules import BucketRules
from s3fsx.pve.cooling import Wish, cool
from tests.s3server import S3Server

pytestmark = pytest.mark.parametrize("bucket_on", ["rgw", "moto"], indirect=True)
THEIRS = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
TAGGED = {
    "ID": "tagged",
    "Status": "Enabled",
    "Filter": {"And": {"Prefix": "logs/", "Tags": [{"Key": "old", "Value": "yes"}]}},
    "Expiration": {"Days": 9},
}
ARCHIVES = [f"vzdump-qemu-100-2026_01_0{day}-01_00_00.vma.zst" for day in range(1, 6)]


@pytest.fixture
def settings(bucket_on: S3Server) -> Settings:
    return Settings(
        bucket=bucket_on.make_bucket("rules"),
        prefix="pve/",
        endpoint=bucket_on.endpoint,
        region=bucket_on.region,
        access_key=bucket_on.access_key,
        secret_key=bucket_on.secret_key,
    )


def rules(server: S3Server, bucket: str) -> dict[str, dict[str, Any]]:
    answer = server.client.get_bucket_lifecycle_configuration(Bucket=bucket)
    return {rule["ID"]: rule for rule in answer["Rules"]}


def tags(server: S3Server, bucket: str, key: str) -> dict[str, str]:
    answer = server.client.get_object_tagging(Bucket=bucket, Key=f"pve/dump/{key}")
    return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


def put(server: S3Server, bucket: str, given: list[dict[str, Any]]) -> None:
    server.client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": given})


def test_rules_beside_those_of_others(bucket_on: S3Server, settings: Settings) -> None:
    assert BucketRules(settings).read() == ()
    put(bucket_on, settings.bucket, [THEIRS, TAGGED])
    before = rules(bucket_on, settings.bucket)
    said: list[str] = []
    cool("backup", settings, Wish(transition_days=30, glacier_days=365), said.append)
    after = rules(bucket_on, settings.bucket)
    assert set(after) == {"tidy", "tagged", "s3fsx-backup-ia", "s3fsx-backup-cold"}
    assert {name: after[name] for name in before} == before
    assert after["s3fsx-backup-cold"]["Transitions"] == [{"Days": 365, "StorageClass": "GLACIER"}]
    assert "s3fsx-cold" in str(after["s3fsx-backup-cold"]["Filter"])
    assert said[0] == "2 rules of others stay as they are"

    cool("backup", settings, Wish(glacier_days=400, dry=True), said.append)
    assert "the rules would be:" in said
    assert said[-1] == "dry run: nothing was changed"
    cool("backup", settings, Wish(remove=True, dry=True), said.append)
    assert said[-2].startswith("rules that would be taken away: s3fsx-backup-")
    assert said[-1] == "dry run: nothing was changed"
    assert rules(bucket_on, settings.bucket) == after
    cool("backup", settings, Wish(transition_days=60), said.append)
    assert set(rules(bucket_on, settings.bucket)) == {"tidy", "tagged", "s3fsx-backup-ia"}
    cool("backup", settings, Wish(remove=True), said.append)
    assert rules(bucket_on, settings.bucket) == before


def test_without_other_rules_none_is_left(bucket_on: S3Server, settings: Settings) -> None:
    said: list[str] = []
    with pytest.raises(ConfigError, match="no rules of backup in the bucket yet: --transition-days N"):
        cool("backup", settings, Wish(), said.append)
    cool("backup", settings, Wish(transition_days=30), said.append)
    cool("backup", settings, Wish(remove=True), said.append)
    assert said[-1].startswith("rules taken away: s3fsx-backup-ia;")
    assert BucketRules(settings).read() == ()


def test_tags(bucket_on: S3Server, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old, neither protected nor among the newest: gets the tag beside its own ones, and loses it when protected."""
    for name in (*ARCHIVES, f"{ARCHIVES[1]}.protected", f"{ARCHIVES[0]}.notes"):
        bucket_on.client.put_object(Bucket=settings.bucket, Key=f"pve/dump/{name}", Body=b"x")
    own = {"TagSet": [{"Key": "mine", "Value": "1"}]}
    bucket_on.client.put_object_tagging(Bucket=settings.bucket, Key=f"pve/dump/{ARCHIVES[0]}", Tagging=own)
    real = BucketRules._listed
    monkeypatch.setattr(
        BucketRules,
        "_listed",
        lambda self, prefix: (replace(item, modified=item.modified - 400 * 86400) for item in real(self, prefix)),
    )
    said: list[str] = []
    wish = Wish(glacier_days=365, warm=2)
    cool("backup", settings, wish, said.append)
    assert said[-1] == "2 backups may become cold, 3 old ones stay; 2 tags changed"
    assert tags(bucket_on, settings.bucket, ARCHIVES[0]) == {"mine": "1", "s3fsx-cold": "backup"}
    assert tags(bucket_on, settings.bucket, ARCHIVES[2]) == {"s3fsx-cold": "backup"}
    assert all(not tags(bucket_on, settings.bucket, ARCHIVES[i]) for i in (1, 3, 4))
    cool("backup", settings, replace(wish, glacier_days=0), said.append)  # a timer
    assert said[-1] == "2 backups may become cold, 3 old ones stay; 0 tags changed"

    bucket_on.client.put_object(Bucket=settings.bucket, Key=f"pve/dump/{ARCHIVES[0]}.protected", Body=b"")
    cool("backup", settings, replace(wish, glacier_days=0), said.append)
    assert tags(bucket_on, settings.bucket, ARCHIVES[0]) == {"mine": "1"}
    assert f"  {ARCHIVES[0]}: stays readable" in said


def test_a_store_that_keeps_a_rule_without_its_tag(
    bucket_on: S3Server, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would freeze everything: what was there before is written back."""
    put(bucket_on, settings.bucket, [THEIRS])
    before = rules(bucket_on, settings.bucket)
    real = BucketRules.read

    def forgetful(self: BucketRules) -> tuple[Any, ...]:
        return tuple(
            {**rule, "Filter": {"Prefix": "pve/dump/"}} if "cold" in rule["ID"] else rule for rule in real(self)
        )

    monkeypatch.setattr(BucketRules, "read", forgetful)
    with pytest.raises(S3fsxError, match="did not keep the lifecycle rule s3fsx-backup-cold as it was written"):
        cool("backup", settings, Wish(glacier_days=365), lambda _: None)
    assert rules(bucket_on, settings.bucket) == before


def test_providers_that_cannot(bucket_on: S3Server, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BucketRules, "read", lambda self: ())
    spaces = replace(settings, endpoint="https://fra1.digitaloceanspaces.com")
    with pytest.raises(ConfigError, match="DigitalOcean Spaces has no lifecycle rules that move objects"):
        cool("backup", spaces, Wish(transition_days=30), lambda _: None)
