"""The log watch itself: a test of a tool that can only say yes would be none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3fsx.gateway.gateway import _BUCKET, _OBJECT
from s3fsx.gateway.opnames import name_of
from tests.checklogs import LogWatch
from tests.s3server import ACCESS_KINDS, KINDS, Request, parse_access_log, parse_log

pytest_plugins = ["pytester"]
# The inner runs share this process's logging; their warnings are theirs.
pytestmark = pytest.mark.expect_log(r"s3fsx.cache: ", optional=True)

HEADER = "import logging, pytest\nlog = logging.getLogger('s3fsx.cache')\n"


def outcomes(pytester: pytest.Pytester, body: str) -> dict[str, int]:
    pytester.makepyfile(HEADER + body)
    return pytester.runpytest("-p", "tests.checklogs", "-p", "no:cacheprovider", "-p", "no:trio").parseoutcomes()


def test_an_undeclared_warning_fails(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, "def test(): log.warning('disk is slow')") == {"failed": 1}


def test_info_is_silent(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, "def test(): log.info('fine')") == {"passed": 1}


def test_a_declared_warning_passes(pytester: pytest.Pytester) -> None:
    body = "@pytest.mark.expect_log('WARNING s3fsx.cache: disk .* slow')\ndef test(): log.warning('disk is slow')"
    assert outcomes(pytester, body) == {"passed": 1}


def test_another_warning_than_the_declared_fails(pytester: pytest.Pytester) -> None:
    body = "def test(expect_log):\n expect_log('slow')\n log.warning('slow')\n log.error('gone')"
    assert outcomes(pytester, body) == {"failed": 1}


def test_a_declared_warning_that_never_comes_fails(pytester: pytest.Pytester) -> None:
    body = "@pytest.mark.expect_log('slow')\ndef test(): pass"
    assert outcomes(pytester, body) == {"passed": 1, "errors": 1}


def test_an_optional_one_may_stay_away(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, "def test(expect_log): expect_log('slow', optional=True)") == {"passed": 1}


def test_a_warning_of_a_fixtures_end_fails(pytester: pytest.Pytester) -> None:
    body = "@pytest.fixture\ndef late():\n yield\n log.error('gone')\ndef test(late): pass"
    assert outcomes(pytester, body) == {"passed": 1, "errors": 1}


def test_log_files_count_from_where_they_were(tmp_path: Path) -> None:
    log, watch = tmp_path / "log", LogWatch()
    log.write_text("2026-11-20T12:00:00 ERROR s3: before\n")
    watch.follow(log)
    with log.open("a") as file:
        file.write("2026-11-20T12:00:01 INFO s3: fine\n2026-11-20T12:00:02 WARNING s3: slow\n2026-11-20T12:00:03 ERR")
    assert watch.undeclared() == ["WARNING s3: slow"]
    with log.open("a") as file:
        file.write("OR s3: gone\n  File x\n")
    assert watch.undeclared() == ["ERROR s3: gone"]
    assert watch.undeclared() == []


@pytest.mark.parametrize(
    ("operation", "uri", "headers", "kind"),
    [
        ("put_obj", "PUT /b/k", [], "PUT"),
        ("put_obj", "PUT /b/k?uploadId=2~x&partNumber=1?uploadId=2~x&partNumber=1", [], "PUT PART"),
        ("put_obj", "PUT /b/k?uploadId=2~x&partNumber=1", [{"HTTP_X_AMZ_COPY_SOURCE": "b/s"}], "COPY PART"),
        ("copy_obj", "PUT /b/k", [{"HTTP_X_AMZ_COPY_SOURCE": "b/s"}], "COPY"),
        ("get_obj", "HEAD /b/k", [], "HEAD"),
        ("get_obj", "GET /b/k", [], "GET"),
        ("complete_multipart", "POST /b/k?uploadId=2~x", [], "COMPLETE"),
        ("list_bucket", "GET /b?list-type=2&prefix=k", [], "LIST"),
    ],
)
def test_a_line_of_the_request_log(operation: str, uri: str, headers: list[dict[str, str]], kind: str) -> None:
    entry = {"bucket": "b", "operation": operation, "uri": f"{uri} HTTP/1.1", "http_status": "200"}
    line = json.dumps({**entry, "bytes_sent": 3, "bytes_received": 4, "http_x_headers": headers})
    expected = ("b", Request(kind, "" if kind == "LIST" else "k", 200, 3, 4))
    assert list(parse_log(f"{line}{line}\n\n{line}\n")) == [expected] * 3


def test_a_line_of_the_gateways_access_log() -> None:
    entry = {"operation": "UploadPart", "path": "/b/a%20b/k", "status": 200, "sent": 3, "received": 4}
    of_the_service = {**entry, "operation": "ListBuckets", "path": "/"}
    text = f"{json.dumps(entry)}\n{json.dumps(of_the_service)}\n"
    assert list(parse_access_log(text)) == [
        ("b", Request("PUT PART", "a%20b/k", 200, 3, 4)),
        ("", Request("ListBuckets", "", 200, 3, 4)),
    ]


def test_both_logs_have_the_same_kinds_of_operations_the_gateway_has() -> None:
    named = {name_of(*key) for key in [(m, False, s) for m, s in _BUCKET] + [(m, True, s) for m, s in _OBJECT]}
    chosen = {"CopyObject", "UploadPartCopy", "ListObjects", "ListObjectsV2"}
    assert set(ACCESS_KINDS) - named == chosen
    assert set(KINDS.values()) <= set(ACCESS_KINDS.values())
