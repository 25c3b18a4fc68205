"""Plain boto3 in a process of its own: ``python -m contrib.bench.raw write|read ENDPOINT REGION BUCKET KEY FILE``.

What a program can reach that does nothing but move the bytes: 4 threads x 8 MiB, payload signed (which is what makes a
store check them). Prints one JSON object; start-up is not part of it.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from .meter import PROC, high_water

THREADS = 4
PART = 8 << 20


def upload(client: Any, bucket: str, key: str, source: Path) -> None:
    where = {"Bucket": bucket, "Key": key}
    upload_id = client.create_multipart_upload(**where)["UploadId"]

    def part(number: int) -> dict[str, object]:
        with source.open("rb", buffering=0) as file:
            file.seek((number - 1) * PART)
            body = file.read(PART)
        answer = client.upload_part(**where, UploadId=upload_id, PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    count = -(-source.stat().st_size // PART)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(part, range(1, count + 1)))
    client.complete_multipart_upload(**where, UploadId=upload_id, MultipartUpload={"Parts": parts})


def download(client: Any, bucket: str, key: str, size: int) -> None:
    """Into memory and away; ranges are handed out in order, so no more than one per thread is held."""

    def part(start: int) -> int:
        wanted = f"bytes={start}-{min(start + PART, size) - 1}"
        return len(client.get_object(Bucket=bucket, Key=key, Range=wanted)["Body"].read())

    with ThreadPoolExecutor(THREADS) as pool:
        if sum(pool.map(part, range(0, size, PART))) != size:
            raise SystemExit("the object is shorter than what was written")


def main(job: str, endpoint: str, region: str, bucket: str, key: str, file: str) -> None:
    config = Config(
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        max_pool_connections=THREADS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = boto3.client("s3", endpoint_url=endpoint, region_name=region, config=config)
    client.head_bucket(Bucket=bucket)
    source = Path(file)
    wall, cpu = time.monotonic(), time.process_time()
    if job == "write":
        upload(client, bucket, key, source)
    else:
        download(client, bucket, key, source.stat().st_size)
    said = {
        "seconds": time.monotonic() - wall,
        "cpu_s": time.process_time() - cpu,
        "rss_peak": high_water((PROC / "self" / "status").read_text()),
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
