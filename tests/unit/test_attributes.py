from __future__ import annotations

import math
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.fs.attributes import KEPT_BITS, Attributes, Defaults, from_metadata, to_metadata

DEFAULTS = Defaults(file_mode=0o640, dir_mode=0o750, uid=33, gid=34)
MODIFIED = 1_700_000_000.5
PLAIN = Attributes(0o640, 33, 34, 1_700_000_000_500_000_000)

attributes = st.builds(
    Attributes,
    mode=st.integers(0, 0o7777).map(lambda bits: bits & KEPT_BITS),
    uid=st.integers(0, 0xFFFFFFFE),
    gid=st.integers(0, 0xFFFFFFFE),
    mtime_ns=st.integers(0, (1 << 33) * 10**9 - 1),
)


def read(directory: bool = False, **values: str) -> Attributes:
    return from_metadata(values, MODIFIED, DEFAULTS, directory=directory)


@given(attributes, st.booleans())
def test_what_is_written_is_read_back(attrs: Attributes, directory: bool) -> None:
    assert from_metadata(to_metadata(attrs, directory=directory), 0, DEFAULTS, directory=directory) == attrs


@given(st.integers(0, KEPT_BITS).map(lambda bits: bits & KEPT_BITS), st.booleans())
def test_octal_and_decimal_are_never_confused(bits: int, directory: bool) -> None:
    kind = stat.S_IFDIR if directory else stat.S_IFREG
    for text in (str(kind | bits), f"{kind | bits:o}", f"{bits:o}", f"{bits:04o}", f"0{kind | bits:o}"):
        assert read(directory, mode=text).mode == bits


@given(
    st.dictionaries(
        st.sampled_from(["mode", "uid", "gid", "mtime", "x"]),
        st.one_of(
            st.text(max_size=20),
            st.integers().map(str),
            st.floats().map(str),
            st.from_regex(r"[0-9]{0,15}\.?[0-9]{0,25}", fullmatch=True),
        ),
    ),
    st.floats(),
    st.booleans(),
)
def test_hostile_metadata_never_raises_and_never_goes_out_of_range(
    metadata: dict[str, str], modified: float, directory: bool
) -> None:
    attrs = from_metadata(metadata, modified, DEFAULTS, directory=directory)
    assert attrs.mode & ~KEPT_BITS == 0
    assert 0 <= attrs.uid < 0xFFFFFFFF
    assert 0 <= attrs.gid < 0xFFFFFFFF
    assert 0 <= attrs.mtime_ns < 1 << 63


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "-1",
            "+1",
            "1 ",
            "0x1ff",
            "1_0",
            "nan",
            "inf",
            "NaN",
            "root",
            "1e3",
            "9" * 30,
            "7" * 5000,
            "٣",
            "²",
        ),
        "1\n",
    ],
)
def test_absurd_values_count_as_absent(text: str) -> None:
    assert read(mode=text, uid=text, gid=text, mtime=text) == PLAIN


@pytest.mark.parametrize("text", ["41471", "120777", "16877", "40755", "60644", "65536", "855", "777777"])
def test_a_mode_of_something_else_than_a_file_counts_as_absent(text: str) -> None:
    assert read(mode=text).mode == DEFAULTS.file_mode


@pytest.mark.parametrize("text", ["4294967295", "4294967296", "999999999999"])
def test_an_id_that_chown_would_not_take_counts_as_absent(text: str) -> None:
    assert read(uid=text, gid=text) == PLAIN


def test_no_metadata() -> None:
    assert from_metadata(None, MODIFIED, DEFAULTS) == from_metadata({}, MODIFIED, DEFAULTS) == PLAIN
    assert from_metadata({}, MODIFIED, DEFAULTS, directory=True).mode == 0o750


@pytest.mark.parametrize("text", ["36333", str(stat.S_IFREG | 0o4755), "104755", "4755", "2755", "6755"])
def test_setuid_and_setgid_are_dropped(text: str) -> None:
    assert read(mode=text).mode & 0o6000 == 0


def test_setuid_is_not_written_either() -> None:
    assert to_metadata(Attributes(0o6755, 0, 0, 0))["mode"] == str(stat.S_IFREG | 0o755)


def test_of_s3fs() -> None:
    values = {"mode": "33261", "uid": "1000", "gid": "100", "mtime": "1700000000.000000042", "atime": "1", "ctime": "1"}
    assert from_metadata(values, 0, DEFAULTS) == Attributes(0o755, 1000, 100, 1_700_000_000_000_000_042)
    assert read(mtime="1700000000").mtime_ns == 1_700_000_000 * 10**9
    assert read(True, mode="16877").mode == 0o755


def test_of_rclone() -> None:
    values = {"mode": "100755", "uid": "0", "gid": "0", "mtime": "1700000000.123456789"}
    assert from_metadata(values, 0, DEFAULTS) == Attributes(0o755, 0, 0, 1_700_000_000_123_456_789)
    assert read(mode="644").mode == 0o644
    assert read(mtime="1700000000.5").mtime_ns == 1_700_000_000_500_000_000
    assert read(mtime="1700000000.1234567899").mtime_ns == 1_700_000_000_123_456_789


def test_the_form_that_is_written() -> None:
    assert to_metadata(Attributes(0o644, 0, 33, 1_700_000_000_000_000_042)) == {
        "mode": "33188",
        "uid": "0",
        "gid": "33",
        "mtime": "1700000000.000000042",
    }
    assert to_metadata(Attributes(0o755, 0, 0, 0), directory=True)["mode"] == "16877"


@pytest.mark.parametrize("mtime_ns", [-1, (1 << 33) * 10**9])
def test_an_mtime_nobody_could_read_is_not_written(mtime_ns: int) -> None:
    assert "mtime" not in to_metadata(Attributes(0o644, 0, 0, mtime_ns))


@pytest.mark.parametrize("modified", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_an_absurd_last_modified(modified: float) -> None:
    assert from_metadata({}, modified, DEFAULTS).mtime_ns == 0
