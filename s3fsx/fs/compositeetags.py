"""What a store's ETag of a completed upload is worth."""

from __future__ import annotations

import logging
import re

log = logging.getLogger("s3fsx.upload")

_SHAPE = re.compile(r".{32}-[0-9]+")


class CompositeEtags:
    """Whether a store's ETags of completed uploads are what ``composite_etag`` says: nobody knows until one was.

    Until then another one says nothing about the content (some stores number them, or digest something else), and the
    list of parts, which was compared before, is what verifies the upload.
    """

    def __init__(self) -> None:
        self._agreed = self._warned = False

    def fits(self, found: str, expected: str | None) -> bool:
        """False: it is not the object that was expected. A store that encrypts or rewrites gives ETags of another
        shape, which never say anything."""
        if expected is None or not _SHAPE.fullmatch(found):
            return True
        if found == expected:
            self._agreed = True
        elif not self._agreed and not self._warned:
            self._warned = True
            log.warning("the ETag of an upload is %s, not %s: only its parts and size are verified", found, expected)
        return found == expected or not self._agreed
