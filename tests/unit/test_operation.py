"""Errors become errnos, and an outage or a program in a loop becomes a few lines in the log."""

from __future__ import annotations

import errno
import logging

import pyfuse3
import pytest

from s3fsx.errors import FileSystemError, S3fsxError, ServerFault
from s3fsx.kernel.operation import Requests, operation


class Handlers:
    def __init__(self, requests: Requests) -> None:
        self.requests = requests

    @operation
    async def read(self, error: S3fsxError) -> None:
        raise error


class Clock:
    now = 0.0


@pytest.mark.parametrize(
    ("error", "level", "number"),
    [(ServerFault("503"), "WARNING", errno.EIO), (FileSystemError(errno.EROFS, "no"), "INFO", errno.EROFS)],
)
@pytest.mark.expect_log("read: 503", optional=True)
async def test_one_line_per_kind_in_ten_seconds(
    caplog: pytest.LogCaptureFixture, error: S3fsxError, level: str, number: int
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    handlers = Handlers(Requests(lambda: clock.now))
    for _ in range(1000):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await handlers.read(error)
        assert raised.value.errno == number
        clock.now += 0.025
    told = [record for record in caplog.records if record.name == "s3fsx.fuse"]
    assert [record.levelname for record in told] == [level] * 3
    assert "399 more of the kind" in told[1].getMessage()
    assert handlers.requests.under_way == 0
