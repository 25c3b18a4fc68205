from __future__ import annotations

import dataclasses

import pytest

from s3fsx.configuration import aliases, settings
from s3fsx.configuration.schema import SECTIONS
from s3fsx.configuration.settings import SCHEMA, Settings, show
from s3fsx.configuration.values import MIB
from s3fsx.errors import ConfigError
from s3fsx.store.objects import MAX_PART, MIN_PART


def test_the_schema_is_the_dataclass() -> None:
    assert list(SCHEMA) == [field.name for field in dataclasses.fields(Settings)]
    assert {row.section for row in SCHEMA.values()} == set(SECTIONS)
    assert all(row.help.endswith(".") for row in SCHEMA.values())


def test_every_default_is_allowed_and_reads_back() -> None:
    default = Settings()
    for name, row in SCHEMA.items():
        value = getattr(default, name)
        assert row.kind.parse(row.kind.show(value)) == value, name


def test_every_alias_means_a_setting_and_hides_none() -> None:
    for name, alias in aliases.ALIASES.items():
        assert alias.target in SCHEMA
        assert name not in SCHEMA
        assert name == aliases.canonical(name)


@pytest.mark.parametrize(
    ("name", "raw", "target", "value"),
    [
        ("part-size", "16M", "part_size", 16 * MIB),
        ("Part_Size", "16M", "part_size", 16 * MIB),
        ("multipart_chunk_size", "100", "part_size", 100 * MIB),
        ("multipart_size", 10, "part_size", 10 * MIB),
        ("max_concurrent_uploads", "3", "max_uploads", 3),
        ("connection_timeout", "60", "connect_timeout", 60.0),
        ("max_retries", "4", "attempts", 5),
        ("retries", 0, "attempts", 1),
        ("server_side_encryption", "aws:kms", "sse", "aws:kms"),
        ("kms-key-id", "alias/x", "sse_kms_key_id", "alias/x"),
        ("url", "https://x", "endpoint", "https://x"),
        ("passwd_file", "/x", "credentials_file", "/x"),
        ("use_path_request_style", True, "addressing", "path"),
        ("use_path_request_style", "false", "addressing", "virtual"),
        ("no_check_certificate", True, "verify_tls", False),
        ("use_sse", True, "sse", "AES256"),
        ("use_sse", "1", "sse", "AES256"),
        ("access-key", "AK", "access_key", "AK"),
        ("aws_secret_access_key", "s", "secret_key", "s"),
        ("storage_class", "standard_ia", "storage_class", "STANDARD_IA"),
    ],
)
def test_names_people_know(name: str, raw: object, target: str, value: object) -> None:
    assert aliases.read(name, raw, "-o") == (target, value)


@pytest.mark.parametrize(
    ("name", "raw", "line"),
    [
        ("prt_size", "1", "FILE: unknown setting 'prt_size'; did you mean 'part_size'?"),
        ("pass_wd_file", "1", "FILE: unknown setting 'pass_wd_file'; did you mean 'passwd_file'?"),
        ("zzz", "1", "FILE: unknown setting 'zzz'; 's3fsx config show' lists all settings"),
        ("part_size", "3M", "FILE: part_size = '3M': out of range; use 5MiB to 5GiB"),
        ("part_size", MIN_PART - 1, "FILE: part_size = 5242879: out of range; use 5MiB to 5GiB"),
        ("part_size", MAX_PART + 1, "FILE: part_size = 5368709121: out of range; use 5MiB to 5GiB"),
        ("max_uploads", "65", "FILE: max_uploads = '65': out of range; use 1 to 64"),
        ("max_uploads", "many", "FILE: max_uploads = 'many': not a whole number; use 1 to 64"),
        ("read_timeout", True, "FILE: read_timeout = True: needs a value; it is not a switch"),
        ("part_profile", "big", "FILE: part_profile = 'big': use one of growing, uniform"),
        ("use_sse", "custom", "FILE: use_sse = 'custom': use sse=AES256, or sse=aws:kms with sse_kms_key_id"),
        ("max_retries", "x", "FILE: max_retries = 'x': not a whole number; use 0 to 19"),
        (
            "endpoint",
            "eu-west-1",
            "FILE: endpoint = 'eu-west-1': use a URL like https://s3.example.com or http://10.0.0.5:7480 "
            "(the name of a region goes into region)",
        ),
    ],
)
def test_mistakes_name_source_key_value_and_what_is_allowed(name: str, raw: object, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        aliases.read(name, raw, "FILE")
    assert str(caught.value) == line


@pytest.mark.parametrize("name", ["secret_key", "aws_secret_access_key", "session_token"])
def test_a_wrong_secret_is_not_in_the_message(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        aliases.read(name, "hunter2 hunter2", "FILE")
    assert "hunter2" not in str(caught.value)


def test_messages_stay_one_short_line() -> None:
    with pytest.raises(ConfigError) as caught:
        aliases.read("bucket", "x\n" * 5000, "FILE")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError) as caught:
        aliases.read("endpoint", "https://me:hunter2@x/", "FILE")
    assert "hunter2" not in str(caught.value)


def test_secrets_are_masked() -> None:
    full = Settings(
        access_key="AKID", secret_key="hunter2", session_token="hunter2", proxy="http://me:hunter2@proxy:3128"
    )
    assert "hunter2" not in repr(full)
    shown = {name: settings.show(name, getattr(full, name)) for name in SCHEMA}
    assert "hunter2" not in str(shown)
    assert shown["secret_key"] == shown["session_token"] == "****"
    assert shown["proxy"] == "http://****@proxy:3128"
    assert settings.show("secret_key", "") == ""


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:hunter2/x@proxy:3128",
        "http://user:a@hunter2@proxy:0",
        "user:hunter2@proxy:3128",
        "ftp://u:a b/hunter2@p",
    ],
)
def test_a_proxy_that_is_refused_is_told_without_its_password(proxy: str) -> None:
    with pytest.raises(ConfigError) as raised:
        aliases.read("proxy", proxy, "here")
    assert "hunter2" not in str(raised.value)
    assert "***@p" in str(raised.value)


def test_a_password_with_an_at_sign_is_not_shown_in_part() -> None:
    assert show("proxy", "http://user:a@hunter2@proxy:3128") == "http://****@proxy:3128"
