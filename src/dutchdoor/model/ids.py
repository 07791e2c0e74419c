"""Ids and opaque tokens: a public name, and a secret.

Every id of ours is 16 bytes written as 22 characters of canonical base64url. A session id begins with its creation
time, so that an index grows at its end instead of everywhere; it proves nothing and is no secret. The proof is a
`Secret` beside it: 20 random bytes, of which only a hash is stored, so that a thief of the database cannot sign in.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from binascii import Error as NotBase64
from binascii import a2b_base64
from typing import ClassVar, Self

import pybase64

from dutchdoor.errors import InvalidToken

__all__ = ["Opaque", "decode", "encode", "is_id", "new_id", "new_ordered_id", "ordered_from", "packed"]

ID_BYTES, SECRET_BYTES = 16, 20


def encode(raw: bytes) -> str:
    """Write bytes as base64url without padding (RFC 4648, section 5)."""
    return pybase64.b64encode_as_string(raw, b"-_").rstrip("=")


def decode(text: str, limit: int = 512) -> bytes:
    """Read canonical base64url without padding.

    Raises:
        InvalidToken: not base64url, padded, longer than `limit` characters, or with spare bits set. Two texts for one
            value would let an altered token pass, which breaks everything keyed by the text.
    """
    # pybase64 accepts "+" for "-" and "/" for "_" and only warns: a second spelling.
    if len(text) > limit or not text.isascii() or "+" in text or "/" in text:
        raise InvalidToken("not base64url, or too long")
    try:
        raw = pybase64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (NotBase64, ValueError):
        raise InvalidToken("not base64url") from None
    if encode(raw) != text:
        raise InvalidToken("base64url is not canonical")
    return raw


def new_id() -> str:
    """Create an id that reveals nothing: 127 random bits. With one bit more it could begin with a dash, and a command
    would read it as an option.
    """
    first, *rest = secrets.token_bytes(ID_BYTES)
    return encode(bytes([first & 0x7F, *rest]))


def new_ordered_id(now: float) -> str:
    """Create an id that sorts by creation time: 6 bytes of milliseconds, 10 random bytes."""
    return encode((int(now * 1000) & 0xFFFF_FFFF_FFFF).to_bytes(6, "big") + secrets.token_bytes(ID_BYTES - 6))


def ordered_from(at: float) -> str:
    """Return the id that sorts before each one that `new_ordered_id` creates at an instant or later, and after each
    earlier one. Instants before 1970 are 1970.
    """
    return encode((int(max(0.0, at) * 1000) & 0xFFFF_FFFF_FFFF).to_bytes(6, "big") + bytes(ID_BYTES - 6))


_is_16_bytes = re.compile("[A-Za-z0-9_-]{21}[AQgw]").fullmatch
"""Whether a text is canonical base64url of 16 bytes: the last of 22 characters has four spare bits, all zero."""


def packed(id: str) -> bytes | None:
    """Return the 16 bytes by which a store keeps an id, or None for a text that is not their canonical form.

    Two texts must never lead to one row: the second would be an id that we did not create and yet find.
    """
    return a2b_base64(id.replace("-", "+").replace("_", "/") + "==") if _is_16_bytes(id) else None


def is_id(text: str) -> bool:
    """Return whether a text could be an id of ours. A caller checks this before it asks a store."""
    return _is_16_bytes(text) is not None


class Opaque:
    """An id and its secret in the text form that a client holds: `prefix` + base64url(id | secret).

    36 bytes are 48 characters exactly: no padding, and no spare bits in which two texts could differ. No `repr` shows
    the secret; only `text()` returns it. A subclass is one kind of token with its own prefix, so that one kind is never
    accepted as another.
    """

    __slots__ = ("_text", "id")

    prefix: ClassVar[str]

    def __init__(self, text: str) -> None:
        """Take a text that `mint` wrote or `parse` has checked."""
        at = len(self.prefix)
        self._text = text
        # 16 bytes are 21 characters and two bits of the next. In the id's own text, the last character holds only these
        # bits.
        self.id = text[at : at + 21] + _TWO_BITS[text[at + 21]]

    @classmethod
    def mint(cls, id: str) -> Self:
        return cls(cls.prefix + encode(decode(id) + secrets.token_bytes(SECRET_BYTES)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a text form. Raises `InvalidToken` before any look-up for a text that this class could not have
        written.
        """
        if not text.startswith(cls.prefix) or not _BODY.fullmatch(text, len(cls.prefix)):
            raise InvalidToken("not an opaque token of this kind")
        return cls(text)

    def text(self) -> str:
        return self._text

    def hash(self) -> bytes:
        """The hash that is stored. SHA-256 is enough for 160 random bits, and includes the id, so that one row's hash
        is of no use in another row.
        """
        return hashlib.sha256(self._text.encode()).digest()

    def matches(self, stored: bytes) -> bool:
        """Compare in constant time: from a timing difference an attacker could guess the hash byte by byte."""
        return hmac.compare_digest(self.hash(), stored)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


_BODY = re.compile(r"[A-Za-z0-9_-]{48}")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TWO_BITS = {character: "AQgw"[value >> 4] for value, character in enumerate(_ALPHABET)}
