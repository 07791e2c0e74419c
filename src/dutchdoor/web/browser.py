"""Browsers without a script: whether one sends a form or shows what it gets, and where it goes on to."""

from __future__ import annotations

from collections.abc import Collection

from dutchdoor.web.cors import CHECK_PATH
from dutchdoor.web.http import Request
from dutchdoor.web.sign_in_page import NEXT_AT_MOST, next_path, opens_a_page

__all__ = ["next_url", "sends_a_form", "wants_a_page"]


def sends_a_form(request: Request) -> bool:
    """Whether a page sent its form by itself, without a script. Some libraries declare one for an empty body."""
    kind = request.by_name.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return request.method == "POST" and request.body != b"" and kind == b"application/x-www-form-urlencoded"


def wants_a_page(request: Request) -> bool:
    """Whether a problem document would mean nothing to the client: a browser that shows what it gets."""
    if request.path == CHECK_PATH:  # a proxy asks, with the headers of another request
        return False
    if sends_a_form(request):
        return b"text/html" in request.by_name.get(b"accept", b"")
    return opens_a_page(request, request.method)


def next_url(text: str | None, listed: Collection[str], default: str) -> str:
    """Return what `next_path` returns, or an address at one of the `listed` origins."""
    if text is None or not text.isascii() or not text.isprintable() or len(text) > NEXT_AT_MOST:
        return default
    # Compared as text: `urlsplit` raises for some of what people write into a link, and reads hosts as no browser does.
    whole = any(text == origin or text.startswith((f"{origin}/", f"{origin}?", f"{origin}#")) for origin in listed)
    if whole and " " not in text and "\\" not in text:
        return text
    return next_path(text, default)
