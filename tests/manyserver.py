"""A read-only S3 server that has as many objects as one likes: its listings are made up as they are asked for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.s3server import S3Server

SIZE = 1 << 30
_HEAD = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
_ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-20T12:00:00.000Z</LastModified><ETag>&quot;{number:032x}&quot;</ETag>"
    "<Size>1073741824</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def name(number: int) -> str:
    return f"vzdump-qemu-{number:08}-2026_11_20-13_15_26.vma.zst"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    counts: dict[str, int]  # prefix -> objects directly below it
    asked: Counter[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" not in query:
            return self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")
        prefix = query.get("prefix", [""])[0]
        begin = int(query.get("continuation-token", ["0"])[0])
        count = self.counts.get(prefix, 0)
        end = min(count, begin + int(query.get("max-keys", ["1000"])[0]))
        self.asked[prefix] += 1
        entries = "".join(_ENTRY.format(key=prefix + name(n), number=n) for n in range(begin, end))
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>"
        tail = more if end < count else "<IsTruncated>false</IsTruncated>"
        return self._answer(200, f"{_HEAD}{tail}{entries}</ListBucketResult>")

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def many_objects(counts: dict[str, int]) -> Iterator[tuple[S3Server, Counter[str]]]:
    """counts: objects directly below each prefix. With the server comes how often each prefix was listed."""
    asked: Counter[str] = Counter()
    handler = type("Handler", (_Handler,), {"counts": counts, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{running.server_address[1]}"
        server = S3Server("many", endpoint, "us-east-1", "key", "secret", "key2", "secret2")
        try:
            yield server, asked
        finally:
            server.client.close()
            running.shutdown()
