"""The patterns of the lab, as data: how a browser signs in, what a thief can copy, and what to say about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from dutchdoor.texts import mark

__all__ = ["BY_ID", "PATTERNS", "PIECES", "Pattern", "PatternId", "Piece", "Where"]

PatternId = Literal["session", "hybrid-cookie", "hybrid", "bound", "jwt", "plain"]
Piece = Literal["cookie", "access_token", "refresh_token"]
"""Something that a browser holds, and that a thief can copy."""
Where = Literal["authority", "service"]
"""A server to send it to: the sign-in server, or another service."""

PIECES: Final[Mapping[Piece, str]] = {
    "cookie": mark("cookie"),
    "access_token": mark("access token"),
    "refresh_token": mark("refresh token"),
}


_RENEWS: Final = mark("A copy gets access tokens, until the owner logs out or the server notices the theft.")
_SENDS: Final = mark("A copy sends requests as the owner, for minutes: until it expires or is revoked.")

_WORTHLESS: Final = mark("A copy alone is refused: each use needs a proof by the key of the owner's device.")


class Pattern(Struct, frozen=True, kw_only=True):
    """One pattern. `asks` is what a log-in asks for, beside the password."""

    id: PatternId
    title: str
    says: str
    shows: str
    """What a reader is to see here, in one sentence."""
    asks: Mapping[str, str]
    pieces: Mapping[Piece, str]
    """What a thief can copy, and what a copy is good for."""
    words: tuple[str, ...]
    """Those of the glossary that its part of the page uses."""
    by_page: bool = False
    """Whether a page signs in, which a browser gives a cookie, and not a program."""
    bound: bool = False
    """Whether a key of the owner's browser proves each request."""
    renews: bool = False
    """Whether there is a refresh token."""
    wheres: tuple[Where, ...] = ("authority", "service")
    """The servers that know it."""


PATTERNS: Final = (
    Pattern(
        id="session",
        title=mark("Session"),
        says=mark("The server stores a row. The browser holds a cookie that names it."),
        shows=mark(
            "A script cannot read the cookie. A stolen copy works until the log-out, and the next request is refused."
        ),
        asks={"mode": "session"},
        pieces={"cookie": mark("A copy can do all that the owner can.")},
        words=("cookie", "look-up", "session", "site", "XSS"),
        by_page=True,
        wheres=("authority",),
    ),
    Pattern(
        id="hybrid-cookie",
        title=mark("Hybrid by cookie"),
        says=mark("An access token for minutes, and a refresh token in a cookie that scripts cannot read."),
        shows=mark(
            "A script can steal the access token, which lives for minutes. The refresh token stays out of its reach."
        ),
        asks={"mode": "hybrid", "transport": "cookie"},
        pieces={"cookie": _RENEWS, "access_token": _SENDS},
        words=("access token", "cookie", "fence", "hybrid", "refresh token", "Verifier", "XSS"),
        by_page=True,
        renews=True,
    ),
    Pattern(
        id="hybrid",
        title=mark("Hybrid by body"),
        says=mark("The same for an app or a program, which keeps the refresh token itself."),
        shows=mark("The refresh token changes with each use. Let owner and thief take turns: the server notices."),
        asks={"mode": "hybrid", "transport": "body"},
        pieces={"refresh_token": _RENEWS, "access_token": _SENDS},
        words=("access token", "body", "fence", "hybrid", "refresh token", "revoked", "Verifier"),
        renews=True,
    ),
    Pattern(
        id="bound",
        title=mark("Hybrid, bound to a device"),
        says=mark("The same, and a key that never leaves the owner's device signs a proof of each request (DPoP)."),
        shows=mark("Copies of both tokens are worth nothing without the key, and the owner does not even notice."),
        asks={"mode": "hybrid", "transport": "body"},
        pieces={"refresh_token": _WORTHLESS, "access_token": _WORTHLESS},
        words=("access token", "DPoP", "hybrid", "refresh token", "signature", "Verifier"),
        renews=True,
        bound=True,
    ),
    Pattern(
        id="jwt",
        title=mark("JWT with fence"),
        says=mark("A signed access token alone. No row is stored; services follow the list of what was revoked."),
        shows=mark("Nothing is stored until the log-out: it writes one entry, and each Verifier refuses the token."),
        asks={"mode": "jwt"},
        pieces={"access_token": _SENDS},
        words=("access token", "fence", "jwt", "lease", "revoked", "signature", "Verifier"),
    ),
    Pattern(
        id="plain",
        title=mark("Plain JWT"),
        says=mark("HS256, one secret, valid until it expires: what most tutorials build. It is not of dutchdoor."),
        shows=mark("The server stores nothing, so a log-out only deletes the copy of the owner. The thief goes on."),
        asks={},
        pieces={"access_token": mark("A copy sends requests as the owner until it expires, whatever the owner does.")},
        words=("access token", "expires", "HS256", "log-out", "signature"),
        wheres=("service",),
    ),
)  # fmt: skip

BY_ID: Final[Mapping[str, Pattern]] = {each.id: each for each in PATTERNS}
