"""Mounts for tests. Everything here is marked ``mount``: it needs /dev/fuse and root."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.checklogs import LogWatch
from tests.mount.harness import Mount
from tests.s3server import S3Server


class MakeMount(Protocol):
    def __call__(self, *, bucket: str = ..., prefix: str = ..., **options: object) -> Mount: ...


def with_tls(server: S3Server) -> str:
    """Its TLS port; skips the test where it has none."""
    if server.tls_endpoint is None:
        pytest.skip("a gateway has one port, with or without TLS: gateway/test_serving has its TLS")
    return server.tls_endpoint


@pytest.fixture
def make_mount(bucket_on: S3Server, tmp_path: Path, log_watch: LogWatch) -> Iterator[MakeMount]:
    """``make_mount(list_ttl="1s")``: a started mount of a new bucket, or of ``bucket``. Taken down after the test.

    Two mounts of one bucket have each a home of their own: they are two nodes.
    """
    numbers = itertools.count()
    with ExitStack() as stack:

        def make(*, bucket: str = "", prefix: str = "pve/", **options: object) -> Mount:
            bucket = bucket or bucket_on.make_bucket("mount")
            home = tmp_path / f"node{next(numbers)}"
            return stack.enter_context(Mount(bucket_on, bucket, prefix, home, log_watch, options))

        yield make


@pytest.fixture
def mount(make_mount: MakeMount) -> Mount:
    """A mount with default options of a new, empty bucket."""
    return make_mount()
