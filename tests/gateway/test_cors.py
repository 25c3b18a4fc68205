"""Pages of other origins: the rules of a bucket, and what a browser is told."""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import urlsplit

import pytest

from s3fsx.gateway.cors import answer
from tests.gateway.test_api import code
from tests.s3server import S3Server


def rule(*origins: str, methods: tuple[str, ...] = ("GET",), headers: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"origins": origins, "methods": methods, "headers": headers, "exposed": (), "age": None, "id": ""}


@pytest.mark.parametrize(
    ("pattern", "origin", "fits"),
    [
        ("*", "http://a", True),
        ("http://a", "http://a", True),
        ("http://a", "http://ab", False),
        ("*suffix", "foo.suffix", True),
        ("*suffix", "foo.suffix.get", False),
        ("start*end", "startend", True),
        ("start*end", "start12end", True),
        ("start*end", "0start12end", False),
        ("star*tart", "start", False),
        ("prefix*", "prefix", True),
        ("prefix*", "bla.prefix", False),
    ],
)
def test_origins(pattern: str, origin: str, fits: bool) -> None:
    assert bool(answer([rule(pattern)], origin, "GET", [])) is fits


def test_which_rule() -> None:
    rules = [rule("a", methods=("PUT",)), rule("*", headers=("X-*",)), rule("a", headers=("y",))]
    assert dict(answer(rules, "a", "PUT", []))["Access-Control-Allow-Methods"] == "PUT"
    found = dict(answer(rules, "a", "GET", ["x-a", "x-b"]))
    assert (found["Access-Control-Allow-Origin"], found["Access-Control-Allow-Headers"]) == ("*", "x-a, x-b")
    assert "Access-Control-Allow-Credentials" not in found
    found = dict(answer(rules, "a", "GET", ["y"]))
    assert (found["Access-Control-Allow-Origin"], found["Access-Control-Allow-Credentials"]) == ("a", "true")
    assert not answer(rules, "a", "GET", ["x-a", "y"])
    assert not answer(rules, "a", "DELETE", [])


def ask(server: S3Server, method: str, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        found = connection.getresponse()
        found.read()
        return found
    finally:
        connection.close()


def test_a_bucket_with_rules(gateway: S3Server) -> None:
    c, bucket = gateway.client, gateway.make_bucket("cors")
    assert code(lambda: c.get_bucket_cors(Bucket=bucket)) == ("NoSuchCORSConfiguration", 404)
    rules = [
        {
            "ID": "one",
            "AllowedOrigins": ["http://*.example"],
            "AllowedMethods": ["GET", "PUT"],
            "AllowedHeaders": ["x-amz-*"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 60,
        }
    ]
    asked = {"Origin": "http://a.example", "Access_Control_Request_Method": "PUT"}
    assert ask(gateway, "OPTIONS", f"/{bucket}/x", **asked).status == 403
    c.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert c.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    assert ask(gateway, "OPTIONS", f"/{bucket}/x").status == 400
    assert ask(gateway, "OPTIONS", f"/{bucket}/x", Origin="http://a.example").status == 400
    assert ask(gateway, "OPTIONS", f"/{bucket}/x", **{**asked, "Origin": "http://b"}).status == 403
    assert ask(gateway, "OPTIONS", "/no-such-bucket/x", **asked).status == 404
    # Nobody signs it, also where what it asks for is signed in the query.
    url = c.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "x"}).removeprefix(gateway.endpoint)
    found = ask(gateway, "OPTIONS", url, **asked, Access_Control_Request_Headers="X-Amz-Date")
    assert found.status == 200
    assert found.headers["Access-Control-Allow-Origin"] == "http://a.example"
    assert found.headers["Access-Control-Allow-Methods"] == "GET, PUT"
    assert found.headers["Access-Control-Allow-Headers"] == "x-amz-date"
    assert (found.headers["Access-Control-Max-Age"], found.headers["Access-Control-Expose-Headers"]) == ("60", "ETag")
    # The answers themselves, of errors too; to other origins nothing is told.
    found = ask(gateway, "PUT", url, Origin="http://a.example", Content_Length="0")
    assert (found.status, found.headers["Access-Control-Allow-Origin"]) == (200, "http://a.example")
    found = ask(gateway, "GET", f"/{bucket}/x", Origin="http://a.example")
    assert (found.status, found.headers["Access-Control-Allow-Origin"]) == (403, "http://a.example")
    assert "Access-Control-Allow-Origin" not in ask(gateway, "GET", f"/{bucket}/x", Origin="http://b").headers
    assert "Access-Control-Allow-Origin" not in ask(gateway, "GET", f"/{bucket}/x").headers
    c.delete_bucket_cors(Bucket=bucket)
    assert code(lambda: c.get_bucket_cors(Bucket=bucket)) == ("NoSuchCORSConfiguration", 404)


@pytest.mark.parametrize(
    "wrong",
    [
        {"AllowedMethods": ["PATCH"]},
        {"AllowedOrigins": ["a*b*"]},
        {"AllowedHeaders": ["**"]},
        {"AllowedHeaders": ["a b"]},
        {"ExposeHeaders": ["a\nb"]},
    ],
)
def test_wrong_rules(gateway: S3Server, wrong: dict[str, Any]) -> None:
    bucket = gateway.make_bucket("cors")
    rules = [{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], **wrong}]
    put = gateway.client.put_bucket_cors
    assert code(lambda: put(Bucket=bucket, CORSConfiguration={"CORSRules": rules})) == ("InvalidRequest", 400)
