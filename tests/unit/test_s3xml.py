"""Our reading of a listing is botocore's, or none."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.s3 import answers, xml

SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
SHAPE = botocore.session.get_session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
ENTRY = (
    "<Contents><Key>d/a%20b</Key><LastModified>2026-11-27T04:41:12.123Z</LastModified>"
    "<ETag>&quot;9dd4e461268c8034f5c8564e155c67a6&quot;</ETag><Size>10</Size><StorageClass>STANDARD</StorageClass>"
    "<Owner><ID>x</ID><DisplayName>y</DisplayName></Owner><Type>Normal</Type></Contents>"
)


def document(inner: str, space: str = SPACE) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult {space}>{inner}</ListBucketResult>'.encode()


def by_botocore(body: bytes) -> Any:
    response = {"status_code": 200, "headers": {}, "body": body}
    return answers.page(create_parser("rest-xml").parse(response, SHAPE), "d/")


USUAL = {
    "empty": document("<IsTruncated>false</IsTruncated>"),
    "entries": document(f"<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>{ENTRY}{ENTRY}"),
    "not encoded": document(f"<IsTruncated>false</IsTruncated>{ENTRY}"),
    "no namespace": document(f"<IsTruncated>false</IsTruncated>{ENTRY}", ""),
    "no milliseconds": document(f"<IsTruncated>false</IsTruncated>{ENTRY}".replace(".123Z", "Z")),
    "no class, no ETag": document(
        "<IsTruncated>false</IsTruncated><Contents><Key>d/a</Key><LastModified>2026-11-27T04:41:12Z</LastModified>"
        "<Size>0</Size></Contents>"
    ),
    "prefixes and a token": document(
        "<IsTruncated>true</IsTruncated><NextContinuationToken>x&amp;y</NextContinuationToken>"
        "<CommonPrefixes><Prefix>d/e/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>d/f/</Prefix></CommonPrefixes>"
    ),
}


@pytest.mark.parametrize("body", USUAL.values(), ids=USUAL)
def test_the_usual_is_read_as_botocore_does(body: bytes) -> None:
    assert answers.page(xml.listing(body), "d/") == by_botocore(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"<Error><Code>x</Code></Error>",
        document(f"<IsTruncated>false</IsTruncated>{ENTRY}").replace(b"2026-11-27T04:41:12.123Z", b"Fri, 27 Nov 2026"),
        document(f"<IsTruncated>false</IsTruncated>{ENTRY}").replace(b"2026-11-27", b"2026-13-27"),
        document(f"<IsTruncated>false</IsTruncated>{ENTRY}").replace(b"<Size>10<", b"<Size>-10<"),
        document(f"<IsTruncated>false</IsTruncated>{ENTRY}").replace(b"<Size>10</Size>", b""),
        document(f"<IsTruncated>false</IsTruncated>{ENTRY}").replace(b"<Size>", b"<Size>1</Size><Size>"),
        document(f"<IsTruncated>false</IsTruncated>{ENTRY}").replace(b"<Key>d/", b"<Key><x/>d/"),
        document("<IsTruncated>perhaps</IsTruncated>"),
        document("<IsTruncated>false</IsTruncated><IsTruncated>true</IsTruncated>"),
        document("<IsTruncated>false</IsTruncated>")[:-5],
    ],
)
def test_what_is_not_usual_is_left_to_botocore(body: bytes) -> None:
    with pytest.raises(xml.UnusualError):
        xml.listing(body)


def test_a_page_of_something_else_is_no_empty_directory() -> None:
    """Without IsTruncated, which ``s3.answers`` wants."""
    assert xml.listing(document("")) == {"Contents": [], "CommonPrefixes": []}
    with pytest.raises(Exception, match="no list"):
        answers.page(xml.listing(document("")), "d/")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0xD7FF), max_size=20))
def test_any_key(name: str) -> None:
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    body = document(f"<IsTruncated>false</IsTruncated>{ENTRY}".replace("a%20b", escaped))
    try:
        expected = by_botocore(body)
    except Exception:  # characters XML has not
        with pytest.raises(xml.UnusualError):
            xml.listing(body)
        return
    assert answers.page(xml.listing(body), "d/") == expected


@pytest.mark.parametrize(
    ("inner", "token"),
    [
        ("<NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>", True),
        ("<NextContinuationToken>x&amp;y</NextContinuationToken>", False),
        ("<NextContinuationToken></NextContinuationToken>", False),
        ("<NextContinuationToken>a</NextContinuationToken><NextContinuationToken>b</NextContinuationToken>", False),
        ("<Contents><Key>&lt;NextContinuationToken&gt;a&lt;/NextContinuationToken&gt;</Key></Contents>", False),
        ("", False),
    ],
)
def test_the_next_token_is_the_one_that_is_read_later(inner: str, token: bool) -> None:
    body = document(f"<IsTruncated>true</IsTruncated>{inner}")
    found = xml.next_token(body)
    assert bool(found) == token
    if found:
        assert found == xml.listing(body)["NextContinuationToken"]
