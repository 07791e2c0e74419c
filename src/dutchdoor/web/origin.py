"""Cross-site request forgery: find out whether a page of this server, a listed page, a program or another site caused a
request.

A page cannot set `Sec-Fetch-Site` (Fetch Metadata), so it is checked first. Browsers without it (before 2023) send
`Origin` with every unsafe request. A client that sends neither is not a browser, or a very old one. So a request that
is authenticated *by a cookie* must also carry `X-CSRF-Token`, bound to the session: no check relies on a missing
header. Credentials in the body or in Authorization need no token: a page of another site cannot add them.

The rules are those of Go's `net/http.CrossOriginProtection`, with two differences. The scheme counts: a page at
http://host is another origin than https://host. `same-site` is refused unless listed, because the usual attacker
controls a forgotten subdomain. Not used: the Referer header, and masking of the token against BREACH (responses are
never compressed).
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
    """Let a request pass unless a page of another site caused it.

    `host_origin` is the origin of this server (`Request.origin` after `Edge.admit`), `listed` the configured origins.

    Raises:
        CrossSite: a page of another site caused it.
    """
    if method in SAFE_METHODS or sec_fetch_site == "same-origin" or sec_fetch_site == "none":  # noqa: PLR1714
        return
    # "null" is the origin of every sandboxed frame and data: document, so it is refused even if a list contained it.
    if origin is not None and origin != "null" and origin in listed:
        return
    if sec_fetch_site is None and (origin is None or origin == host_origin):
        return
    raise CrossSite(f"sec-fetch-site {_short(sec_fetch_site)}, origin {_short(origin)}")


def is_handshake(request: Request) -> bool:
    """Whether a request opens a WebSocket. Any site can open one, with the cookies of this site, to read and write.

    A proxy may drop Upgrade, so any of these headers counts. A page can neither set nor omit headers that begin with
    Sec-.
    """
    return (
        not _HANDSHAKE.isdisjoint(request.by_name)
        or "websocket" in (request.header_list(b"upgrade") or "").lower()
        or request.header_list(b"sec-fetch-mode") == "websocket"
    )


def judge_handshake(*, by_cookie: bool, origin: str | None, host_origin: str, listed: AbstractSet[str]) -> None:
    """Let a WebSocket handshake pass unless a page of another site opened it (RFC 6455, 10.2).

    A script cannot add a CSRF token to a handshake, and some browsers send no Fetch Metadata with it. But every browser
    sends Origin. A client without Origin is a program, and needs another proof than a cookie.

    Raises:
        CrossSite: the Origin is neither that of this server nor listed, or it is missing and the proof is a cookie.
    """
    if origin is None and not by_cookie:
        return
    if origin is None or origin == "null" or (origin != host_origin and origin not in listed):
        raise CrossSite(f"a WebSocket handshake, origin {_short(origin)}")


def judge_token_in_body(*, sec_fetch_site: str | None, origin: str | None, listed: AbstractSet[str]) -> None:
    """Refuse a browser that asks for its refresh token in the body, unless its origin is listed.

    Cross-site scripting: an injected script has the origin of this server. It must not get a token that the HttpOnly
    cookie hides.

    Raises:
        CrossSite: the client is a browser, and its origin is not listed.
    """
    if sec_fetch_site is None and origin is None:
        return
    if origin is None or origin == "null" or origin not in listed:
        raise CrossSite(f"refresh token in the body asked for by origin {_short(origin)}")


def csrf_token(key: bytes, session_id: str) -> str:
    """Return the CSRF token of a session, 43 characters.

    `key` has at least 32 bytes and serves only this purpose: session ids are not secret. The token is bound to its
    session, so the token of an attacker's own session, which an attacker can plant, is useless with another session.
    """
    if len(key) < _KEY_AT_LEAST:
        raise ValueError("a CSRF key must have at least 32 bytes")
    return urlsafe_b64encode(hmac.digest(key, _DOMAIN + session_id.encode("utf-8"), "sha256")).rstrip(b"=").decode()


def check_csrf(key: bytes, presented: str | None, *session_ids: str) -> None:
    """Check the X-CSRF-Token of a request against these sessions. Only a log-out may have cookies of several sessions.

    Raises:
        CsrfRefused: the token is missing, or belongs to none of the sessions.
    """
    if presented is None:
        raise CsrfRefused("no token")
    # Bytes: compare_digest raises a TypeError for text that is not ASCII, which would be a 500.
    sent = presented.encode("utf-8", "replace")
    if not any(hmac.compare_digest(csrf_token(key, each).encode("ascii"), sent) for each in session_ids):
        raise CsrfRefused("a token of another session")


def _short(value: str | None) -> str:
    return "none" if value is None else ascii(value[:100])
