"""Templates and static files of the pages.

`render` returns a page, and `STATIC` has the files of all pages, independent of a framework. A page is plain HTML that
works without a script. The only script writes text, never markup. So the content security policy can forbid inline code
and all Trusted Types policies (see `headers.py`).
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from dutchdoor.texts.languages import ENGLISH, Language
from dutchdoor.texts.templates import environment
from dutchdoor.web.pages.api_reference import outline

__all__ = ["STATIC", "StaticFile", "render"]

_HERE = Path(__file__).parent
_CLIENT = _HERE.parents[1] / "client" / "browser"


class StaticFile(NamedTuple):
    """A static file, as it is and compressed. `version` changes with the content."""

    content_type: str
    content: bytes
    gzipped: bytes
    version: str


def _static(name: str, content_type: str, folder: Path = _HERE / "static") -> StaticFile:
    content = (folder / name).read_bytes()
    return StaticFile(content_type, content, gzip.compress(content, mtime=0), hashlib.sha256(content).hexdigest()[:16])


STATIC: Mapping[str, StaticFile] = {
    "/assets/page.css": _static("page.css", "text/css; charset=utf-8"),
    "/assets/page.js": _static("page.js", "text/javascript; charset=utf-8"),
    "/assets/door.svg": _static("door.svg", "image/svg+xml"),
    "/auth/client.js": _static("client.min.js", "text/javascript; charset=utf-8", _CLIENT),
    "/auth/client.d.ts": _static("client.d.ts", "text/plain; charset=utf-8", _CLIENT),
}


def _asset(base: str, name: str) -> str:
    """Return the address of a static file: another one for each content, so that browsers keep it without asking."""
    path = f"/assets/{name}"
    return f"{base}{path}?v={STATIC[path].version}"


def _prose(text: str) -> Markup:
    """Escape a text, and mark text between backticks as code. The only Python code that writes markup."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(parts)
    )


def render(
    name: str,
    language: Language = ENGLISH,
    *,
    base: str = "",
    product: str = "dutchdoor",
    **values: Any,
) -> bytes:
    """Render the template of this name as UTF-8, in a language. `base` is the base path of the API, and `product` the
    name of the product. `docs` needs `document`, the OpenAPI document as a dict.

    Raises:
        jinja2.UndefinedError: a value is missing.
    """
    if name == "docs":
        values["api"] = outline(values["document"])
    values |= {"base": base, "product": product}
    values["asset"] = partial(_asset, base)
    templates = environment(_HERE / "templates", language)
    templates.filters["prose"] = _prose
    return templates.get_template(f"{name}.html").render(values).encode()
