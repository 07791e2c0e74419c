"""The files that pages link: the sheet, the script, the picture, and the browser client."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["STATIC", "StaticFile", "static"]

_STATIC = Path(__file__).parent / "static"
_CLIENT = Path(__file__).parents[2] / "client" / "browser"


class StaticFile(NamedTuple):
    """A static file, as it is and compressed. `version` changes with the content."""

    content_type: str
    content: bytes
    gzipped: bytes
    version: str


def static(content: bytes, content_type: str) -> StaticFile:
    return StaticFile(content_type, content, gzip.compress(content, mtime=0), hashlib.sha256(content).hexdigest()[:16])


STATIC: Mapping[str, StaticFile] = {
    "/assets/page.css": static((_STATIC / "page.css").read_bytes(), "text/css; charset=utf-8"),
    "/assets/page.js": static((_STATIC / "page.js").read_bytes(), "text/javascript; charset=utf-8"),
    "/assets/key.js": static((_STATIC / "key.js").read_bytes(), "text/javascript; charset=utf-8"),
    "/assets/passkey.js": static((_STATIC / "passkey.js").read_bytes(), "text/javascript; charset=utf-8"),
    "/assets/door.svg": static((_STATIC / "door.svg").read_bytes(), "image/svg+xml"),
    "/auth/client.js": static((_CLIENT / "client.min.js").read_bytes(), "text/javascript; charset=utf-8"),
    "/auth/client.d.ts": static((_CLIENT / "client.d.ts").read_bytes(), "text/plain; charset=utf-8"),
}
