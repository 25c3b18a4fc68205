"""Every setting, once. Pure.

The dataclass ``Settings`` is the table, of fields as ``schema`` makes them; ``SCHEMA`` lists them. ``aliases`` reads
what people typed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..layout import CONTENT_DIRS
from ..metrics.prices import PRICES
from ..s3.options import BUCKET_RULE, OLD_BUCKET
from ..store.objects import MAX_PART, MAX_PARTS, MIN_PART
from . import values
from .schema import Setting, row, setting
from .values import EIB, GIB, MIB, PIB

AWS_STORAGE_CLASSES = (
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "REDUCED_REDUNDANCY",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "GLACIER_IR",
    "DEEP_ARCHIVE",
    "EXPRESS_ONEZONE",
    "OUTPOSTS",
    "SNOW",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one mount. Sizes are bytes, times are seconds; paths are absolute or ""."""

    bucket: str = setting(
        "",
        values.text(f"{BUCKET_RULE} (old ones also capitals and underscores, up to 255)", f"(?:{OLD_BUCKET})?"),
        "store",
        "The bucket. It must exist; s3fsx never creates one.",
    )
    prefix: str = setting(
        "",
        values.key_prefix(),
        "store",
        "Keys of this mount start with it, so that several storages can share a bucket. Empty: the whole bucket.",
    )
    endpoint: str = setting(
        "",
        values.url(
            "a URL like https://s3.example.com or http://10.0.0.5:7480", hint=" (the name of a region goes into region)"
        ),
        "store",
        "Where the S3 service is. Empty: Amazon, by region.",
    )
    region: str = setting(
        "us-east-1",
        values.text("a region name such as eu-central-1", r"[A-Za-z0-9-]{1,64}"),
        "store",
        "The region requests are signed for. Most other stores accept us-east-1; Cloudflare R2 wants auto.",
    )
    addressing: str = setting(
        "auto",
        values.choice("auto", "path", "virtual"),
        "store",
        "path: https://host/bucket/key. virtual: https://bucket.host/key. auto: path when an endpoint outside "
        "amazonaws.com is set, virtual otherwise.",
    )
    ca_file: str = setting("", values.path(), "store", "PEM file of the authorities to trust. Empty: the system's.")
    verify_tls: bool = setting(
        True, values.flag(), "store", "Check the server's certificate. Off only for a test: keys and data are exposed."
    )
    proxy: str = setting(
        "",
        values.url("a proxy URL like http://proxy.example.com:3128", userinfo=True),
        "store",
        "HTTP proxy for the S3 requests. Empty: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment count.",
        in_repr=False,
    )

    access_key: str = setting(
        "",
        values.text("an access key id of up to 256 characters without spaces", r"[\x21-\x7e]{0,256}"),
        "credentials",
        "Access key id; needs secret_key. Without it and without credentials_file the AWS chain of botocore is asked.",
    )
    secret_key: str = setting(
        "",
        values.text("a secret of up to 1024 characters without spaces", r"[\x21-\x7e]{0,1024}"),
        "credentials",
        "Secret access key. Never as -o option, where every user of the machine can read it.",
        secret=True,
    )
    session_token: str = setting(
        "",
        values.text("a token of up to 8192 characters without spaces", r"[\x21-\x7e]{0,8192}"),
        "credentials",
        "Session token of temporary (STS) credentials. It is not renewed: for keys that change use profile or a role.",
        secret=True,
    )
    credentials_file: str = setting(
        "",
        values.path(),
        "credentials",
        "File with the keys: TOML (access_key, secret_key, session_token), one line KEY:SECRET as passwd-s3fs, "
        "or AWS style with [default]. Must belong to root or to you with mode 0600.",
    )
    profile: str = setting(
        "",
        values.text("a profile name", r"[A-Za-z0-9._@+-]{0,128}"),
        "credentials",
        "Section of an AWS style credentials_file; without credentials_file a profile of ~/.aws/config.",
    )

    storage_class: str = setting(
        "",
        values.text(
            f"{', '.join(AWS_STORAGE_CLASSES)}, or a class your own store defines", r"[A-Z0-9_-]{0,64}", upper=True
        ),
        "objects",
        "Class of new objects. Empty: the bucket's own. Objects in GLACIER or DEEP_ARCHIVE cannot be read through "
        "the mount until they are restored.",
    )
    sse: str = setting(
        "",
        values.choice("", "AES256", "aws:kms"),
        "objects",
        "Server-side encryption asked for with each upload. Empty: the bucket's own rule.",
    )
    sse_kms_key_id: str = setting(
        "",
        values.text("a KMS key id, alias or ARN", r"[A-Za-z0-9:/_-]{0,2048}"),
        "objects",
        "The KMS key; needs sse=aws:kms. Empty: the account's default key.",
    )
    layout: Mapping[str, str] = setting(
        dict,
        values.table(CONTENT_DIRS, values.key_prefix()),
        "objects",
        "Other key prefixes (below prefix) for Proxmox directories, for buckets that another tool filled.",
        default_text="each directory under its own name",
    )

    part_size: int = setting(
        8 * MIB,
        values.size(MIN_PART, MAX_PART),
        "transfer",
        "Size of the first parts of a multipart upload. A file smaller than one part is sent with a single PUT.",
    )
    part_profile: str = setting(
        "growing",
        values.choice("growing", "uniform"),
        "transfer",
        "growing: parts grow with the offset, so that 5 TiB fit. uniform: all the same size, which Cloudflare R2 "
        "insists on; a file then ends at 10 000 parts, 78 GiB with 8 MiB.",
    )
    max_parts: int = setting(
        MAX_PARTS,
        values.integer(100, MAX_PARTS),
        "transfer",
        "Parts that the store takes for one upload, where it takes fewer than Amazon (Scaleway: 1000). They grow "
        "sooner then; the largest file is smaller all the same.",
    )
    max_uploads: int = setting(
        16,
        values.integer(1, 64),
        "transfer",
        "Parts sent at the same time, over all files, at most: it begins with 4 and takes more where that is faster.",
    )
    max_downloads: int = setting(
        8, values.integer(1, 64), "transfer", "Ranges fetched at the same time, over all files."
    )
    attempts: int = setting(
        5, values.integer(1, 20), "transfer", "How often a request is tried in all, within its deadline."
    )

    verify_reads: bool = setting(
        True,
        values.flag(),
        "transfer",
        "Compare what is read with checksums: the ETag of objects of up to 8 MiB, the sums that s3fsx keeps of larger "
        "ones it wrote. Off: the wire and the store are trusted, and small objects are still fetched whole.",
    )

    connect_timeout: float = setting(5.0, values.duration(0.1, 300), "deadlines", "To reach the endpoint, per attempt.")
    read_timeout: float = setting(
        30.0, values.duration(0.1, 3600), "deadlines", "Silence on a connection that ends an attempt."
    )
    metadata_deadline: float = setting(
        10.0,
        values.duration(1, 300),
        "deadlines",
        "For lookups, listings, deletes and the like, all attempts included.",
    )
    read_deadline: float = setting(
        60.0, values.duration(1, 3600), "deadlines", "For one range that a reader waits for."
    )
    write_deadline: float = setting(
        120.0,
        values.duration(1, 3600),
        "deadlines",
        "For one part to be sent; also how long a write may wait for room.",
    )
    publish_deadline: float = setting(
        600.0,
        values.duration(1, 86400),
        "deadlines",
        "For close, fsync or rename to make a file visible, its last parts and the verification included.",
    )
    outage_patience: float = setting(
        30.0,
        values.duration(1, 3600),
        "deadlines",
        "How long a store that is down is waited for by what is under way, but for parts being sent, which go on for "
        "write_deadline. Meanwhile other programs may hang that use the same directory.",
    )

    memory_budget: int = setting(
        128 * MIB,
        values.size(64 * MIB, 1024 * GIB),
        "limits",
        "Bytes of file data held in memory, over all files; each file being written has 6 MiB of it, and one that has "
        "not is refused at open.",
    )
    read_ahead: int = setting(
        64 * MIB,
        values.size(0, 16 * GIB),
        "limits",
        "How far a sequential reader is run ahead of, where 16 MiB are not enough for it not to wait; at most half the "
        "memory budget. 0: not at all.",
    )
    cache_dir: str = setting(
        "/var/cache/s3fsx",
        values.path(required=True),
        "limits",
        "Metadata cache and block cache; may be deleted while nothing is mounted.",
    )
    cache_size: int = setting(
        256 * MIB, values.size(16 * MIB, 64 * GIB), "limits", "Limit of the metadata cache on disk."
    )
    block_cache_size: int = setting(
        GIB,
        values.size(0, 64 * GIB),
        "limits",
        "Limit of the block cache on disk: what was read at random places, kept for the next time. 0: none.",
    )
    block_cache_dirs: tuple[str, ...] = setting(
        ("template", "images", "import"),
        values.names(CONTENT_DIRS),
        "limits",
        "Directories whose files (above 1 MiB) are in the block cache, with what is below them.",
    )
    block_cache_reserve: int = setting(
        GIB,
        values.size(0, EIB),
        "limits",
        "Free space that the block cache leaves on its disk; never less than a tenth of the disk.",
    )
    state_dir: str = setting(
        "/var/lib/s3fsx",
        values.path(required=True),
        "limits",
        "Journal of unfinished uploads and renames; needed after a crash.",
    )
    runtime_dir: str = setting("/run/s3fsx", values.path(required=True), "limits", "Status sockets.")

    list_ttl: float = setting(
        5.0, values.duration(0, 3600), "files", "How long a listing is believed: the delay to see what other nodes did."
    )
    attr_ttl: float = setting(
        5.0, values.duration(0, 3600), "files", "How long size, time and mode of a file are believed."
    )
    pending_limit: float = setting(
        3600.0,
        values.duration(10, 7 * 86400),
        "files",
        "How long a closed temporary name (vzdump's .dat) waits for its rename before it is published as it is.",
    )
    rename_limit: int = setting(
        1000,
        values.integer(0, 100_000),
        "files",
        "Objects in a directory that rename still moves; more is EXDEV, and mv copies file by file.",
    )
    uid: int = setting(
        os.getuid,
        values.integer(0, 2**32 - 2),
        "files",
        "Owner of files without one.",
        default_text="the mounting user",
    )
    gid: int = setting(
        os.getgid,
        values.integer(0, 2**32 - 2),
        "files",
        "Group of files without one.",
        default_text="the mounting user's",
    )
    umask: int = setting(0o022, values.mode(0o777), "files", "Bits cleared from the two modes below.")
    file_mode: int = setting(0o644, values.mode(), "files", "Mode of files that have none in their metadata.")
    dir_mode: int = setting(0o755, values.mode(), "files", "Mode of directories that have none in their metadata.")
    allow_other: bool = setting(
        lambda: os.getuid() == 0,
        values.flag(),
        "files",
        "Let other users in, subject to the modes. Proxmox needs it for guests that do not run as root.",
        default_text="true when mounted by root",
    )
    read_only: bool = setting(False, values.flag(), "files", "Nothing is written to the bucket; also -o ro.")
    noexec: bool = setting(
        False, values.flag(), "files", "No program on the mount can be run; breaks hook scripts in snippets/."
    )
    xattrs: bool = setting(
        True,
        values.flag(),
        "files",
        "Show key, ETag, storage class and legal hold as user.s3fsx.* attributes. Off spares one request per write(2).",
    )
    capacity: int = setting(
        PIB, values.size(GIB, EIB), "files", "Size that df and Proxmox show: S3 has none of its own."
    )

    log_level: str = setting("info", values.choice("debug", "info", "warning", "error"), "daemon", "What is logged.")
    log_file: str = setting(
        "",
        values.path(),
        "daemon",
        "Log file, moved to FILE.1 at 16 MiB (logrotate may do it earlier). Empty: the system's log (/dev/log), or "
        "stderr in the foreground.",
    )

    metrics_listen: str = setting(
        "",
        values.listen(),
        "metrics",
        "Where Prometheus may ask for /metrics. Empty: nowhere. There is no password and no TLS.",
    )
    metrics_public: bool = setting(
        False, values.flag(), "metrics", "Allow metrics_listen an address that other machines can reach."
    )
    metrics_textfile: str = setting(
        "",
        values.path(),
        "metrics",
        "Directory of node_exporter's textfile collector, for a file that is written every 15 s. Empty: none.",
    )
    prices: Mapping[str, float] = setting(
        dict,
        values.table(PRICES, values.price()),
        "metrics",
        "What the store bills, for the metrics of costs: put, get, delete per 1000 requests, sent_gb, received_gb per "
        "10^9 bytes. What is left out costs as at Amazon.",
        default_text="Amazon's",
    )


SCHEMA: Mapping[str, Setting] = {field.name: row(field) for field in dataclasses.fields(Settings)}


def show(name: str, value: object) -> str:
    """A parsed value as text; secrets and the password of a proxy as ****."""
    row = SCHEMA[name]
    if row.secret:
        return "****" if value else ""
    shown = row.kind.show(value)
    return values.without_userinfo(shown) if name == "proxy" else shown
