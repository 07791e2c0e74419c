"""The few pages for people: what runs here, the first administrator, a confirmed address, a new password, the API.

Framework-free: `render` gives a page, `STATIC` the files it needs. A page is plain HTML that says what it is for
without any script; the one script sends forms as JSON and writes text, never markup, so that the policy "nothing
inline, Trusted Types on, no policy allowed" holds (see `headers.py`).

A one-time token stands behind the `#` of a link. No browser sends that part to a server or in a Referer; the script
takes it out of the address bar and the history first of all, and a person has to press a button before it is used, so
that a mail filter that opens links uses nothing up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dutchdoor.web.pages.api_reference import outline

__all__ = ["PAGES", "STATIC", "StaticFile", "render"]

PAGES: Mapping[str, str] = {
    "/": "landing",
    "/setup": "setup",
    "/verify-email": "verify_email",
    "/reset-password": "reset_password",
    "/docs": "docs",
}
"""Where each page stands. The paths of links in mail are among them."""

_HERE = Path(__file__).parent


class StaticFile(NamedTuple):
    """A file as it is sent. `etag` is quoted, and changes with the content."""

    content_type: str
    content: bytes
    etag: str


def _static(name: str, content_type: str) -> StaticFile:
    content = (_HERE / "static" / name).read_bytes()
    return StaticFile(content_type, content, f'"{hashlib.sha256(content).hexdigest()[:16]}"')


STATIC: Mapping[str, StaticFile] = {
    "/assets/page.css": _static("page.css", "text/css; charset=utf-8"),
    "/assets/page.js": _static("page.js", "text/javascript; charset=utf-8"),
    "/assets/door.svg": _static("door.svg", "image/svg+xml"),
}


def _prose(text: str) -> Markup:
    """Escape a text, with what stands between backticks as code. The one place where we write markup ourselves."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(parts)
    )


_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["prose"] = _prose


def render(name: str, *, product: str = "dutchdoor", docs: bool = True, **values: Any) -> bytes:
    """Write one page of `PAGES` as UTF-8. `docs`: whether there is a page that describes the API, to link to.

    Values beside `product`, the name people know this by: `setup`, `reset_password` and `verify_email` take
    `password_minimum` (characters), `docs` takes `document` (the OpenAPI document as a dict), the others take none.

    Raises:
        jinja2.UndefinedError: a value is missing.
    """
    if name == "docs":
        values["api"] = outline(values["document"])
    return _TEMPLATES.get_template(f"{name}.html").render(values, product=product, docs=docs).encode()
