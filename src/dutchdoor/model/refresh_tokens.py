"""Refresh tokens: convergent rotation with sibling split.

Single-use tokens sign people out when an answer is lost, when four tabs refresh at once, or when a phone stops before
it stores what it received. Here every re-presentation within a short window converges on one token. After the window, a
replayed parent counts as a lost answer and gets a distinct sibling. The first sibling used wins: a losing sibling is
proof of two holders. `docs/contributing/refresh-rotation.md` explains this, and what it does not catch.

Tokens are derived, not stored: HMAC (RFC 2104) under a key derived from the master key outside the database and the
salt in the row. Every ancestor is recognised for ever, and a session stays one row however often it is refreshed.
"""

from __future__ import annotations

import hmac

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import InvalidToken
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import decode, encode
from dutchdoor.model.master_key import MasterKey
from dutchdoor.model.policy import Policy
from dutchdoor.model.sessions import Session

__all__ = [
    "Impossible", "Outcome", "RefreshToken", "Repeated", "Replayed", "Rotated", "Stolen", "Superseded", "decide",
    "time_of",
]  # fmt: skip

PREFIX = "ddr1_"
_TAG, _HEAD = 16, 4 + 16
READINGS_APART = 1.0
"""Seconds by which two nodes' readings of one clock may differ: the round trip of a query to it."""
_MAX_GENERATION = 1 << 42
"""Far above what a session can reach; bounds the varint before any arithmetic."""


class RefreshToken(Struct, frozen=True):
    """A refresh token as read from its text. It may be forged until `is_genuine` returns true."""

    master_key_id: bytes
    session_id: str
    generation: int
    sibling: int
    tag: bytes

    @classmethod
    def parse(cls, text: str) -> RefreshToken:
        """Read the text form. Raises `InvalidToken` for a text that `mint` could not have written."""
        if len(text) > 80 or not text.startswith(PREFIX):  # noqa: PLR2004 - the longest we write has 77 characters
            raise InvalidToken("not a refresh token")
        raw = decode(text[len(PREFIX) :])
        if len(raw) < _HEAD + 2 + _TAG:
            raise InvalidToken("refresh token is too short")
        body, tag = raw[_HEAD:-_TAG], raw[-_TAG:]
        generation, at = _read_varint(body, 0)
        sibling, at = _read_varint(body, at)
        if at != len(body):
            raise InvalidToken("refresh token has bytes to spare")
        return cls(raw[:4], encode(raw[4:_HEAD]), generation, sibling, tag)

    @classmethod
    def read(cls, token: str | RefreshToken) -> RefreshToken:
        """Parse what is a text still."""
        return token if isinstance(token, RefreshToken) else cls.parse(token)

    def is_genuine(self, master: MasterKey, salt: bytes, client_id: str) -> bool:
        """Return, in constant time, whether we issued the token for this session and client. Call it before the token
        changes any state.
        """
        return hmac.compare_digest(
            self.tag, _tag(master, salt, self.session_id, self.generation, self.sibling, client_id)
        )

    def __repr__(self) -> str:
        return f"<RefreshToken {self.session_id} generation {self.generation}.{self.sibling}>"


def mint(master: MasterKey, session: Session, generation: int, sibling: int) -> str:
    """Write the token of one generation and sibling. The same place always gives the same text."""
    tag = _tag(master, session.salt, session.id, generation, sibling, session.client_id)
    return PREFIX + encode(master.id + decode(session.id) + _varint(generation) + _varint(sibling) + tag)


def _tag(master: MasterKey, salt: bytes, session_id: str, generation: int, sibling: int, client_id: str) -> bytes:
    # Fixed lengths before the one field of variable length: no two inputs join into the same bytes.
    message = (
        b"ddr1" + decode(session_id) + generation.to_bytes(8, "big") + sibling.to_bytes(8, "big") + client_id.encode()
    )
    return hmac.digest(master.derive("refresh", salt), message, "sha256")[:_TAG]


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:  # noqa: PLR2004
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    n = shift = 0
    while at < len(raw):
        byte = raw[at]
        at += 1
        n |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            if n >= _MAX_GENERATION or (byte == 0 and shift):  # a leading zero would be a second spelling
                break
            return n, at
        shift += 7
        if shift > 42:  # noqa: PLR2004
            break
    raise InvalidToken("refresh token has a malformed number")


class Rotated(Struct, frozen=True):
    """R2b: a new generation. The caller writes `session`, conditional on the revision it was read with."""

    session: Session


class Repeated(Struct, frozen=True):
    """R2a, R3a, R4: nothing is written; the client gets the token of this place."""

    generation: int
    sibling: int


class Replayed(Struct, frozen=True):
    """R3c: the client presents the parent late, because its answer was lost. The caller writes `session` with one more
    sibling.

    At the maximum of siblings `session` is None: the client gets the latest sibling, and no new one is created.
    """

    session: Session | None
    sibling: int


class Superseded(Struct, frozen=True):
    """R5: two generations old, within the window. The client must read its cookie jar again."""


class Stolen(Struct, frozen=True):
    """Proof of two holders, by the named rule."""

    rule: str


class Impossible(Struct, frozen=True):
    """R7: newer than any we issued, with a valid tag: the row is from a backup, or a key has leaked."""


Outcome = Rotated | Repeated | Replayed | Superseded | Stolen | Impossible


def time_of(session: Session, now: float) -> float:
    """Return the time to decide by: `now`, or when the row was written, if that is ahead by at most `READINGS_APART`.

    A retry that reaches another node a moment later would otherwise seem to precede the lost answer, and fall outside
    every window.
    """
    written_at = max(session.rotated_at, session.sibling_at)
    return written_at if 0 < written_at - now <= READINGS_APART else now


def decide(session: Session, token: RefreshToken, client: Client, now: float, policy: Policy) -> Outcome:
    """Decide what a genuine token of a live session gets. Writes nothing; the document explains the rules by name."""
    strict = policy.rotation == "strict"
    window = policy.refresh_window
    # After a clock stepped back, both windows are false: an untrusted time grants no leniency.
    w = not strict and 0 <= now - session.rotated_at <= window
    s = not strict and 0 <= now - session.sibling_at <= window
    # Inside the window, the raw address and the country decide nothing: dual stack, VPNs and server-side rendering
    # change them.
    same = policy.fingerprint == "off" or client.fingerprint == session.fingerprint
    g, j, gen = token.generation, token.sibling, session.generation

    if g > gen or (g == gen and j > session.sibling):
        return Impossible()  # R7
    if g == gen:
        if w and same:
            return Repeated(g, j)  # R2a
        return Rotated(_rotated(session, j, client, now, policy))  # R2b
    if g == gen - 1 and j == session.parent_sibling:
        if (w or s) and same:
            return Repeated(gen, session.sibling)  # R3a
        elsewhere = not same or client.country != session.country
        if not strict and not w and elsewhere and policy.fingerprint == "revoke":
            return Stolen("R3b")
        if strict:
            return Stolen("R3c")
        return _replayed(session, client, now, policy)  # R3c
    if g == gen - 1:
        return Repeated(gen, session.sibling) if w and same else Stolen("R4")
    if g == gen - 2 and w and same:
        return Superseded()  # R5
    return Stolen("R6")


def _rotated(session: Session, parent: int, client: Client, now: float, policy: Policy) -> Session:
    return replace(
        session,
        generation=session.generation + 1,
        parent_sibling=parent,
        sibling=0,
        rotated_at=now,
        sibling_at=now,
        fingerprint=client.fingerprint,
        device=client.device,
        address=client.address,
        country=client.country,
        last_seen_at=max(now, session.last_seen_at),
        idle_expires_at=min(now + policy.idle_for, session.expires_at),  # never past the absolute expiry
    )


def _replayed(session: Session, client: Client, now: float, policy: Policy) -> Replayed:
    if session.sibling + 1 >= policy.max_siblings:
        return Replayed(None, session.sibling)
    split = replace(
        session,
        sibling=session.sibling + 1,
        sibling_at=now,
        fingerprint=client.fingerprint,
        country=client.country,
        last_seen_at=max(now, session.last_seen_at),
    )
    return Replayed(split, split.sibling)
