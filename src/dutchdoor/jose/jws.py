"""Compact JWS (RFC 7515), read strictly and written plainly.

Three parts of canonical base64url, a strict JSON header, one signature by a key chosen in advance, not by the token.
Deliberately left out: the two JSON serialisations, detached and unencoded payloads (`b64`, RFC 7797), every extension
that `crit` could name, and every header parameter that carries a key or the address of one.

Everything that bounds work comes before the cryptography: length, alphabet, header, nesting, length of the signature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pybase64
from msgspec import Struct

from dutchdoor.errors import InvalidToken, UnknownKey
from dutchdoor.jose import strict_json
from dutchdoor.jose.claims import MAX_TOKEN
from dutchdoor.jose.jwk import MAX_KID, Key, KeySet

__all__ = [
    "Header",
    "decode_part",
    "encode_header",
    "parse_header",
    "sign",
    "sign_encoded",
    "take_apart",
    "verify",
]


_BASE64URL: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# By length modulo 4: the padding that was left out, and the last characters that leave no spare bits set. No text has
# remainder 1.
_PADS: Final = (b"", b"", b"==", b"=")
_TAILS: Final = (_BASE64URL, b"", b"AQgw", b"AEIMQUYcgkosw048")
_MAX_TYP: Final = 64

# `jwk` and `x5c` carry a key, `jku` and `x5u` an address to fetch one from: CVE-2018-0114, CVE-2026-27962. `b64`
# changes what is signed (CVE-2025-59420 among others), `zip`, `enc`, `epk`, `p2s`, `p2c`, `apu`, `apv`, `iv`, `tag`
# belong to encryption.
_REFUSED: Final = frozenset(
    {"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "epk", "p2s", "p2c", "apu", "apv", "iv", "tag"}
)

_PLUS, _SLASH = b"+/"

_b64decode, _b64encode = pybase64.b64decode, pybase64.b64encode


class Header(Struct, frozen=True):
    """A parsed header, and the key it selects."""

    alg: str
    kid: str | None
    typ: str | None
    key: Key
    chars: int
    """Length of the key's signatures in base64url."""
    tails: bytes
    pad: bytes
    check: Callable[[bytes, bytes], bool]


def verify(token: str | bytes, key: Key | KeySet) -> bytes:
    """Check one compact JWS and return its payload, which may be anything: the caller checks types and claims.

    Raises:
        InvalidToken: it is malformed, or not signed by this key (or by the one of this set that its `kid` names).
    """
    keys = key if isinstance(key, KeySet) else key.alone()
    header, head, signed, payload, signature = take_apart(token, keys)
    if not header.check(signature, signed):
        raise InvalidToken("the signature is not valid")
    if head not in keys.known_headers:
        keys.remember(head, header)
    return payload


def sign(payload: bytes, key: Key, *, typ: str | None = None) -> str:
    """Sign a payload as compact JWS, with `alg`, `kid` and, if given, `typ` in its header.

    Raises:
        InvalidKey: the key has no private part.
    """
    return sign_encoded(encode_header(key, typ), payload, key)


def encode_header(key: Key, typ: str | None) -> bytes:
    """Return the encoded header of every token that this key signs, with the dot behind it."""
    members = {"alg": key.alg, "kid": key.kid}
    if typ is not None:
        members["typ"] = typ
    return _b64encode(strict_json.encode(members), b"-_").rstrip(b"=") + b"."


def sign_encoded(header: bytes, payload: bytes, key: Key) -> str:
    """Sign under a header that `encode_header` returned."""
    data = header + _b64encode(payload, b"-_").rstrip(b"=")
    return (data + b"." + _b64encode(key.sign(data), b"-_").rstrip(b"=")).decode("ascii")


def take_apart(token: str | bytes, keys: KeySet) -> tuple[Header, bytes, bytes, bytes, bytes]:
    """Do all checks that come before the cryptography, which are those that bound work.

    Returns:
        The parsed header, the encoded header, the signed bytes, the payload, the signature. Trust none of it before
            `header.check(signature, signed)` is true; after that, call `keys.remember(head, header)`.

    Raises:
        InvalidToken: it is not a compact JWS that a key of the set could have signed.
    """
    if isinstance(token, str):
        try:
            raw = token.encode("ascii")
        except UnicodeEncodeError:
            raise InvalidToken("not ASCII") from None
    elif isinstance(token, bytes):
        raw = token
    else:
        raise InvalidToken("a token is text")
    if len(raw) > MAX_TOKEN:
        raise InvalidToken("longer than any token")
    if _PLUS in raw or _SLASH in raw:
        # The decoder accepts both alphabets. A second spelling of a token would be another token to code that compares
        # texts.
        raise InvalidToken("not base64url")
    signed, _, tail = raw.rpartition(b".")
    head, _, body = signed.partition(b".")

    header = keys.known_headers.get(head)
    if header is None:
        header = parse_header(head, keys)
    if len(tail) != header.chars or tail[-1] not in header.tails:
        raise InvalidToken("the signature has the wrong length, or spare bits")
    rest = len(body) & 3
    if body and body[-1] not in _TAILS[rest]:
        raise InvalidToken("the payload is not canonical base64url")
    try:
        return (
            header,
            head,
            signed,
            _b64decode(body + _PADS[rest], b"-_", True),  # noqa: FBT003
            _b64decode(tail + header.pad, b"-_", True),  # noqa: FBT003
        )
    except ValueError:
        raise InvalidToken("not base64url") from None


def parse_header(encoded: bytes, keys: KeySet) -> Header:
    """Read an encoded header and find the key it selects.

    Raises:
        InvalidToken: it is malformed, has a refused parameter, names no key of the set, or an algorithm that is not the
            key's.
    """
    try:
        members = strict_json.decode_object(decode_part(encoded))
    except strict_json.MalformedJSON as refusal:
        raise InvalidToken(f"header: {refusal}") from None
    if "enc" in members:
        raise InvalidToken("an encrypted token (JWE)")
    if not _REFUSED.isdisjoint(members):
        raise InvalidToken("header: a parameter we refuse")
    alg, kid, typ = members.get("alg"), members.get("kid"), members.get("typ")
    if type(alg) is not str:
        raise InvalidToken("header: no alg")
    if "typ" in members and (type(typ) is not str or len(typ) > _MAX_TYP):
        raise InvalidToken("header: typ is malformed")
    if "kid" in members:
        if type(kid) is not str or not 0 < len(kid) <= MAX_KID:
            raise InvalidToken("header: kid is malformed")
        key = keys.get(kid)
    else:
        key = keys.only  # one key needs no choice; with several, a token without a kid would make us try them all
    if key is None:
        raise UnknownKey("no key of this kid")
    if alg not in key.accepts:
        raise InvalidToken("the key is not for this alg")
    rest = key.signature_chars & 3
    return Header(alg, kid, typ, key, key.signature_chars, _TAILS[rest], _PADS[rest], key.check)


def decode_part(encoded: bytes) -> bytes:
    """Read canonical base64url without padding.

    Raises:
        InvalidToken: it is empty, padded, of another alphabet, or has spare bits set.
    """
    rest = len(encoded) & 3
    if not encoded or encoded[-1] not in _TAILS[rest]:
        raise InvalidToken("not canonical base64url")
    if _PLUS in encoded or _SLASH in encoded:
        raise InvalidToken("not base64url")
    try:
        return _b64decode(encoded + _PADS[rest], b"-_", True)  # noqa: FBT003
    except ValueError:
        raise InvalidToken("not base64url") from None
