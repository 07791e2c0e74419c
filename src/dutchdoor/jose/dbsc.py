"""The proofs of a browser that binds a session to its device (W3C, webappsec-dbsc).

A proof is a JWT that the browser signs with a key of the session, kept in hardware where there is some. It answers one
challenge, which says the session, the purpose and the time. The proof that registers the key brings it along in its
header; each later one must not, or a thief could bring another.

Deliberately left out: all algorithms but those offered, keys by reference, and claims besides the challenge. The
browser may send others; none is needed, because the challenge was made for this server, session and purpose.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from dutchdoor.errors import DeviceKeyRefused, InvalidKey, InvalidToken
from dutchdoor.jose import strict_json
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.jws import decode_part
from dutchdoor.model.device_binding import ALGORITHMS

__all__ = ["PROOF_AT_MOST", "DeviceProof", "key_of", "read_proof", "text_of"]

PROOF_AT_MOST: Final = 3072
"""Characters of a proof. One that registers an RSA key of 4,096 bits has 1,800."""

_TYPE: Final = "dbsc+jwt"
_CHALLENGE_AT_MOST: Final = 128
_REFUSED: Final = frozenset(
    {"crit", "b64", "jku", "x5u", "x5c", "zip", "enc", "epk", "p2s", "p2c", "apu", "apv", "iv", "tag"}
)
"""Header parameters that change what is signed, or name a key elsewhere."""
_PARTS: Final = 3
_PUBLIC: Final = ("crv", "e", "kty", "n", "x", "y")


class DeviceProof(Struct, frozen=True):
    """A proof, read, and not yet trusted."""

    alg: str
    challenge: str
    """What it answers: its `jti`."""
    key: Key | None
    """The key in its header, in a registration."""
    signed: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"DeviceProof(alg={self.alg!r})"

    def is_by(self, key: Key) -> bool:
        """Whether this `key` has signed it."""
        if self.alg != key.alg or len(self.signature) != key.signature_chars:
            return False
        try:
            return key.check(decode_part(self.signature), self.signed)
        except InvalidToken:
            return False


def read_proof(text: str, *, registers: bool) -> DeviceProof:
    """Read a proof. It is bounded work, before any signature is checked. Raises `DeviceKeyRefused`.

    Args:
        text: the value of the header `Secure-Session-Response`, as a token or in quotes: the draft says quotes, and
            Chromium sends none.
        registers: whether it must bring its key along, or must not.
    """
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if len(text) > PROOF_AT_MOST or not text.isascii() or text.count(".") != _PARTS - 1:
        raise DeviceKeyRefused(f"it is no signed JWT of at most {PROOF_AT_MOST} characters")
    signed, _, signature = text.encode("ascii").rpartition(b".")
    head, _, body = signed.partition(b".")
    members, claims = _members(head, "its header"), _members(body, "its payload")
    alg, jwk, challenge = members.get("alg"), members.get("jwk"), claims.get("jti")
    if members.get("typ") != _TYPE:
        # Any other JWT that the key has signed must not pass for a proof.
        raise DeviceKeyRefused(f"its `typ` is not {_TYPE}")
    if type(alg) is not str or alg not in ALGORITHMS:
        raise DeviceKeyRefused(f"its `alg` is none of {', '.join(ALGORITHMS)}")
    if not _REFUSED.isdisjoint(members):
        raise DeviceKeyRefused("its header has a parameter that is refused")
    if type(challenge) is not str or not 0 < len(challenge) <= _CHALLENGE_AT_MOST:
        raise DeviceKeyRefused("its `jti` is no challenge of this server")
    if ("jwk" in members) != registers:
        raise DeviceKeyRefused("its header has no `jwk`" if registers else "its header has a `jwk`: the key is known")
    return DeviceProof(alg, challenge, _key(jwk, alg) if registers else None, signed, signature)


def text_of(key: Key) -> str:
    """Return a public key as a session keeps it: JSON without spaces, and nothing but the key (RFC 7638)."""
    members = key.public_jwk()
    return strict_json.encode({name: members[name] for name in _PUBLIC if name in members}).decode("ascii")


def key_of(text: str, alg: str) -> Key:
    """Read what `text_of` wrote. Raises `InvalidKey`."""
    return Key.from_jwk(strict_json.decode_object(text.encode("ascii")), alg=alg)


def _key(jwk: object, alg: str) -> Key:
    if type(jwk) is not dict:
        raise DeviceKeyRefused("its `jwk` is no public key")
    try:
        # Without `kid`, a key is named by its thumbprint. A browser must not choose the name.
        key = Key.from_jwk({name: value for name, value in jwk.items() if name != "kid"}, alg=alg)
    except InvalidKey as refusal:
        raise DeviceKeyRefused(f"its `jwk` is refused: {refusal.reason}") from None
    if key.alg != alg:
        raise DeviceKeyRefused("its `jwk` is for another `alg`")
    return key


def _members(part: bytes, name: str) -> dict[str, Any]:
    try:
        return strict_json.decode_object(decode_part(part))
    except InvalidToken as refusal:
        raise DeviceKeyRefused(f"{name} is {refusal.reason}") from None
    except strict_json.MalformedJSON as refusal:
        raise DeviceKeyRefused(f"{name}: {refusal}") from None
