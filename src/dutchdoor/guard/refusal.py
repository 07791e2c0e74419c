"""The answer to a request that a guard refuses: a problem document, or for a browser that asked for a page, the way to
the page where people sign in.

    auth = Auth(app, sign_in_page="/login")

A browser that opens `/orders?page=2` without a session is sent to `/login?next=%2Forders%3Fpage%3D2`. The page sends
people back to `next_path(request.query_params.get("next"))`.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from dutchdoor.errors import DutchdoorError, Misconfigured, NotAuthenticated, StepUpRequired
from dutchdoor.web.http import Request, Response
from dutchdoor.web.problems import problem

__all__ = ["next_path", "read_sign_in_page", "refusal"]

NEXT_AT_MOST: Final = 2000
"""Characters of a path to come back to. Browsers and proxies accept that much."""
_NO_STORE: Final = (b"cache-control", b"no-store")
_PATH: Final = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path of this host: visible ASCII without a backslash. Browsers read `//host`, and `/\\host`, as another host."""


def refusal(error: DutchdoorError, asked: Request, sign_in_page: str = "", root_path: str = "") -> Response:
    """Return the answer to a request that was refused with an `error`. `root_path` is where the application is mounted.

    Nothing is redirected but a browser that opens a page: a script would follow, and take the page for its data.
    """
    if sign_in_page and isinstance(error, (NotAuthenticated, StepUpRequired)) and _opens_a_page(asked):
        back = quote(root_path + asked.path, safe="/")
        if asked.query:
            back = f"{back}?{asked.query.decode('latin-1')}"
        values = f"next={quote(back, safe='')}" if len(back) <= NEXT_AT_MOST else "next=%2F"
        if isinstance(error, StepUpRequired):
            values += "&again=1"
        joined = f"{sign_in_page}{'&' if '?' in sign_in_page else '?'}{values}"
        return Response(303, [(b"location", joined.encode("ascii")), _NO_STORE])
    answer = problem(error)
    answer.headers = [*answer.headers, _NO_STORE]
    return answer


def next_path(text: str | None, default: str = "/") -> str:
    """Return the path to send people to after they have signed in: the value of `next`, if it is a path of this host.

    Open redirect: anyone can write a link to your page with a `next` of theirs. A value that a browser would read as
    another host, or that is none, becomes the `default`.
    """
    if text is None or len(text) > NEXT_AT_MOST or not _PATH.fullmatch(text):
        return default
    return text


def read_sign_in_page(text: str) -> str:
    """Check the setting. Raises `Misconfigured` for what is no path of this host."""
    if text and not next_path(text, ""):
        raise Misconfigured(f"sign_in_page {text!r} is not a path of this host. Use one such as /login.")
    return text


def _opens_a_page(asked: Request) -> bool:
    """Whether a browser opens a page, rather than a script that asks for data."""
    if asked.method not in {"GET", "HEAD"}:
        return False  # what was to be done would be lost
    by_name: dict[bytes, bytes] = asked.by_name
    if b"authorization" in by_name:
        return False
    mode = by_name.get(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    return b"text/html" in by_name.get(b"accept", b"")
