"""Challenges, which a security key signs: each good for one ceremony, in one place, for a few minutes, once.

A challenge is issued without a write: its MAC binds it to what it is for. Otherwise a client without an account could
fill the database by loading the sign-in page. What is written is that a challenge was used (`used`), in the transaction
of what it was used for: of two uses of one challenge, one succeeds.
"""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from dutchdoor.errors import InvalidToken
from dutchdoor.model.ids import encode, new_id
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import CLOCK_SLACK, MINUTE

__all__ = ["CHALLENGE_FOR", "Challenge", "check", "issue", "used"]

CHALLENGE_FOR: Final = 5 * MINUTE
"""Seconds in which a challenge has to come back signed. A person may have to fetch the key."""

_BYTES_AT_MOST: Final = 128


class Challenge(NamedTuple):
    """A challenge that came back."""

    id: str
    expires_at: float


def issue(key: bytes, now: float, *bound: str) -> bytes:
    """Return a new challenge for what it is `bound` to. `key` is a secret of this server."""
    head = f"{new_id()}.{int(now + CHALLENGE_FOR)}"
    return f"{head}.{_tag(key, head, bound)}".encode()


def check(key: bytes, challenge: bytes, now: float, *bound: str) -> Challenge:
    """Return what is known of a challenge, if it was issued for the same and in time. It may have been used: see
    `used`. Raises `InvalidToken`.
    """
    text = challenge.decode("ascii", "replace") if len(challenge) <= _BYTES_AT_MOST else ""
    head, _, tag = text.rpartition(".")
    if not hmac.compare_digest(_tag(key, head, bound).encode(), tag.encode()):
        raise InvalidToken("the challenge was not issued for this")
    name, _, expires_at = head.partition(".")
    if now >= int(expires_at):
        raise InvalidToken("the challenge has expired")
    return Challenge(name, float(expires_at))


def used(challenge: Challenge, now: float) -> OneTimeToken:
    """Return the record that says that a challenge was used: a second one of this id is a conflict. It outlives the
    challenge on every node's clock.
    """
    return OneTimeToken(
        id=challenge.id,
        purpose="challenge",
        subject="",
        email="",
        secret_hash=b"",
        created_at=now,
        expires_at=challenge.expires_at + CLOCK_SLACK,
    )


def _tag(key: bytes, head: str, bound: tuple[str, ...]) -> str:
    # With their lengths: "a", "bc" is not "ab", "c".
    said = "".join(f"{len(part)}:{part}" for part in (head, *bound))
    return encode(hmac.digest(key, said.encode(), "sha256"))
