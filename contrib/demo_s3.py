"""Looks into the bucket of contrib/demo.sh that do not go through the mount.

    demo_s3.py make DIR           makes the bucket
    demo_s3.py list DIR           every object with its size, and the number of unfinished multipart uploads
    demo_s3.py uploads DIR        the keys of the unfinished multipart uploads
    demo_s3.py sha256 DIR KEY     of the object's bytes

The bucket and the keys are those in DIR/demo.toml, the server is the one in DIR/endpoint.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config


def make_client(directory: Path, endpoint: str) -> tuple[Any, str]:
    """A raw client, and the name of the bucket."""
    settings = tomllib.loads((directory / "demo.toml").read_text())
    config = Config(
        s3={"addressing_style": "path"}, proxies={}, connect_timeout=5, read_timeout=30, retries={"max_attempts": 1}
    )
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=settings["access_key"],
        aws_secret_access_key=settings["secret_key"],
        config=config,
    )
    return client, settings["bucket"]


def uploads(client: Any, bucket: str) -> list[str]:
    return [upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


def show(client: Any, bucket: str) -> None:
    internal = 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            if "/.s3fsx/" in entry["Key"]:
                internal += 1
            else:
                sys.stdout.write(f"{entry['Size']:>10} {entry['Key']}\n")
    sys.stdout.write(f"{internal:>10} objects of checksums below pve/.s3fsx/\n")
    sys.stdout.write(f"{len(uploads(client, bucket)):>10} unfinished multipart uploads\n")


def sha256(client: Any, bucket: str, key: str) -> str:
    digest = hashlib.sha256()
    for chunk in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def main(command: str, where: str, *rest: str) -> None:
    directory = Path(where)
    client, bucket = make_client(directory, (directory / "endpoint").read_text().strip())
    if command == "make":
        client.create_bucket(Bucket=bucket)
    elif command == "list":
        show(client, bucket)
    elif command == "uploads":
        sys.stdout.writelines(f"{key}\n" for key in uploads(client, bucket))
    elif command == "sha256":
        sys.stdout.write(f"{sha256(client, bucket, rest[0])}\n")
    else:
        sys.exit(f"unknown command {command}")


if __name__ == "__main__":
    main(*sys.argv[1:])
