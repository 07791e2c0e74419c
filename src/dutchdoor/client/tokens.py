"""The tokens of one sign-in: when a program gets new ones, and where they may go. No I/O, no clock."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from dutchdoor.errors import Misconfigured, Unavailable

__all__ = ["REFRESH_BEFORE", "Tokens", "check_url", "decode", "read_tokens"]

REFRESH_BEFORE: Final = 30.0
"""Seconds before its expiry from which an access token is refreshed; at most a tenth of its life."""

_THIS_MACHINE: Final = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")


class Tokens(Struct, frozen=True, kw_only=True):
    """What a program keeps of a sign-in. Tokens and key are secrets, and stay out of `repr`."""

    server: str
    """The URL of the server. The tokens are never sent to another one."""
    login: str
    """The account's e-mail address, for people; its id where it has none."""
    refresh_token: str
    access_token: str = ""
    expires_at: float = 0.0
    """When the access token expires, in seconds since 1970, by this machine's clock."""
    refresh_at: float = 0.0
    """From when on it is refreshed."""
    key: str = ""
    """The key that the sign-in is bound to, as `ProofKey` writes it, and a secret; "" for bearer tokens."""

    def __repr__(self) -> str:
        return f"Tokens(server={self.server!r}, login={self.login!r})"

    def is_fresh(self, now: float) -> bool:
        """Return whether the access token can be used without a refresh."""
        return bool(self.access_token) and now < self.refresh_at

    def is_valid(self, now: float) -> bool:
        """Return whether the access token has not expired."""
        return bool(self.access_token) and now < self.expires_at


def read_tokens(answer: object, *, server: str, asked_at: float, key: str = "") -> Tokens:
    """Read the answer to a sign-in or a refresh. `asked_at` is when the request was sent: a slow answer makes a token
    expire earlier here, never later. `key` is the one that was proved: a server that binds nothing does not say `DPoP`.

    Raises:
        Unavailable: it is not such an answer.
    """
    is_bound = isinstance(answer, dict) and answer.get("token_type") == "DPoP"
    match answer:
        case {"access_token": str(access), "refresh_token": str(refresh), "expires_in": int(lives_for), "user": user}:
            email, subject = (user.get("email"), user.get("id")) if isinstance(user, dict) else (None, None)
            return Tokens(
                server=server,
                login=str(email or subject or ""),
                refresh_token=refresh,
                access_token=access,
                expires_at=asked_at + lives_for,
                refresh_at=asked_at + lives_for - min(REFRESH_BEFORE, lives_for / 10),
                key=key if is_bound else "",
            )
    raise Unavailable("the answer holds no tokens")


def decode(content: bytes, where: str) -> Tokens:
    """Read stored tokens. Raises `Misconfigured` that names `where` for something else."""
    try:
        return msgspec.json.decode(content, type=Tokens)
    except msgspec.DecodeError:
        raise Misconfigured(f"{where} holds no tokens of dutchdoor. Remove it, and sign in again.") from None


def check_url(url: str) -> str:
    """Return the URL of a server without a slash at its end. Raises `Misconfigured` for plain HTTP to another machine:
    everyone on the way would read the password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or "@" in parts.netloc:
        # It may hold a password, so the message does not repeat it.
        raise Misconfigured("The server is a URL such as https://auth.example.com.")
    if parts.scheme == "http" and not _THIS_MACHINE.fullmatch(host):
        raise Misconfigured(f"http://{host} is another machine, and plain HTTP is for this one only. Use https://...")
    return url.rstrip("/")
