"""The fault proxy before a real store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faultproxy import FaultProxy
from tests.s3server import S3Server


@pytest.fixture
def proxy(rgw: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(rgw.endpoint) as running:
        yield running
