"""The key of a browser that signs in on our pages: a P-256 key of WebCrypto, whose private part no script can read.

A session keeps the public part as `x.y`, the two coordinates in base64url as a JWK has them (RFC 7518, 6.2.1). What the
key signs is a challenge, and nothing else.
"""

from __future__ import annotations

import re
from typing import Final

from dutchdoor.errors import InvalidKey
from dutchdoor.jose.jwk import Key

__all__ = ["SIGNATURE_BYTES", "is_browser_key", "is_signed_by"]

SIGNATURE_BYTES: Final = 64
"""WebCrypto writes a signature as JWS does: r and s, 32 bytes each."""
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}")


def is_browser_key(text: str) -> bool:
    """Whether a text is a public key."""
    try:
        return _TEXT.fullmatch(text) is not None and _key_of(text) is not None
    except InvalidKey:
        return False


def is_signed_by(key: str, challenge: str, signature: bytes) -> bool:
    """Whether a `key`, in its text form, has signed a `challenge`."""
    return len(signature) == SIGNATURE_BYTES and _key_of(key).check(signature, challenge.encode())


def _key_of(text: str) -> Key:
    x, _, y = text.partition(".")
    return Key.from_jwk({"kty": "EC", "crv": "P-256", "x": x, "y": y}, alg="ES256")
