"""The table of providers: each row makes a configuration that is taken, and what it says of file sizes is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from s3fsx.configuration import aliases
from s3fsx.configuration.config import check
from s3fsx.configuration.settings import SCHEMA, Settings
from s3fsx.errors import ConfigError
from s3fsx.pve.presets import OTHER, PRESETS, Preset, endpoint_of, find, of_endpoint
from s3fsx.service.mount import schedule

ALL = [*PRESETS.values(), OTHER]


def settings_of(preset: Preset) -> Settings:
    return Settings(bucket="backups", **dict(aliases.read(n, v, preset.name) for n, v in preset.settings.items()))


@pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.name)
def test_each_row_makes_a_configuration(preset: Preset) -> None:
    settings = settings_of(preset)
    check(settings, dict.fromkeys(SCHEMA, preset.name))
    region = preset.region or preset.regions[0]
    if preset.endpoint is not None:
        endpoint = endpoint_of(preset, region, "0123abc")
        assert SCHEMA["endpoint"].kind.parse(endpoint) == endpoint
        assert of_endpoint(endpoint) is preset
    else:
        with pytest.raises(ConfigError, match="--endpoint URL"):
            endpoint_of(preset, region)
    assert preset.source
    assert SCHEMA["region"].kind.parse(region) == region


def test_the_providers_of_the_issue_are_there() -> None:
    wanted = "aws minio ceph wasabi b2 r2 hetzner ovh scaleway digitalocean ibm garage"
    assert list(PRESETS) == wanted.split()
    assert [name for name, preset in PRESETS.items() if preset.tried] == ["ceph"]


@pytest.mark.parametrize("name", ["r2", "scaleway"])
def test_a_note_of_a_largest_file_is_what_the_schedule_gives(name: str) -> None:
    """R2 wants equal parts, Scaleway takes 1000: both limit the file, and the administrator is told the figure."""
    preset = PRESETS[name]
    plan = schedule(settings_of(preset))
    told = re.search(r"(\d+) GiB", preset.notes[0])
    assert told is not None
    assert plan.capacity() >> 30 == int(told[1])
    if name == "r2":
        assert len({plan.size(number) for number in range(1, 10_001)}) == 1
    else:
        assert plan.count == 1000


@pytest.mark.parametrize(
    ("given", "name"), [("AWS", "aws"), ("rgw", "ceph"), ("backblaze", "b2"), ("spaces", "digitalocean"), ("other", "")]
)
def test_names(given: str, name: str) -> None:
    assert find(given) is (PRESETS[name] if name else OTHER)


def test_a_provider_nobody_knows() -> None:
    with pytest.raises(ConfigError, match=r"provider 'gdrive' is not known; use one of aws, minio, .*, other"):
        find("gdrive")


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("", "aws"),
        ("https://s3.eu-west-1.amazonaws.com", "aws"),
        ("https://s3.eu-central-2.wasabisys.com", "wasabi"),
        ("https://0123.eu.r2.cloudflarestorage.com", "r2"),
        ("https://s3.example.com", "other"),
        ("https://s3.wasabisys.com.example.org", "other"),
        ("http://10.0.0.5:9000", "other"),
    ],
)
def test_the_preset_of_an_endpoint(endpoint: str, name: str) -> None:
    assert of_endpoint(endpoint).name == name


@pytest.mark.parametrize(
    ("preset", "region", "account", "why"),
    [
        ("wasabi", "", "", "Wasabi: the region is needed, such as eu-central-1, .*: --region"),
        ("r2", "auto", "", "Cloudflare R2: the account is needed: --account"),
        ("b2", "x.example.com/", "", "region 'x.example.com/': letters, digits and dashes only"),
        ("r2", "auto", "a@evil", "account 'a@evil': letters"),
    ],
)
def test_what_an_endpoint_needs(preset: str, region: str, account: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        endpoint_of(PRESETS[preset], region, account)


def test_the_manual_has_every_provider_and_every_property_of_the_storage_type() -> None:
    root = Path(__file__).parents[2]
    manual = (root / "docs" / "PROXMOX.md").read_text()
    assert [name for name in (*PRESETS, OTHER.name) if f"| `{name}` |" not in manual] == []
    plugin = (root / "contrib" / "pve" / "S3fsxPlugin.pm").read_text()
    table = plugin[plugin.index("my $PROPERTIES") : plugin.index("# Properties are common")]
    properties = re.findall(r"^    (\w+) => \{", table, re.MULTILINE)
    assert len(properties) == 15
    assert [name for name in properties if f"`{name}`" not in manual] == []
