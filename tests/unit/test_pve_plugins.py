"""storage.cfg and the sections of other plugins."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.configuration import aliases, config
from s3fsx.configuration.settings import SCHEMA, Settings
from s3fsx.errors import ConfigError
from s3fsx.pve import storagecfg
from s3fsx.pve.plan import Storage, existing, overlap, quoted, toml
from s3fsx.pve.plugins import OURS, PLUGIN, PROXS3, command, translate
from s3fsx.pve.storagecfg import Section, parse

names = st.from_regex(r"[a-z][a-z0-9-]{1,12}", fullmatch=True)
words = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
sections = st.builds(Section, names, names, st.dictionaries(names, words, max_size=6))


def written(every: list[Section]) -> str:
    """As pve-common's SectionConfig writes it."""
    return "".join(
        f"{s.kind}: {s.name}\n" + "".join(f"\t{k} {v}\n" for k, v in s.properties.items()) + "\n" for s in every
    )


@given(st.lists(sections, max_size=5))
def test_what_proxmox_writes_is_read(every: list[Section]) -> None:
    assert list(parse(written(every))) == every


@given(st.text(max_size=300))
def test_any_text_is_read_or_passed_over(text: str) -> None:
    for section in parse(text):
        assert section.name
        assert not any(re.search(r"\s", name) for name in section.properties)


def test_a_real_storage_cfg() -> None:
    text = """\
# comment
dir: local
\tpath /var/lib/vz
\tcontent iso,vztmpl,backup
\tshared

stray property
\tof nothing
s3: cloud
        bucket  my bucket
        nodes a,b
"""
    local, cloud = parse(text)
    assert (local.kind, dict(local.properties)) == (
        "dir",
        {"path": "/var/lib/vz", "content": "iso,vztmpl,backup", "shared": "1"},
    )
    assert (cloud.name, dict(cloud.properties)) == ("cloud", {"bucket": "my bucket", "nodes": "a,b"})


@pytest.mark.parametrize("name", ["s3", "s3-backup", "B.a_c"])
def test_names(name: str) -> None:
    assert storagecfg.check_name(name) == name


@pytest.mark.parametrize("name", ["", "a", "1a", "-x", "a b", "a/b", "../x", "s3fsx", "a-", "x" * 101, "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ConfigError, match="a storage is named with a letter first"):
        storagecfg.check_name(name)


def test_prune_rules_are_written_in_one_order() -> None:
    assert storagecfg.prune("keep-weekly=4, keep-last=3") == "keep-last=3,keep-weekly=4"
    assert storagecfg.prune("keep-all=1") == "keep-all=1"
    assert storagecfg.prune(" ") == ""


def checked(section: Section) -> dict[str, object]:
    """What was translated is a configuration that a mount takes."""
    found = translate(section)
    read = dict(aliases.read(name, value, "") for name, value in found.settings.items())
    config.check(Settings(**read), dict.fromkeys(SCHEMA, ""))
    assert "hunter2" not in repr(found) + command(found, "new")
    return dict(found.settings)


def test_the_perl_plugin() -> None:
    section = Section(
        "s3",
        "old",
        {
            "endpoint": "minio.local",
            "s3_port": "9000",
            "use_ssl": "0",
            "bucket": "backups",
            "region": "eu-west-1",
            "access_key": "AKIA",
            "secret_key": "hunter2",
            "prefix": "proxmox/",
            "storage_class": "STANDARD_IA",
            "server_side_encryption": "AES256",
            "multipart_chunk_size": "100",
            "max_concurrent_uploads": "3",
            "connection_timeout": "60",
            "max_retries": "3",
            "content": "backup,images,iso",
            "max_backups": "5",
            "lifecycle_enabled": "1",
            "transition_days": "30",
            "glacier_days": "365",
            "create_bucket": "1",
            "frobnicate": "hunter2",
        },
    )
    assert checked(section) == {
        "bucket": "backups",
        "prefix": "proxmox",
        "endpoint": "http://minio.local:9000",
        "region": "eu-west-1",
        "storage_class": "STANDARD_IA",
        "sse": "AES256",
        "part_size": "100MiB",
        "max_uploads": "3",
        "attempts": "4",
        "connect_timeout": "1m",
        "memory_budget": "400MiB",
    }
    found = translate(section)
    assert (found.plugin, found.content, found.prune) == (PLUGIN, ("backup", "iso"), "keep-last=5")
    assert (found.keys and found.keys.access_key) == "AKIA"
    remarks = "\n".join(found.remarks)
    assert "frobnicate: not known, left out" in remarks
    assert "create_bucket: s3fsx never makes a bucket" in remarks
    assert "content images: left out" in remarks
    assert "s3fsx pve lifecycle NAME --transition-days 30 --glacier-days 365" in remarks
    line = command(found, "new")
    assert line.startswith("s3fsx pve setup new --endpoint http://minio.local:9000 --region eu-west-1 --bucket backups")
    assert line.endswith("--keys-file FILE")


def test_proxs3() -> None:
    section = Section(
        "s3",
        "isos",
        {"endpoint": "s3.amazonaws.com", "bucket": "isos", "use-ssl": "1", "path-style": "0", "content": "iso,vztmpl"},
    )
    assert checked(section) == {"bucket": "isos", "addressing": "virtual"}
    assert (translate(section).plugin, translate(section).keys) == (PROXS3, None)
    assert "--provider aws" in command(translate(section), "new")


def test_our_own() -> None:
    section = Section("s3fsx", "mine", {"endpoint": "https://rgw:7480", "bucket": "b-b", "prefix": "pve/"})
    assert checked(section) == {"bucket": "b-b", "prefix": "pve", "endpoint": "https://rgw:7480"}
    assert translate(section).plugin == OURS


def test_a_value_that_s3fsx_does_not_take_is_said_and_left_out() -> None:
    section = Section(
        "s3", "x", {"bucket": "b-b", "endpoint": "https://e", "multipart_chunk_size": "1", "use-ssl": "1"}
    )
    assert "part_size" not in checked(section)
    assert translate(section).remarks == ("multipart_chunk_size = '1': out of range; use 5MiB to 5GiB; left out",)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (Section("nfs", "n", {"bucket": "b"}), "n is a storage of type nfs, of none of the known S3 plugins"),
        (Section("s3", "n", {}), "n: no bucket in its section"),
        (Section("s3", "n", {"bucket": "b-b", "endpoint": "a b"}), "storage.cfg: endpoint = 'https://a b': use a URL"),
    ],
)
def test_what_cannot_be_translated(section: Section, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        translate(section)


known = st.sampled_from(
    [
        "endpoint",
        "s3_port",
        "use_ssl",
        "use-ssl",
        "bucket",
        "region",
        "prefix",
        "content",
        "prune-backups",
        "nodes",
        "access_key",
        "secret_key",
        "storage_class",
        "multipart_chunk_size",
        "max_concurrent_uploads",
        "connection_timeout",
        "max_retries",
        "path-style",
        "lifecycle_enabled",
        "maxfiles",
    ]
)


@given(st.dictionaries(known, words, max_size=8))
def test_any_section_is_translated_or_refused_in_one_line(properties: dict[str, str]) -> None:
    section = Section("s3", "x", {"bucket": "bucket", **properties, "secret_key": "hunter2-hunter2"})
    try:
        found = translate(section)
        said = repr(found) + command(found, "y") + "".join(found.remarks)
    except ConfigError as error:
        said = str(error)
    assert "hunter2" not in said
    assert "\n" not in said


@given(st.dictionaries(names, st.text(max_size=40), max_size=5))
def test_toml_is_read_back(pairs: dict[str, str]) -> None:
    import tomllib

    pairs = {k: v for k, v in pairs.items() if not any(0xD800 <= ord(c) <= 0xDFFF for c in v)}
    assert tomllib.loads(toml(pairs, "a comment")) == pairs
    assert "\n" not in quoted("a\nb")


def test_a_storage_and_its_section() -> None:
    storage = Storage("backup", "/mnt/pve/backup", ("backup", "iso"), "keep-last=3", ("n1", "n2"))
    words = storage.add()
    section = Section("dir", "backup", dict(zip([w[2:] for w in words[3::2]], words[4::2], strict=True)))
    assert existing(section) == storage
    assert storage.differs(section) == {}
    there = Section("dir", "backup", {**section.properties, "content": "iso,backup", "shared": "yes", "nodes": "n2,n1"})
    assert storage.differs(there) == {}
    there = Section("dir", "backup", {"path": "/mnt/pve/backup/", "content": "backup"})
    assert list(storage.differs(there)) == ["is_mountpoint", "shared", "content", "prune-backups", "nodes"]
    assert storage.change({"content": "iso"}) == ["set", "backup", "--content", "iso"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"prefix": "a/"}, {"prefix": "b/"}, False),
        ({"prefix": "a/"}, {"prefix": "a/b/"}, True),
        ({"prefix": ""}, {"prefix": "a/"}, True),
        ({"prefix": "a/"}, {"prefix": "ab/"}, False),
        ({"bucket": "x"}, {"bucket": "y"}, False),
        ({"endpoint": "https://e"}, {"endpoint": "https://f"}, False),
        ({"endpoint": "https://s3.eu-west-1.amazonaws.com"}, {"endpoint": ""}, True),
    ],
)
def test_storages_that_would_prune_each_others_backups(one: dict[str, str], other: dict[str, str], same: bool) -> None:
    first, second = (Settings(**{"bucket": "bbb", **given}) for given in (one, other))  # type: ignore[arg-type]
    assert overlap(first, second) is overlap(second, first) is same
