"""What is known of the providers, in one table. Pure.

A preset fills in what an administrator would have to look up: endpoint, region, and the settings without which the
store refuses or loses something. Everything else a store can or cannot do is found out by the probe at each mount,
which needs no preset. ``source`` says where a row comes from; but for Ceph RGW 16 none of it was run against the
provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from ..errors import ConfigError

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Preset:
    """name: as typed. endpoint: a URL with {region} and {account} in it; "" for Amazon, which botocore knows by region;
    None where only the administrator knows it. region: the default, "" where there is none. regions: some of them, for
    the message that asks. settings: as in a configuration file. notes: what to know before backups go there. tried:
    run against by the tests.
    """

    name: str
    title: str
    endpoint: str | None
    region: str
    source: str
    regions: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    notes: tuple[str, ...] = ()
    tried: bool = False

    @property
    def needs_account(self) -> bool:
        return "{account}" in (self.endpoint or "")


_VERSIONS = "Object Lock only on buckets made with it; there .protected is a legal hold"

_ROWS = (
    # Limits and conditions: docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html, conditional-requests.html.
    Preset(
        "aws",
        "Amazon S3",
        "",
        "us-east-1",
        "docs.aws.amazon.com",
        regions=("eu-central-1", "eu-west-1", "us-east-1", "us-west-2"),
        notes=(_VERSIONS,),
    ),
    # docs.min.io, S3 API compatibility: "ListMultipartUploads requires the exact object name as a prefix".
    Preset(
        "minio",
        "MinIO",
        None,
        "us-east-1",
        "docs.min.io",
        settings={"addressing": "path"},
        notes=(
            "it lists unfinished uploads only by the exact key: one whose id was lost in a crash is not found by "
            "s3fsx recover; MinIO itself removes it after a day",
            _VERSIONS,
        ),
    ),
    # Measured, tests/contract: checks SHA-256, ignores a wrong x-amz-checksum-crc32, answers 403 for a missing key to
    # keys that see a prefix only.
    Preset(
        "ceph",
        "Ceph RGW",
        None,
        "us-east-1",
        "the tests of s3fsx, Ceph RGW 16",
        settings={"addressing": "path"},
        notes=(_VERSIONS,),
        tried=True,
    ),
    # Endpoints: rclone, backend/s3/provider/Wasabi.yaml. 90 days: docs.wasabi.com, "90-Day Storage Policy".
    Preset(
        "wasabi",
        "Wasabi",
        "https://s3.{region}.wasabisys.com",
        "",
        "docs.wasabi.com",
        regions=("eu-central-1", "eu-central-2", "eu-west-1", "us-east-1", "us-west-1"),
        notes=(
            "objects are billed for 90 days at least: pruning earlier saves nothing",
            "traffic out of it should stay below what is stored, or they may limit the account: mind many restores",
            _VERSIONS,
        ),
    ),
    # backblaze.com/apidocs: https only, v4 signatures, no master key; calls listed there. If-None-Match on PutObject
    # is answered NotImplemented: sathinduga/obsidian-s3-sync-and-backup#78; Proxmox Backup Server has a switch for it.
    Preset(
        "b2",
        "Backblaze B2",
        "https://s3.{region}.backblazeb2.com",
        "",
        "backblaze.com/apidocs",
        regions=("us-west-004", "us-east-005", "eu-central-003"),
        notes=(
            "the region is in the endpoint that B2 shows for the bucket; the keys are an application key, not the "
            "master key",
            "B2 knows no conditional writes: of two nodes that create a name at the same moment the later one wins",
            "B2 keeps old versions of what is deleted or overwritten, and bills them: set the bucket's lifecycle to "
            "'keep only the last version', or to as many days as you want to be able to go back",
        ),
    ),
    # developers.cloudflare.com/r2/objects/multipart-objects ("All parts except the last one must be the same size"),
    # r2/api/s3/api (region auto; no Object Lock). 64 MiB x 10 000 parts = 625 GiB.
    Preset(
        "r2",
        "Cloudflare R2",
        "https://{account}.r2.cloudflarestorage.com",
        "auto",
        "developers.cloudflare.com/r2",
        regions=("auto",),
        settings={
            "addressing": "path",
            "part_profile": "uniform",
            "part_size": "64MiB",
            "memory_budget": "512MiB",
        },
        notes=(
            "all parts of an upload have the same size there: a file has at most 10 000 x part_size, 625 GiB; larger "
            "ones need a larger part_size, and four times that as memory_budget",
            "no Object Lock through S3: .protected is Proxmox's mark only; R2's own bucket locks hold, but then prune "
            "fails until they end",
            "unfinished uploads are aborted after 7 days, unless the bucket's lifecycle says otherwise",
        ),
    ),
    # docs.hetzner.com/storage/object-storage/supported-actions: CopyObject "may fail, even if the buckets are in the
    # same location"; SSE-C only. Endpoints: rclone, Hetzner.yaml.
    Preset(
        "hetzner",
        "Hetzner Object Storage",
        "https://{region}.your-objectstorage.com",
        "",
        "docs.hetzner.com",
        regions=("fsn1", "nbg1", "hel1"),
        notes=(
            "sse must stay empty: only encryption with keys of the customer is supported",
            "a copy inside the store may fail, they say: renaming and chmod by hand may then fail; vzdump's rename is "
            "no copy",
            _VERSIONS,
        ),
    ),
    # ovh/docs, s3_limitations and s3_location; endpoints: rclone, OVHcloud.yaml. The regions in the USA end in .us.
    Preset(
        "ovh",
        "OVHcloud Object Storage",
        "https://s3.{region}.io.cloud.ovh.net",
        "",
        "github.com/ovh/docs, object_storage",
        regions=("gra", "rbx", "sbg", "eu-west-par", "de", "uk", "waw", "bhs", "ca-east-tor", "sgp"),
        notes=(
            "1 Gbit/s for each connection; 300 PUT and 900 GET a second for each bucket",
            "in the USA the endpoint is https://s3.REGION.io.cloud.ovh.us: give it with --endpoint",
            _VERSIONS,
        ),
    ),
    # scaleway.com/en/docs/object-storage/api-cli/multipart-uploads: 1 to 1000 parts, 5 TB.
    Preset(
        "scaleway",
        "Scaleway Object Storage",
        "https://s3.{region}.scw.cloud",
        "",
        "scaleway.com/en/docs/object-storage",
        regions=("fr-par", "nl-ams", "pl-waw", "it-mil"),
        settings={"max_parts": "1000", "part_size": "64MiB", "memory_budget": "512MiB"},
        notes=(
            "an upload has at most 1000 parts there: with 64 MiB parts and a memory_budget of 512 MiB a file has at "
            "most 206 GiB; larger ones need more of both",
            _VERSIONS,
        ),
    ),
    # docs.digitalocean.com/products/spaces/reference/s3-compatibility. Nothing about Object Lock there.
    Preset(
        "digitalocean",
        "DigitalOcean Spaces",
        "https://{region}.digitaloceanspaces.com",
        "",
        "docs.digitalocean.com/products/spaces",
        regions=("fra1", "ams3", "lon1", "nyc3", "sfo3", "sgp1", "syd1", "tor1", "blr1"),
        notes=(
            "sse must stay empty: only encryption with keys of the customer is supported",
            "lifecycle rules can delete, not move to another class: s3fsx pve lifecycle is refused there",
        ),
    ),
    # cloud.ibm.com/docs/cloud-object-storage: basics-large-objects, compatibility-api; path style: rclone, IBMCOS.yaml.
    Preset(
        "ibm",
        "IBM Cloud Object Storage",
        "https://s3.{region}.cloud-object-storage.appdomain.cloud",
        "",
        "cloud.ibm.com/docs/cloud-object-storage",
        regions=("eu-de", "eu-gb", "us-south", "us-east", "jp-tok", "au-syd", "eu", "us"),
        settings={"addressing": "path"},
        notes=(
            "the keys are HMAC credentials of a service credential, not an IAM API key",
            "its own multipart ETags differ from Amazon's: an upload is verified by the list of its parts and its size",
        ),
    ),
    # garagehq.deuxfleurs.fr, S3 compatibility: no versioning, no ACLs, SSE-C only. Ignores If-None-Match: seen by
    # livery_s3 (hex.pm), CHANGELOG 0.2.0. The region is what garage.toml says; its documentation uses garage.
    Preset(
        "garage",
        "Garage",
        None,
        "garage",
        "garagehq.deuxfleurs.fr",
        settings={"addressing": "path"},
        notes=(
            "no Object Lock, no versioning: whoever has the keys can delete; .protected is Proxmox's mark only",
            "Garage ignores conditional writes: two nodes that create the same name at the same moment, the later one "
            "wins",
        ),
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ROWS})
OTHER = Preset("other", "another S3 store", None, "us-east-1", "the probe tells")

_ALIASES = {
    "amazon": "aws",
    "s3": "aws",
    "rgw": "ceph",
    "backblaze": "b2",
    "cloudflare": "r2",
    "ovhcloud": "ovh",
    "spaces": "digitalocean",
    "do": "digitalocean",
    "ibmcos": "ibm",
}
_PLACE = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"


def find(name: str) -> Preset:
    """The preset of a name or one of its aliases. Raises ConfigError that lists them."""
    key = name.strip().lower()
    if key == OTHER.name:
        return OTHER
    preset = PRESETS.get(_ALIASES.get(key, key))
    if preset is None:
        raise ConfigError(f"provider {name[:40]!r} is not known; use one of {', '.join((*PRESETS, OTHER.name))}")
    return preset


def of_endpoint(endpoint: str) -> Preset:
    """The preset whose endpoints look like this one; OTHER where none does. "" is Amazon."""
    if not endpoint:
        return PRESETS["aws"]
    host = urlsplit(endpoint).hostname or ""
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return PRESETS["aws"]
    for preset in PRESETS.values():
        if preset.endpoint:
            pattern = re.escape(urlsplit(preset.endpoint).netloc).replace(r"\{region\}", _PLACE)
            if re.fullmatch(pattern.replace(r"\{account\}", r"[A-Za-z0-9.-]+"), host):
                return preset
    return OTHER


def endpoint_of(preset: Preset, region: str, account: str = "") -> str:
    """The endpoint's URL. Raises ConfigError for what is missing, or is no part of a host name."""
    if preset.endpoint is None:
        raise ConfigError(f"{preset.title}: its endpoint is needed, such as https://s3.example.com: --endpoint URL")
    for needed, value, what in (("{region}", region, "region"), ("{account}", account, "account")):
        if needed not in preset.endpoint:
            continue
        if not value:
            some = f", such as {', '.join(preset.regions)}" if what == "region" and preset.regions else ""
            raise ConfigError(f"{preset.title}: the {what} is needed{some}: --{what}")
        if not re.fullmatch(_PLACE, value):
            raise ConfigError(f"{what} {value[:40]!r}: letters, digits and dashes only")
    return preset.endpoint.format(region=region, account=account)
