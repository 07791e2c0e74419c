"""Browsers without a script: whether one opens a page, sends a form, or shows what it gets."""

from __future__ import annotations

from dutchdoor.web.cors import CHECK_PATH
from dutchdoor.web.http import Request

__all__ = ["came_from_elsewhere", "opens_a_page", "sends_a_form", "wants_a_page"]

_HERE = b"same-origin"


def sends_a_form(request: Request) -> bool:
    """Whether a page sent its form by itself, without a script. Some libraries declare one for an empty body."""
    kind = request.by_name.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return request.method == "POST" and request.body != b"" and kind == b"application/x-www-form-urlencoded"


def opens_a_page(asked: Request, method: str) -> bool:
    """Whether a browser opens a page by this `method`, rather than a script that asks for data."""
    if method not in {"GET", "HEAD"}:
        return False  # what was to be done would be lost
    by_name: dict[bytes, bytes] = asked.by_name
    if b"authorization" in by_name:
        return False
    mode = by_name.get(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    return b"text/html" in by_name.get(b"accept", b"")


def came_from_elsewhere(asked: Request) -> bool:
    """Whether a browser says that a page of ours did not begin this navigation. It then came without a proof of the
    browser's key, and loading it again brings one. Without the header, nothing is known: it could go on for ever.
    """
    return asked.by_name.get(b"sec-fetch-site", _HERE) != _HERE


def wants_a_page(request: Request) -> bool:
    """Whether a problem document would mean nothing to the client: a browser that shows what it gets."""
    if request.path == CHECK_PATH:  # a proxy asks, with the headers of another request
        return False
    if sends_a_form(request):
        return b"text/html" in request.by_name.get(b"accept", b"")
    return opens_a_page(request, request.method)
