"""One-time tokens, for links in mail and for set-up. Single-use, bound to one purpose, short-lived.

Only a hash is stored. The purpose is in the row and in the hash, so that a token mailed to verify an address cannot
reset a password. The mailed address is in the row, so that the token becomes invalid when the account's address
changes.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from dutchdoor.errors import InvalidToken
from dutchdoor.model.ids import Opaque, new_id

__all__ = ["PAYLOAD_AT_MOST", "OneTimeSecret", "OneTimeToken", "Purpose", "check", "issue"]

Purpose = Literal[
    "reset_password", "verify_email", "change_email", "restore_email", "keep_account", "invitation", "setup",
    "sign_in", "enrol", "challenge", "issuer", "issuer_logout", "mail_code", "confirm_code",
    "lost_factors", "remove_factors", "keep_factors",
]  # fmt: skip


PAYLOAD_AT_MOST: Final = 4096


class OneTimeToken(Struct, frozen=True, kw_only=True):
    """The stored half. `subject` is empty for the set-up of the first administrator, who has no account yet, and for a
    challenge that was used (`challenges.py`).
    """

    id: str
    purpose: Purpose
    subject: str
    email: str
    secret_hash: bytes
    created_at: float
    expires_at: float
    payload: bytes = b""
    """Data that its issuer needs when the token is presented: a challenge, or a sign-in that waits for its second step.
    At most `PAYLOAD_AT_MOST` bytes. The issuer must seal secret data, because a store keeps it as it is.
    """

    def __post_init__(self) -> None:
        if len(self.payload) > PAYLOAD_AT_MOST:  # a client that begins sign-ins must not fill the disk
            raise ValueError(f"a payload has at most {PAYLOAD_AT_MOST} bytes")

    def __repr__(self) -> str:
        return f"OneTimeToken(id={self.id!r}, purpose={self.purpose!r})"


class OneTimeSecret(Opaque):
    """The mailed half."""

    __slots__ = ()
    prefix = "ddo1_"


def issue(
    purpose: Purpose, *, subject: str, email: str, now: float, lives_for: float, payload: bytes = b""
) -> tuple[OneTimeToken, OneTimeSecret]:
    secret = OneTimeSecret.mint(new_id())
    token = OneTimeToken(
        id=secret.id,
        purpose=purpose,
        subject=subject,
        email=email,
        secret_hash=secret.hash(),
        created_at=now,
        expires_at=now + lives_for,
        payload=payload,
    )
    return token, secret


def check(token: OneTimeToken | None, secret: OneTimeSecret, purpose: Purpose, now: float) -> OneTimeToken:
    """Return the stored half if the presented one matches it, for this purpose and in time. Raises `InvalidToken`."""
    if token is None or not secret.matches(token.secret_hash):
        raise InvalidToken("one-time token is unknown or was used")
    if token.purpose != purpose:
        raise InvalidToken(f"one-time token is for {token.purpose}, presented for {purpose}")
    if now >= token.expires_at:
        raise InvalidToken("one-time token has expired")
    return token
