"""The key of a browser's session, and what it signs (Device Bound Session Credentials)."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.b64 import b64

from dutchdoor.jose.jwk import Key

__all__ = ["DeviceKey", "challenge_in", "made"]


def made(key: Key, header: object, payload: object) -> str:
    """Sign a JWT of any form; texts and bytes are taken as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(key.sign(signed.encode()))}"


def challenge_in(header: str | None) -> str:
    """The challenge in an offer or in the answer to a refresh; "" if there is none."""
    if header is None:
        return ""
    found = re.search(r'challenge="([^"]+)"', header) or re.match(r'"([^"]+)";id=', header)
    assert found, header
    return found[1]


class DeviceKey:
    """A key that does not leave its device."""

    def __init__(self, alg: str = "ES256") -> None:
        self.key = Key.generate(alg)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as Chromium writes it."""
        members = self.key.public_jwk()
        return {name: members[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in members}

    def registration(self, challenge: str, **header: Any) -> str:
        """The proof that registers the key."""
        return made(self.key, {"alg": self.key.alg, "jwk": self.jwk, "typ": "dbsc+jwt"} | header, {"jti": challenge})

    def proof(self, challenge: str, **header: Any) -> str:
        """The proof that fetches a bound cookie."""
        return made(self.key, {"alg": self.key.alg, "typ": "dbsc+jwt"} | header, {"jti": challenge})
