"""Apple's client secret: a JWT that our own key signs (ES256), made for each request."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from dutchdoor.errors import InvalidKey, Misconfigured
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.jose import jws, strict_json
from dutchdoor.jose.jwk import Key

__all__ = ["apple_key", "apple_secret"]

LIVES_FOR: Final = 300
"""Seconds. Apple accepts half a year: it is made anew each time, so a short one does."""


def apple_key(issuer: Issuer) -> Key:
    """Return the key in `client_secret`. Raises `Misconfigured`, without any of it."""
    try:
        private = load_pem_private_key(issuer.client_secret.encode(), None)
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return Key.from_private_bytes("ES256", der, kid=issuer.key_id)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidKey):
        raise Misconfigured(
            f"The issuer {issuer.name}: client_secret is not a key for ES256 in PEM, as the file AuthKey_....p8 holds."
        ) from None


def apple_secret(issuer: Issuer, now: float) -> str:
    """Return the client secret to send now. Raises `Misconfigured`."""
    claims = {
        "iss": issuer.team_id,
        "iat": int(now),
        "exp": int(now) + LIVES_FOR,
        "aud": issuer.url,
        "sub": issuer.client_id,
    }
    return jws.sign(strict_json.encode(claims), apple_key(issuer))
