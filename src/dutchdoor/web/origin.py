"""Who caused a request: our own page, a listed one, a program, or another site (CSRF).

Browsers say so themselves. `Sec-Fetch-Site` (Fetch Metadata) cannot be set by a page and is believed first; browsers
without it (before 2023) send `Origin` with every unsafe request. A caller that sends neither is no browser, or one so
old that it needs the token: whoever is authenticated *by a cookie* must send `X-CSRF-Token` besides, bound to the
session, so nothing here rests on a header's absence. A caller that authenticates in the body or by Authorization needs
no more: another site's page cannot add those.

The rules are those of Go's `net/http.CrossOriginProtection`, with two differences: the scheme counts (a page on
http://our.host is another origin), and `same-site` is refused unless listed, because a forgotten sub-domain is the
usual attacker. Left out: the Referer header, and masking the token against BREACH (we never compress).
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Set as AbstractSet

from dutchdoor.web.http import CrossSite, CsrfRefused, Request

__all__ = [
    "SAFE_METHODS",
    "check_csrf",
    "csrf_token",
    "is_handshake",
    "judge",
    "judge_handshake",
    "judge_token_in_body",
]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HANDSHAKE = frozenset({
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
})  # fmt: skip
_KEY_AT_LEAST = 32
_DOMAIN = b"dutchdoor csrf 1\0"


def judge(
    method: str, *, sec_fetch_site: str | None, origin: str | None, host_origin: str, listed: AbstractSet[str]
) -> None:
    """Let a request pass unless a browser sent it on behalf of another site.

    `host_origin` is our own origin (`Request.origin` after `Edge.admit`), `listed` the operator's exact list.

    Raises:
        CrossSite: it did.
    """
    if method in SAFE_METHODS or sec_fetch_site == "same-origin" or sec_fetch_site == "none":  # noqa: PLR1714
        return
    # "null" is every sandboxed frame and every data: document. It is in no list, but this is the place to be sure.
    if origin is not None and origin != "null" and origin in listed:
        return
    if sec_fetch_site is None and (origin is None or origin == host_origin):
        return
    raise CrossSite(f"sec-fetch-site {_short(sec_fetch_site)}, origin {_short(origin)}")


def is_handshake(request: Request) -> bool:
    """Whether a request opens a WebSocket: a GET that reads and writes, from any site, with this site's cookies.

    A proxy may drop Upgrade on its way, so any trace counts. A page can neither set nor omit the headers that begin
    with Sec-.
    """
    return (
        not _HANDSHAKE.isdisjoint(request.by_name)
        or "websocket" in (request.header_list(b"upgrade") or "").lower()
        or request.header_list(b"sec-fetch-mode") == "websocket"
    )


def judge_handshake(*, by_cookie: bool, origin: str | None, host_origin: str, listed: AbstractSet[str]) -> None:
    """Let a WebSocket handshake pass unless another site's page opened it (RFC 6455, 10.2).

    No script can add a CSRF token to one and not every browser sends Fetch Metadata with it, but every browser sends
    Origin. Who sends none is a program, and needs another proof than a cookie.

    Raises:
        CrossSite: its Origin is not ours and not listed; or it has none, and a cookie is its proof.
    """
    if origin is None and not by_cookie:
        return
    if origin is None or origin == "null" or (origin != host_origin and origin not in listed):
        raise CrossSite(f"a WebSocket handshake, origin {_short(origin)}")


def judge_token_in_body(*, sec_fetch_site: str | None, origin: str | None, listed: AbstractSet[str]) -> None:
    """Refuse a browser that asks for its refresh token in the body, unless its origin is listed.

    A script that was injected into our page is same-origin. It must not be able to ask for what the cookie hides.

    Raises:
        CrossSite: it is a browser, and its origin is not listed.
    """
    if sec_fetch_site is None and origin is None:
        return
    if origin is None or origin == "null" or origin not in listed:
        raise CrossSite(f"refresh token in the body asked for by origin {_short(origin)}")


def csrf_token(key: bytes, session_id: str) -> str:
    """Make the token that our own pages send with requests of this session. 43 characters.

    `key` is at least 32 bytes and for this purpose alone. The id of a session is no secret, so the key is what counts;
    and a token is worth nothing with another session's cookie, which is what an attacker can plant.
    """
    if len(key) < _KEY_AT_LEAST:
        raise ValueError("a CSRF key has at least 32 bytes")
    return urlsafe_b64encode(hmac.digest(key, _DOMAIN + session_id.encode("utf-8"), "sha256")).rstrip(b"=").decode()


def check_csrf(key: bytes, presented: str | None, *session_ids: str) -> None:
    """Check the X-CSRF-Token of a request that cookies of these sessions authenticate: one, save at a log-out.

    Raises:
        CsrfRefused: there is none, or it is none of theirs.
    """
    if presented is None:
        raise CsrfRefused("no token")
    # Bytes, because compare_digest refuses text that is not ASCII with a TypeError, which would be a 500.
    sent = presented.encode("utf-8", "replace")
    if not any(hmac.compare_digest(csrf_token(key, each).encode("ascii"), sent) for each in session_ids):
        raise CsrfRefused("a token that is not this session's")


def _short(value: str | None) -> str:
    return "none" if value is None else ascii(value[:100])
