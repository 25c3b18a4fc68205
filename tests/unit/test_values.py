from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.configuration import values
from s3fsx.configuration.values import GIB, KIB, MIB, TIB, Kind


@pytest.mark.parametrize(
    ("typed", "size"),
    [
        (8388608, 8 * MIB),
        ("8388608", 8 * MIB),
        ("8MiB", 8 * MIB),
        ("8M", 8 * MIB),
        ("8m", 8 * MIB),
        (" 8 mib ", 8 * MIB),
        ("8MB", 8_000_000),
        ("10k", 10 * KIB),
        ("3GiB", 3 * GIB),
        ("2T", 2 * TIB),
        ("17b", 17),
        (0, 0),
    ],
)
def test_sizes(typed: object, size: int) -> None:
    assert values.size(0).parse(typed) == size


@pytest.mark.parametrize(
    "typed", ["", "M", "-1", "1.5M", "8 MiBs", "1e6", "٣", "8M8", True, False, None, [8], 1.5, "9" * 30]
)
def test_what_is_no_size(typed: object) -> None:
    with pytest.raises(ValueError, match=r"use a size of at least 0|not a single value|needs a value"):
        values.size(0).parse(typed)


def test_a_plain_number_can_count_mebibytes_but_a_unit_wins() -> None:
    kind = values.size(0, plain_unit=MIB)
    assert kind.parse("100") == kind.parse(100) == kind.parse("100MiB") == 100 * MIB
    assert kind.parse("1k") == KIB


@pytest.mark.parametrize("typed", ["4MiB", "6GiB", 5 * MIB - 1])
def test_sizes_out_of_range_name_the_range(typed: object) -> None:
    with pytest.raises(ValueError, match=r"out of range; use 5MiB to 5GiB"):
        values.size(5 * MIB, 5 * GIB).parse(typed)


@given(st.integers(0, 2**62))
def test_sizes_survive_being_shown(size: int) -> None:
    assert values.size(0).parse(values.show_size(size)) == size


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        (10, 10.0),
        (0.5, 0.5),
        ("10", 10.0),
        ("10s", 10.0),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("2d", 172800),
    ],
)
def test_durations(typed: object, seconds: float) -> None:
    assert values.duration(0, 200_000).parse(typed) == seconds


@pytest.mark.parametrize(
    "typed", ["", "s", "-1", "1 week", "1:30", "inf", "nan", math.nan, math.inf, -1, True, None, {}]
)
def test_what_is_no_duration(typed: object) -> None:
    with pytest.raises(ValueError, match=r"use 1s to 1h|needs a value|not a single value"):
        values.duration(1, 3600).parse(typed)


@given(st.integers(0, 10**9).map(lambda ms: ms / 1000))
def test_durations_survive_being_shown(seconds: float) -> None:
    assert values.duration(0, 10**7).parse(values.show_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@given(st.integers(0, 0o7777))
def test_modes_survive_being_shown(mode: int) -> None:
    kind = values.mode()
    assert kind.parse(kind.show(mode)) == mode
    assert kind.parse(f"0o{mode:o}") == mode


@pytest.mark.parametrize("typed", [644, 0o644, "888", "", "rwx", "10000", "-1", True])
def test_a_mode_is_an_octal_string(typed: object) -> None:
    with pytest.raises(ValueError, match="octal string from 0000 to 7777"):
        values.mode().parse(typed)


@pytest.mark.parametrize("typed", [True, "true", "YES", "on", "1", 1])
def test_on(typed: object) -> None:
    assert values.flag().parse(typed) is True


@pytest.mark.parametrize("typed", [False, "false", "No", "off", "0", 0])
def test_off(typed: object) -> None:
    assert values.flag().parse(typed) is False


@pytest.mark.parametrize("typed", ["", "2", "maybe", None, 2])
def test_neither_on_nor_off(typed: object) -> None:
    with pytest.raises(ValueError, match="use true or false"):
        values.flag().parse(typed)


def test_a_choice_ignores_case_and_names_all() -> None:
    kind = values.choice("", "AES256", "aws:kms")
    assert kind.parse("aes256") == "AES256"
    assert kind.parse("") == ""
    with pytest.raises(ValueError, match='use one of "", AES256, aws:kms'):
        kind.parse("des")


@pytest.mark.parametrize(
    ("typed", "prefix"), [("", ""), ("/", ""), ("a", "a/"), ("/a/b", "a/b/"), ("a b/ü/", "a b/ü/")]
)
def test_prefixes_are_normalised(typed: str, prefix: str) -> None:
    assert values.key_prefix().parse(typed) == prefix


@pytest.mark.parametrize("typed", ["a//b", "../a", "a/./b", "a\nb", "x" * 513])
def test_what_is_no_prefix(typed: str) -> None:
    with pytest.raises(ValueError, match="use"):
        values.key_prefix().parse(typed)


@given(st.text())
def test_a_prefix_is_stable_and_ends_in_one_slash(typed: str) -> None:
    kind = values.key_prefix()
    try:
        prefix = kind.parse(typed)
    except ValueError:
        return
    assert kind.parse(prefix) == prefix
    assert prefix == "" or (prefix.endswith("/") and not prefix.startswith("/") and "//" not in prefix)


@pytest.mark.parametrize("typed", ["https://s3.example.com", "http://10.0.0.5:7480", "http://[::1]:9000", ""])
def test_urls(typed: str) -> None:
    assert values.url("a URL").parse(typed + "/" if typed else "") == typed


@pytest.mark.parametrize(
    "typed",
    [
        "s3.example.com",
        "s3.example.com:9000",
        "ftp://x",
        "https://",
        "http://x:99999",
        "http://x?y",
        "http://a b",
        "http://[",
    ],
)
def test_what_is_no_url(typed: str) -> None:
    with pytest.raises(ValueError, match="use a URL"):
        values.url("a URL").parse(typed)


def test_a_url_with_a_password_is_for_proxies_only() -> None:
    with pytest.raises(ValueError, match="credentials in it") as caught:
        values.url("a URL").parse("https://me:hunter2@x")
    assert "hunter2" not in str(caught.value)
    assert values.url("a URL", userinfo=True).parse("https://me:hunter2@x") == "https://me:hunter2@x"


@pytest.mark.parametrize("typed", ["relative", "a/b", "~/x", "/a\nb"])
def test_paths_are_absolute(typed: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        values.path().parse(typed)
    assert values.path().parse("") == ""
    with pytest.raises(ValueError, match="absolute path"):
        values.path(required=True).parse("")


def test_tables_from_toml_and_from_text() -> None:
    kind = values.table(("dump", "template/iso"), values.key_prefix())
    wanted = {"dump": "backup/", "template/iso": "iso/"}
    assert kind.parse({"dump": "backup", "template/iso/": "/iso/"}) == wanted
    assert kind.parse("dump=backup, template/iso=iso/") == wanted
    assert kind.parse(kind.show(wanted)) == wanted
    assert kind.parse("") == {}


@pytest.mark.parametrize("typed", ["dump", "dumps=x", {"dumps": "x"}, {"dump": {}}, {"dump": "a//b"}, 3.5])
def test_what_is_no_table(typed: object) -> None:
    with pytest.raises(ValueError, match=r"use|not a single value"):
        values.table(("dump",), values.key_prefix()).parse(typed)


KINDS = [
    values.size(1, 100),
    values.duration(1, 2),
    values.integer(1, 5),
    values.flag(),
    values.mode(),
    values.choice("a"),
    values.text("x", "x"),
    values.path(),
    values.key_prefix(),
    values.url("a URL"),
    values.table(("a",), values.key_prefix()),
]
toml_values = st.recursive(
    st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(raw=toml_values)
def test_nothing_but_value_errors_whatever_comes(kind: Kind, raw: Any) -> None:
    try:
        value = kind.parse(raw)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert kind.parse(kind.show(value)) == value
