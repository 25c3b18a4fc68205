"""The lifecycle rules and tags of a bucket, through boto3. Blocks: for commands, not for the loop of a mount."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..configuration.config import to_s3_options
from ..configuration.settings import Settings
from ..errors import AccessDenied, S3fsxError
from ..layout import Layout
from ..s3.client import ANSWERED, ClientMaker, failure
from . import lifecycle
from .lifecycle import Policy, Rule, Stored, Verdict

_NO_RULES = ("NoSuchLifecycleConfiguration", "NoSuchLifecycle")
_NO_TAGS = ("NoSuchTagSet", "NoSuchTagSetError")


class BucketRules:
    """One bucket, with the keys of a mount. Every method raises S3fsxError in one line."""

    def __init__(self, settings: Settings) -> None:
        self._bucket = settings.bucket
        self._settings = settings
        self._client = ClientMaker(to_s3_options(settings))("slow")

    @property
    def backups(self) -> str:
        """The prefix of the backups' directory."""
        return Layout(self._settings.prefix, self._settings.layout).directory("dump")

    def read(self) -> tuple[Rule, ...]:
        """AccessDenied: these keys may not see them."""
        with _failures("GET LIFECYCLE", none=_NO_RULES):
            return tuple(self._client.get_bucket_lifecycle_configuration(Bucket=self._bucket)["Rules"])
        return ()

    def write(self, rules: Sequence[Rule], before: Sequence[Rule]) -> None:
        """All rules of the bucket. They are read again: where the store has not kept one as it was written, what was
        there before is written back, and S3fsxError raised."""
        self._put(rules)
        if lost := lifecycle.weakened(rules, self.read()):
            self._put(before)
            raise S3fsxError(
                f"the store did not keep the lifecycle rule {lost[0]} as it was written, which could freeze or delete "
                "what it must not: the rules are as they were before"
            )

    def _put(self, rules: Sequence[Rule]) -> None:
        with _failures("PUT LIFECYCLE"):
            if rules:
                self._client.put_bucket_lifecycle_configuration(
                    Bucket=self._bucket, LifecycleConfiguration={"Rules": list(rules)}
                )
            else:
                self._client.delete_bucket_lifecycle(Bucket=self._bucket)

    def verdict(self, policy: Policy) -> Verdict:
        """Looks at the list of the backups."""
        return lifecycle.judge(self._listed(policy.prefix), policy, time.time())

    def _listed(self, prefix: str) -> Iterator[Stored]:
        with _failures(f"LIST {prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix, Delimiter="/"):
                for item in page.get("Contents", ()):
                    key = str(item["Key"]).removeprefix(prefix)
                    yield Stored(key, item["LastModified"].timestamp(), str(item.get("StorageClass", "")))

    def tag(self, policy: Policy, verdict: Verdict, say: Callable[[str], object]) -> int:
        """Sets the tag on what may become cold, takes it from what may not; the other tags stay. How many changed."""
        wanted = [*((key, True) for key in verdict.cold), *((key, False) for key in verdict.warm)]
        changed = 0
        for key, cold in wanted:
            there = self._tags(policy.prefix + key)
            others = [tag for tag in there if tag["Key"] != lifecycle.TAG]
            tags = [*others, {"Key": lifecycle.TAG, "Value": policy.name}] if cold else others
            if tags == there:
                continue
            with _failures(f"PUT TAGS {key}"):
                self._client.put_object_tagging(Bucket=self._bucket, Key=policy.prefix + key, Tagging={"TagSet": tags})
            say(f"  {key}: {'may become cold' if cold else 'stays readable'}")
            changed += 1
        return changed

    def _tags(self, key: str) -> list[Any]:
        with _failures(f"GET TAGS {key}", none=_NO_TAGS):
            return list(self._client.get_object_tagging(Bucket=self._bucket, Key=key)["TagSet"])
        return []


@contextmanager
def _failures(what: str, none: tuple[str, ...] = ()) -> Iterator[None]:
    """none: codes that mean there is nothing; the block then ends without a value."""
    try:
        yield
    except ANSWERED as error:
        if str(error.response.get("Error", {}).get("Code")) in none:
            return
        raise failure(what, error) from None
    except S3fsxError:
        raise
    except Exception as error:
        raise failure(what, error) from None


def seen(rules: BucketRules) -> tuple[tuple[Rule, ...], str]:
    """The rules, and why they cannot be seen: "" where they can."""
    try:
        return rules.read(), ""
    except AccessDenied:
        return (), "these keys may not see the bucket's lifecycle rules (s3:GetLifecycleConfiguration)"
    except S3fsxError as error:  # stores without rules refuse the question in many ways
        return (), f"the rules cannot be read ({error})"
