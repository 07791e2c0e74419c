"""The page of the application where people sign in, and the way there and back.

A browser that opens `/orders?page=2` without a session is sent to `/login?next=%2Forders%3Fpage%3D2`. The page sends
people back to `next_path(...)` of that value. Open redirect: an attacker must not choose where that is, so it is a path
of this host, and never a URL.

Behind a proxy, `/auth/check` says where to go. Traefik and Caddy pass on its 303. nginx takes only a 401 or 403 from
its check, so it gets a 401 with the same `Location`. It names the page in X-Original-URI, which nginx's own examples
use, and the others in X-Forwarded-Uri.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import quote

from dutchdoor.errors import Misconfigured, StepUpRequired
from dutchdoor.web.browser import opens_a_page
from dutchdoor.web.http import Request, Response, forwarded_method

__all__ = [
    "CONFIRM_PATH",
    "LOGIN_PATH",
    "NEXT_AT_MOST",
    "RELOAD_PATH",
    "factors_wanted",
    "next_path",
    "next_url",
    "read_home",
    "read_sign_in_page",
    "sent_to_sign_in",
    "way_to_confirm",
    "way_to_sign_in",
]

LOGIN_PATH, CONFIRM_PATH = "/auth/login", "/auth/confirm"
NEXT_AT_MOST: Final = 2000
"""Characters of a path to come back to. Browsers and proxies accept that much."""
RELOAD_PATH: Final = "/auth/device-binding"
"""The page that loads another one again, so that the browser proves its key first."""
_PATH: Final = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path of this host: visible ASCII without a backslash. Browsers read `//host`, and `/\\host`, as another host."""


def next_path(text: str | None, default: str = "/") -> str:
    """Return the path to send people to after they have signed in: the value of `next`, if it is a path of this host.

    Open redirect: anyone can write a link to your page with a `next` of theirs. A value that a browser would read as
    another host, or that is none, becomes the `default`.
    """
    if text is None or len(text) > NEXT_AT_MOST or not _PATH.fullmatch(text):
        return default
    return text


def next_url(text: str | None, listed: Collection[str], default: str) -> str:
    """Return what `next_path` returns, or an address at one of the `listed` origins."""
    if text is None or not text.isascii() or not text.isprintable() or len(text) > NEXT_AT_MOST:
        return default
    # Compared as text: `urlsplit` raises for some of what people write into a link, and reads hosts as no browser does.
    whole = any(text == origin or text.startswith((f"{origin}/", f"{origin}?", f"{origin}#")) for origin in listed)
    if whole and " " not in text and "\\" not in text:
        return text
    return next_path(text, default)


def read_sign_in_page(text: str) -> str:
    """Check the setting. Raises `Misconfigured` for what is no path of this host."""
    if text and not next_path(text, ""):
        raise Misconfigured(f"sign_in_page {text!r} is not a path of this host. Use one such as /login.")
    return text


def read_home(text: str) -> str:
    """Check the setting. Raises `Misconfigured` for what is no path of this host."""
    if not next_path(text, ""):
        raise Misconfigured(f"home {text!r} is not a path of this host. Use one such as /orders.")
    return text


def way_to_sign_in(page: str, back: str, more: str = "") -> bytes:
    """Return the `Location` of the sign-in page, with the path to come `back` to. `more` are further parameters."""
    joined = "&" if "?" in page else "?"
    return f"{page}{joined}next={quote(next_path(back), safe='')}{more}".encode("ascii")


def way_to_confirm(page: str, back: str, error: StepUpRequired) -> bytes:
    """Return the `Location` of the page where people prove again who they are, with the path to come `back` to."""
    return way_to_sign_in(page, back, factors_wanted(error))


def factors_wanted(error: StepUpRequired) -> str:
    """Return the parameter that says how many kinds of proof are needed; "" for one."""
    return f"&factors={error.factors}" if error.factors > 1 else ""


def sent_to_sign_in(asked: Request, refusal: Response, page: str) -> Response:
    """Return the way to the sign-in `page`, for a proxy that asks about a browser that opens a page without a valid
    proof. For each other request, return the `refusal`.
    """
    by_nginx = asked.header(b"x-original-uri")
    opened = asked.header(b"x-forwarded-uri") if by_nginx is None else by_nginx
    # A sign-in page behind the check would be sent to itself, without an end.
    if not page or opened is None or opened.partition("?")[0] == page.partition("?")[0]:
        return refusal
    if not opens_a_page(asked, forwarded_method(asked)):
        return refusal
    way = (b"location", way_to_sign_in(page, opened))
    if by_nginx is None:
        return Response(303, [way])
    return Response(refusal.status, [*refusal.headers, way], refusal.body)
