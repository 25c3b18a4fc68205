from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.configuration import mountopts
from s3fsx.errors import ConfigError

names = st.from_regex(r"\A[a-z][a-z0-9_-]{0,20}\Z").filter(
    lambda n: n not in {*mountopts.IGNORED, *mountopts.MAPPED, *mountopts.REFUSED} and not n.startswith("x-")
)


@given(st.lists(st.tuples(names, st.one_of(st.just(True), st.text()))))
def test_what_is_joined_is_parsed_back(pairs: list[tuple[str, str | bool]]) -> None:
    assert mountopts.parse([mountopts.join(pairs)]) == pairs


@given(st.text())
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    try:
        mountopts.parse([text])
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_commas_in_values() -> None:
    wanted = [("layout", "dump=backup/,template/iso=iso/"), ("uid", "5")]
    assert mountopts.parse([r"layout=dump=backup/\,template/iso=iso/,uid=5"]) == wanted
    assert mountopts.parse(['layout="dump=backup/,template/iso=iso/",uid=5']) == wanted
    assert mountopts.parse([r"prefix=a\b,uid=5"]) == [("prefix", r"a\b"), ("uid", "5")]


def test_flags_empty_values_and_several_texts() -> None:
    assert mountopts.parse(["allow_other,,prefix=", "umask=027,"]) == [
        ("allow_other", True),
        ("prefix", ""),
        ("umask", "027"),
    ]


def test_what_fstab_and_mount_add_means_nothing() -> None:
    line = (
        "rw,defaults,_netdev,nofail,noauto,auto,user,user=joe,users,noatime,relatime,nodev,nosuid,suid,dev,sync,"
        "x-systemd.requires=network-online.target,X-mount.mkdir,comment=hello,default_permissions,nonempty,big_writes"
    )
    assert mountopts.parse([line]) == []


def test_what_means_something_is_mapped() -> None:
    assert mountopts.parse(["ro,noexec,exec"]) == [("read_only", True), ("noexec", True), ("noexec", False)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("remount,ro", "-o: remount is not supported: umount and mount again"),
        ("ro=no", "-o: ro takes no value: leave out what stands behind it"),
        ("=5", "-o: a value without a name"),
        ('prefix="a,b', "-o: a double quote is not closed"),
        ("prefix=a\\", "-o: a backslash at the end"),
    ],
)
def test_refusals(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mountopts.parse([text])
    assert str(caught.value) == line
