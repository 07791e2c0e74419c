"""The key of one sign-in, and the proofs that it signs (RFC 9449): with each request, that this program sends it.

key = ProofKey.generate()
headers = {"authorization": f"DPoP {token}", "dpop": key.proof("GET", url, at=time.time(), nonce=nonce, token=token)}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Self
from urllib.parse import urlsplit

from dutchdoor.errors import InvalidKey, InvalidToken
from dutchdoor.jose import strict_json
from dutchdoor.jose.dpop import hash_of
from dutchdoor.jose.jwk import Key
from dutchdoor.model.ids import decode, encode, new_id

__all__ = ["Nonces", "ProofKey"]

_ALG = "ES256"
"""The one that every server takes."""
_CLOCK_WAS_SET = 60.0
"""Seconds by which a clock of a machine does not drift between two requests."""


class ProofKey:
    """A private key. Create one for each sign-in: one key for two would tell servers that they belong together."""

    __slots__ = ("_head", "_key")

    def __init__(self, key: Key) -> None:
        jwk = {name: value for name, value in key.public_jwk().items() if name not in {"alg", "kid", "use"}}
        self._key = key
        self._head = encode(strict_json.encode({"typ": "dpop+jwt", "alg": _ALG, "jwk": jwk}))

    @classmethod
    def generate(cls) -> Self:
        return cls(Key.generate(_ALG))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` wrote. Raises `InvalidKey`."""
        try:
            return cls(Key.from_private_bytes(_ALG, decode(text)))
        except InvalidToken:
            raise InvalidKey("not the key of a sign-in") from None

    def text(self) -> str:
        """Return the private key as text. It is as secret as the tokens beside it."""
        return encode(self._key.private_bytes())

    @property
    def thumbprint(self) -> str:
        """The name of the key (RFC 7638), to which a server binds tokens."""
        return self._key.kid

    def proof(self, method: str, url: str, *, at: float, nonce: str = "", token: str = "") -> str:
        """Return the DPoP header of one request.

        Args:
            method: the request's method.
            url: its URL. What follows `?` or `#` is left out.
            at: the server's time, as far as it is known.
            nonce: the latest `DPoP-Nonce` of the server; "" if it has sent none.
            token: the access token beside it; "" to sign in or to refresh.
        """
        claims: dict[str, object] = {
            "jti": new_id(),
            "htm": method,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(at),
        }
        if nonce:
            claims["nonce"] = nonce
        if token:
            claims["ath"] = hash_of(token)
        signed = f"{self._head}.{encode(strict_json.encode(claims))}"
        return f"{signed}.{encode(self._key.sign(signed.encode()))}"

    def __repr__(self) -> str:
        return f"ProofKey({self.thumbprint!r})"


class Nonces:
    """The latest nonce of each server, and how far its clock is from this machine's. Safe to share between threads.

    Args:
        clock: the time of day in seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_origin: dict[str, tuple[str, float]] = {}

    def proof(self, key: ProofKey, method: str, url: str, token: str = "") -> str:
        """Return the DPoP header of a request: see `ProofKey.proof`."""
        nonce, ahead = self._by_origin.get(_origin(url), ("", 0.0))
        return key.proof(method, url, at=self._clock() + ahead, nonce=nonce, token=token)

    def learn(self, url: str, headers: Mapping[str, str]) -> bool:
        """Keep the nonce of an answer, and the time that it says: the clock of this machine may be wrong, or have been
        set since. Returns whether another proof may be right where this one was refused.
        """
        before, ahead_before = self._by_origin.get(_origin(url), ("", 0.0))
        nonce = headers.get("dpop-nonce", "")
        if not nonce and not headers.get("www-authenticate", "").startswith("DPoP "):
            return False
        try:
            ahead = parsedate_to_datetime(headers.get("date", "")).timestamp() - self._clock()
        except ValueError:
            ahead = ahead_before
        self._by_origin[_origin(url)] = nonce or before, ahead
        return bool(nonce) or abs(ahead - ahead_before) > _CLOCK_WAS_SET


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
