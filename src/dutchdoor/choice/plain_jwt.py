"""A JWT as people know it: HS256, one secret, a time at which it expires, and nothing that ends it before.

A stand-in, so that the comparison and the lab have what most tutorials build. It does what a library does for such a
token and no more, so its times are the least that this pattern can cost in Python. Nothing else uses it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from typing import Any, Final

__all__ = ["LIFETIME", "PlainJwt"]

LIFETIME: Final = 1800.0
"""Seconds: the 30 minutes of FastAPI's tutorial on OAuth2 with JWT."""


class PlainJwt:
    """Issues and checks such tokens. Each service that checks them has the secret."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def issue(self, subject: str, now: float, **more: object) -> str:
        """Return a token for a subject that is valid for `LIFETIME` seconds from `now`, with `more` claims in it."""
        head = _part({"alg": "HS256", "typ": "JWT"})
        signed = f"{head}.{_part({'sub': subject, 'iat': int(now), 'exp': int(now + LIFETIME), **more})}"
        return f"{signed}.{_text(self._sign(signed))}"

    def check(self, token: str, now: float) -> dict[str, Any]:
        """Return the claims of a token. Raises `ValueError` if it is forged or has expired."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(_text(self._sign(signed)), signature):
            raise ValueError("the signature is wrong")
        head, _, payload = signed.partition(".")
        if json.loads(_bytes(head)).get("alg") != "HS256":  # another algorithm must not be chosen by the token
            raise ValueError("the algorithm is another one")
        claims: dict[str, Any] = json.loads(_bytes(payload))
        if claims["exp"] <= now:
            raise ValueError("the token has expired")
        return claims

    def _sign(self, signed: str) -> bytes:
        return hmac.digest(self._secret, signed.encode(), hashlib.sha256)


def _part(value: dict[str, Any]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
