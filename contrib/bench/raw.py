"""Plain boto3 in a process of its own: ``python -m contrib.bench.raw JOB`` with a JSON object on standard input.

What a program can reach that does nothing but move the bytes: 8 MiB at a time, with as many threads as s3fsx has by
default, payload signed where the endpoint is http (which is what makes a store check it). Prints one JSON object;
start-up and the first connection are not part of what is measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from botocore.config import Config

from s3fsx.configuration.settings import Settings

from .data import Data
from .meter import PROC, high_water

PART = 8 << 20
SMALL = 4 << 10


@dataclass(frozen=True)
class Task:
    """unit, count: the backup (data.Data). key: of the object. prefix: of the small files, or of the long list.
    number: of the small files, of the first bytes."""

    endpoint: str
    region: str
    bucket: str
    unit: str
    count: int
    key: str
    prefix: str
    number: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def upload(client: Any, task: Task) -> dict[str, float]:
    data = Data.of(Path(task.unit), task.count)
    where = {"Bucket": task.bucket, "Key": task.key}
    upload_id = client.create_multipart_upload(**where)["UploadId"]

    def part(number: int) -> dict[str, object]:
        body = data.piece((number - 1) * PART, PART)
        answer = client.upload_part(**where, UploadId=upload_id, PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    with ThreadPoolExecutor(Settings.max_uploads) as pool:
        parts = list(pool.map(part, range(1, -(-data.size // PART) + 1)))
    client.complete_multipart_upload(**where, UploadId=upload_id, MultipartUpload={"Parts": parts})
    return {}


def download(client: Any, task: Task) -> dict[str, float]:
    """Into memory and away; ranges are handed out in order, so no more than one per thread is held."""
    size = client.head_object(Bucket=task.bucket, Key=task.key)["ContentLength"]

    def part(start: int) -> int:
        wanted = f"bytes={start}-{min(start + PART, size) - 1}"
        return len(client.get_object(Bucket=task.bucket, Key=task.key, Range=wanted)["Body"].read())

    with ThreadPoolExecutor(Settings.max_downloads) as pool:
        if sum(pool.map(part, range(0, size, PART))) != size:
            raise SystemExit("the object is shorter than it says")
    return {}


def first_byte(client: Any, task: Task) -> dict[str, float]:
    """On a connection that is open: one round trip and what the store takes."""
    taken = []
    for _ in range(task.number):
        start = time.monotonic()
        client.get_object(Bucket=task.bucket, Key=task.key, Range="bytes=0-0")["Body"].read()
        taken.append(time.monotonic() - start)
    return {"first byte": median(taken), "worst": max(taken)}


def small_files(client: Any, task: Task) -> dict[str, float]:
    """One after the other, as a program does with files."""
    steps = {}
    keys = [f"{task.prefix}{n:05}" for n in range(task.number)]
    body = bytes(SMALL)

    def timed(name: str, each: Callable[[str], object]) -> None:
        start = time.monotonic()
        for key in keys:
            each(key)
        steps[name] = time.monotonic() - start

    timed("small write", lambda key: client.put_object(Bucket=task.bucket, Key=key, Body=body))
    start = time.monotonic()
    listing(client, task)
    steps["small list"] = time.monotonic() - start
    timed("small stat", lambda key: client.head_object(Bucket=task.bucket, Key=key))
    timed("small read", lambda key: client.get_object(Bucket=task.bucket, Key=key)["Body"].read())
    timed("small delete", lambda key: client.delete_object(Bucket=task.bucket, Key=key))
    return steps


def listing(client: Any, task: Task) -> dict[str, float]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=task.bucket, Prefix=task.prefix, Delimiter="/")
    found = sum(len(page.get("Contents", ())) for page in pages)
    if found != task.number:
        raise SystemExit(f"{found} objects listed, not {task.number}")
    return {}


JOBS: dict[str, Callable[[Any, Task], dict[str, float]]] = {
    "write": upload,
    "read": download,
    "first": first_byte,
    "small": small_files,
    "list": listing,
}


def main(job: str) -> None:
    task = Task(**json.load(sys.stdin))
    config = Config(
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        max_pool_connections=max(Settings.max_uploads, Settings.max_downloads),
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = boto3.client("s3", endpoint_url=task.endpoint, region_name=task.region, config=config)
    client.head_bucket(Bucket=task.bucket)
    wall, cpu = time.monotonic(), time.process_time()
    steps = JOBS[job](client, task)
    said = {
        "seconds": time.monotonic() - wall,
        "cpu_s": time.process_time() - cpu,
        "rss_peak": high_water((PROC / "self" / "status").read_text()),
        "steps": steps,
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
