"""Multipart uploads of one bucket: ``uploads/<id>/`` with ``upload.json``, and of each part a file and its JSON, which
names the file: the one rename of the JSON replaces both."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import S3Error
from ..model import Object, Part, Query, Upload, UploadPage
from . import files
from .space import Condition, Space

_ID = re.compile(r"[0-9a-f]{32}")


class Uploads:
    def __init__(self, space: Space) -> None:
        self._space = space
        self._root = os.path.join(space.internal, b"uploads")
        self._completing: dict[str, threading.Lock] = {}  # two at once would copy all twice, and make two versions

    def _directory(self, upload: str) -> bytes:
        if not _ID.fullmatch(upload):
            raise S3Error("NoSuchUpload", UploadId=upload)
        return os.path.join(self._root, upload.encode())

    def create(self, attributes: Object) -> Upload:
        made = Upload(secrets.token_hex(16), attributes, self._space.clock.next())
        directory = self._directory(made.id)
        new = files.temporary(self._space.temporary)
        document = {**attributes.to_json(), "initiated": made.initiated}
        try:
            files.make_directory(new, self._space.temporary)
            files.replace(os.path.join(new, b"upload.json"), json.dumps(document).encode())
            files.make_directory(self._root, self._space.internal)
            os.rename(new, directory)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        files.sync_directory(self._root)
        return made

    def get(self, upload: str, key: str | None = None) -> Upload:
        """Raises S3Error: NoSuchUpload."""
        try:
            with open(os.path.join(self._directory(upload), b"upload.json"), "rb") as file:
                document = json.load(file)
            initiated = int(document.pop("initiated"))
            found = Upload(upload, Object.from_json({"modified": initiated, **document}, 0), initiated)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            raise S3Error("NoSuchUpload", UploadId=upload) from None
        if key is not None and found.key != key:
            raise S3Error("NoSuchUpload", UploadId=upload)
        return found

    def put_part(self, upload: str, new: bytes, descriptor: int, part: Part) -> Part:
        """The file ``new`` becomes the part, and is on disk."""
        directory = self._directory(upload)
        name = b"%05d.%s" % (part.number, secrets.token_hex(8).encode())
        os.fsync(descriptor)
        part = replace(part, modified=self._space.clock.next())
        try:
            os.rename(new, os.path.join(directory, name))
            old = self._file_of(directory, part.number)
            document = {
                "file": name.decode(),
                "size": part.size,
                "etag": part.etag,
                "checksum": part.checksum,
                "modified": part.modified,
            }
            files.replace(os.path.join(directory, b"%05d.json" % part.number), json.dumps(document).encode())
        except FileNotFoundError:
            raise S3Error("NoSuchUpload", UploadId=upload) from None
        if old is not None:
            files.remove(os.path.join(directory, old))
        return part

    @staticmethod
    def _file_of(directory: bytes, number: int) -> bytes | None:
        try:
            with open(os.path.join(directory, b"%05d.json" % number), "rb") as file:
                return str(json.load(file)["file"]).encode()
        except FileNotFoundError:
            return None

    def parts(self, upload: str) -> list[tuple[Part, bytes]]:
        """In order, with their files."""
        directory = self._directory(upload)
        found = []
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            raise S3Error("NoSuchUpload", UploadId=upload) from None
        for name in names:
            if not re.fullmatch(rb"[0-9]{5}\.json", name):
                continue
            with contextlib.suppress(FileNotFoundError), open(os.path.join(directory, name), "rb") as file:
                document = json.load(file)
                path = os.path.join(directory, document.pop("file").encode())
                found.append((Part(int(name[:5]), **document), path))
        return sorted(found, key=lambda pair: pair[0].number)

    def page(self, query: Query) -> UploadPage:
        """In the order of keys, and of their beginning."""
        with contextlib.suppress(FileNotFoundError):
            found = []
            for name in os.listdir(self._root):
                with contextlib.suppress(S3Error):
                    found.append(self.get(name.decode("ascii", "replace")))
            found.sort(key=lambda upload: (upload.key.encode(), upload.initiated, upload.id))
            return _page(found, query)
        return UploadPage()

    def complete(
        self,
        upload: str,
        numbers: Sequence[int],
        finish: Callable[[list[Part]], Object],
        condition: Condition,
        versioning: str,
    ) -> Object:
        """finish: checks the parts and says what the object is. Raises S3Error."""
        with self._completing.setdefault(upload, threading.Lock()):
            made = self._assemble(upload, numbers, finish, condition, versioning)
            with contextlib.suppress(S3Error):  # aborted meanwhile: the object is there nevertheless
                self.abort(upload)
            return made

    def _assemble(
        self,
        upload: str,
        numbers: Sequence[int],
        finish: Callable[[list[Part]], Object],
        condition: Condition,
        versioning: str,
    ) -> Object:
        by_number = {part.number: (part, path) for part, path in self.parts(upload)}
        chosen = [by_number[number] for number in numbers if number in by_number]
        made = finish([part for part, _ in chosen])
        new, descriptor = self._space.new_file()
        try:
            for part, path in chosen:
                source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    files.copy_range(source, 0, part.size, descriptor)
                finally:
                    os.close(source)
            return self._space.commit(new, descriptor, made, condition, versioning)
        except FileNotFoundError:
            raise S3Error("NoSuchUpload", UploadId=upload) from None
        finally:
            os.close(descriptor)
            files.remove(new)

    def abort(self, upload: str) -> None:
        """Raises S3Error: NoSuchUpload."""
        gone = files.temporary(self._space.temporary)  # which the next start empties, were this one killed
        try:
            os.rename(self._directory(upload), gone)
        except FileNotFoundError:
            raise S3Error("NoSuchUpload", UploadId=upload) from None
        self._completing.pop(upload, None)
        files.sync_directories([self._root])
        shutil.rmtree(gone, ignore_errors=True)

    def any(self) -> bool:
        try:
            return bool(os.listdir(self._root))
        except FileNotFoundError:
            return False


def _page(found: Sequence[Upload], query: Query) -> UploadPage:
    """Behind the key ``after`` and its upload ``after_mark``."""
    uploads: list[Upload] = []
    prefixes: list[str] = []
    last: tuple[str, str] = ("", "")
    begin = 0
    if query.after:
        before = query.after.encode()
        begin = sum(1 for upload in found if upload.key.encode() < before)
        same = [upload.id for upload in found if upload.key == query.after]
        # Without a mark all uploads of that key were told; a mark that has gone meanwhile tells them again.
        if not query.after_mark:
            begin += len(same)
        elif query.after_mark in same:
            begin += same.index(query.after_mark) + 1
    for upload in found[begin:]:
        key = upload.key
        if not key.startswith(query.prefix):
            continue
        rest = key[len(query.prefix) :]
        rolled = query.prefix + rest.partition(query.delimiter)[0] + query.delimiter if query.delimiter else ""
        is_prefix = bool(query.delimiter) and query.delimiter in rest
        if is_prefix and (rolled in prefixes or rolled == query.after):
            continue
        if len(uploads) + len(prefixes) == query.limit:
            return UploadPage(tuple(uploads), tuple(prefixes), *last)
        if is_prefix:
            prefixes.append(rolled)
            last = (rolled, "")
        else:
            uploads.append(upload)
            last = (key, upload.id)
    return UploadPage(tuple(uploads), tuple(prefixes))
