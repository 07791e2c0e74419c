"""Device Bound Session Credentials on the wire: their headers, and what a browser learns of a session."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import UNSET, Struct, UnsetType

from dutchdoor.model.device_binding import ALGORITHMS
from dutchdoor.web.cookies import Cookies
from dutchdoor.web.http import Header, Request

__all__ = [
    "BINDS_NO_COOKIE", "OFFER", "REFRESH_PATH", "REGISTER_PATH", "UNANSWERED", "UNPROVED", "Instructions", "asks_for",
    "instructions", "offers", "why_unproved",
]  # fmt: skip

REGISTER_PATH: Final = "/auth/device-binding"
REFRESH_PATH: Final = "/auth/device-binding/refresh"
OFFER: Final = b"secure-session-registration"
UNPROVED: Final = ("none", "unreachable", "server_error", "quota_exceeded", "other", "unbound")
"""Why a request comes without a valid bound cookie. `none`: its browser says nothing of it, or a thief sends it. The
next three: what browsers say. `unbound`: the session should be bound, and is not."""
UNANSWERED: Final = frozenset({"unreachable", "server_error"})
"""Those of them by which the browser has its key, and would prove it if it got an answer."""
BINDS_NO_COOKIE: Final = (
    "device_binding is required, but browsers bind no cookie without TLS: session cookies are accepted unbound, and a "
    "copy of one works. Set an https public_url"
)
_TAKES_REFRESH: Final = "/auth"


class ScopeRule(Struct):
    """A part of the host that the bound cookie is, or is not, for."""

    type: Literal["include", "exclude"]
    domain: str
    path: str


class Scope(Struct):
    """The requests before which the browser sees to its bound cookie."""

    include_site: bool
    """False: this host alone."""
    scope_specification: list[ScopeRule]


class BoundCookie(Struct):
    """A cookie that the browser must have in the scope. Its attributes are compared with those it was set with."""

    type: Literal["cookie"]
    name: str
    attributes: str


class Instructions(Struct, rename={"goes_on": "continue"}):
    """What a browser does for a bound session (W3C, webappsec-dbsc). If `continue` is false, it forgets the session,
    and there is nothing else.
    """

    session_identifier: str
    refresh_url: str | UnsetType = UNSET
    scope: Scope | UnsetType = UNSET
    credentials: list[BoundCookie] | UnsetType = UNSET
    allowed_refresh_initiators: list[str] | UnsetType = UNSET
    """Other hosts whose pages may call this one: their requests wait for the bound cookie, too."""
    goes_on: bool | UnsetType = UNSET


def offers(challenge: str, base: str) -> Header:
    """Ask a browser to register a key."""
    words = f'({" ".join(ALGORITHMS)});path="{base}{REGISTER_PATH}";challenge="{challenge}"'
    return (OFFER, words.encode("ascii"))


def asks_for(challenge: str, session_id: str) -> Header:
    """Ask a browser to sign a challenge for one of its sessions."""
    return (b"secure-session-challenge", f'"{challenge}";id="{session_id}"'.encode("ascii"))


def why_unproved(request: Request) -> str:
    """Return what a browser says of a request that it sent without a bound cookie: one of `UNPROVED`. Anyone
    can send the header, so it permits nothing: it chooses the words of a refusal, and is counted.
    """
    said = request.header_list(b"secure-session-skipped")
    if not said:
        return "none"
    reason = said.partition(";")[0].partition(",")[0].strip()
    return reason if reason in UNPROVED[1:4] else "other"


def instructions(
    session_id: str, cookies: Cookies, base: str, origins: Collection[str], *, by_refresh_cookie: bool
) -> Instructions:
    """Return what a browser does for a session. Where a refresh cookie is the long-lived half, only the endpoints and
    pages that take it need the bound cookie: those below /auth. `origins` are those whose pages may call this server.
    """
    rules = (
        [ScopeRule("exclude", "*", "/"), ScopeRule("include", "*", base + _TAKES_REFRESH)] if by_refresh_cookie else []
    )
    bound = cookies.bound_beside(refresh=by_refresh_cookie)
    cookie = BoundCookie("cookie", bound.name, bound.attributes)
    scope = Scope(include_site=False, scope_specification=rules)
    hosts = sorted({host for origin in origins if (host := urlsplit(origin).hostname)})
    return Instructions(session_id, base + REFRESH_PATH, scope, [cookie], hosts or UNSET)
