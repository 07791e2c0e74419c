"""HMAC secrets that everybody knows, as digests: the placeholders of tutorials, frameworks and token debuggers.

A token signed with one of them can be forged by anyone who tries the lists every attacker has. Not the secrets but 8
bytes of the SHA-256 of each stand here, enough to recognise one. Case and surrounding whitespace do not make it
another secret, and neither does writing it several times over to reach the length a check asks for.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["is_known_leaked"]

_DIGESTS: Final = frozenset[bytes]()


def is_known_leaked(secret: bytes) -> bool:
    """Tell whether a secret is one that attackers try first."""
    bare = secret.strip().lower()
    return any(hashlib.sha256(form).digest()[:8] in _DIGESTS for form in (bare, _unit(bare)))


def _unit(text: bytes) -> bytes:
    """Give the shortest piece of which a text consists when it is written over and over, the last time perhaps cut
    short.
    """
    for size in range(1, len(text) // 2 + 1):
        if text[size:] == text[:-size]:
            return text[:size]
    return text
