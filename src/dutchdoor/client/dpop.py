"""The key of one sign-in, and the proofs that it signs (RFC 9449): with each request, that this program sends it.

key = ProofKey.generate()
headers = {"authorization": f"DPoP {token}", "dpop": key.proof("GET", url, at=time.time(), nonce=nonce, token=token)}
"""

from __future__ import annotations

from typing import Self

from dutchdoor.errors import InvalidKey, InvalidToken
from dutchdoor.jose import strict_json
from dutchdoor.jose.dpop import hash_of
from dutchdoor.jose.jwk import Key
from dutchdoor.model.ids import decode, encode, new_id

__all__ = ["ProofKey"]

_ALG = "ES256"
"""The one that every server takes."""


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
