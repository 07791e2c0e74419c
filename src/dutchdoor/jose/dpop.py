"""DPoP (RFC 9449): with each request, a client proves that it holds the key to which its token is bound.

The proof is a JWT of a type of its own, signed by the client's key, which it brings along. It names the method and the
URL of one request, and the access token beside it by its hash. A nonce of the server says when it was written.

    proofs = Proofs(key)                                    # the same key in every process of a service
    proofs.check(principal.bound_to, DpopProof(header, method="GET", url="https://api.example.com/orders"), token, now)

A proof is taken once. `Proofs` remembers those of its own process; where a token is issued, the caller counts
`spent_as` in the store, for all processes.

Deliberately left out: symmetric keys, `none`, keys by reference (`jku`, `x5c`, ...), and proofs without a nonce, which
a thief could write in advance while they have the device.
"""

from __future__ import annotations

import hashlib
import hmac
from threading import Lock
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from dutchdoor.errors import DpopRequired, InvalidDpopProof, InvalidKey, InvalidToken, UseDpopNonce
from dutchdoor.jose import strict_json
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.jws import decode_part
from dutchdoor.model.ids import decode, encode
from dutchdoor.model.rate_limits import Limit

__all__ = [
    "ALGORITHMS", "IAT_WITHIN", "NONCE_FOR", "ONE_PROOF", "PROOF_AT_MOST", "DpopProof", "Proofs", "Proved", "hash_of",
]  # fmt: skip

ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "RS256")
"""What proofs may be signed with. Each is asymmetric: a server that checks a proof must not be able to write one."""
PROOF_AT_MOST: Final = 4096
"""Characters of a proof. One by an RSA key of 4,096 bits has 2,300."""
NONCE_FOR: Final = 300.0
"""Seconds for which a nonce is taken: for that long, a proof that was copied on its way could be sent first."""
IAT_WITHIN: Final = 300.0
"""Seconds by which `iat` may differ from the server's clock. The nonce is what says the time; this finds a client whose
clock is so wrong that its owner should know."""
NODES_APART: Final = 60.0
"""Seconds by which the clocks of two nodes may differ: a nonce of one is taken by the other."""
REMEMBERED_FOR: Final = NONCE_FOR + NODES_APART
"""Seconds after which no proof that was taken could be taken again."""
ONE_PROOF: Final = Limit(name="dpop_proof", count=1, per_seconds=REMEMBERED_FOR, burst=1)
"""A bucket for each proof that a token is issued for: the second request with it finds the bucket empty."""

_TYPE: Final = "dpop+jwt"
_NONCE_BYTES, _TIME_BYTES = 21, 5
_JTI_AT_MOST, _URL_AT_MOST, _NONCE_AT_MOST = 256, 2048, 256
_KEYS_AT_MOST: Final = 1024
_SPENT_AT_MOST: Final = 100_000
"""Proofs of one generation, about 10 MB. Only requests with a valid token fill it."""
_REFUSED: Final = frozenset({"crit", "b64", "jku", "x5u", "x5c", "zip", "enc", "epk"})
"""Header parameters that change what is signed, or name a key elsewhere."""
_PARTS: Final = 3
_PORTS: Final = {"http": 80, "https": 443}


class DpopProof(Struct, frozen=True):
    """The DPoP header of a request, and the request that it must be about."""

    header: str
    """The value of the one `DPoP` header; "" if there is none."""
    method: str
    """The request's method."""
    url: str
    """The URL that the client used, as this server is reached from outside. Its query is not compared."""

    def __repr__(self) -> str:
        return f"DpopProof(method={self.method!r}, url={self.url!r})"


class Proved(Struct, frozen=True):
    """What a proof says that is right."""

    thumbprint: str
    """Names the key that signed it (RFC 7638)."""
    alg: str
    jti: str

    @property
    def spent_as(self) -> str:
        """The name under which this proof is remembered, so that it is taken once."""
        return encode(hashlib.sha256(f"{self.thumbprint}.{self.jti}".encode()).digest()[:16])


def hash_of(token: str | bytes) -> str:
    """Return the hash of an access token, as a proof names it (`ath`)."""
    return encode(hashlib.sha256(token.encode() if isinstance(token, str) else token).digest())


class Proofs:
    """Checks the proofs of requests to one service. Safe to share between threads; does no I/O.

    Args:
        key: what nonces are made with. Processes that share it take each other's nonces, and store nothing for that.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"dd dpop nonce").digest()
        self._keys: dict[bytes, tuple[str, Key]] = {}
        self._lock = Lock()
        self._young: set[str] = set()
        self._old: set[str] = set()
        self._grows_old_at = 0.0

    def check(self, bound_to: str, proof: DpopProof | None, token: str | bytes, now: float) -> None:
        """Check that a request may use a valid access token.

        Args:
            bound_to: the thumbprint to which the token is bound; "" for a bearer token.
            proof: what the request carries, if it presents the token by the scheme DPoP; None for Bearer.
            token: the access token.

        Raises:
            DpopRequired: the token is bound, and came as a bearer token, or without a proof.
            UseDpopNonce: the proof has no nonce of ours, or an old one. The error has a new one.
            InvalidDpopProof: the proof is not valid, was taken before, or is by another key.
        """
        if proof is None:
            if bound_to:
                # The downgrade: a thief who copied the token has no key, and would leave the proof out.
                raise DpopRequired("a bound token came as a bearer token")
            return
        if not bound_to:
            raise InvalidDpopProof("the token is not bound to a key: send it by the scheme Bearer")
        proved = self.read(proof, token, now)
        if not hmac.compare_digest(proved.thumbprint, bound_to):
            raise InvalidDpopProof("its key is not the one that the token is bound to")
        self._spend(proved, now)

    def read(self, proof: DpopProof, token: str | bytes | None, now: float) -> Proved:
        """Check a proof in all but one: whether it was taken before. `token` is the access token beside it, if any.

        Raises:
            DpopRequired: there is no proof.
            UseDpopNonce: it has no nonce of ours, or an old one.
            InvalidDpopProof: it is not valid.
        """
        text = proof.header
        if not text:
            raise DpopRequired("no DPoP header")
        if len(text) > PROOF_AT_MOST or not text.isascii() or text.count(".") != _PARTS - 1:
            raise InvalidDpopProof("it is no signed JWT of at most 4,096 characters")
        signed, _, tail = text.encode("ascii").rpartition(b".")
        head, _, body = signed.partition(b".")
        known = self._keys.get(head)
        alg, key = known or _read_head(head)
        claims = _members(body, "its payload")
        # Text of fixed kinds and lengths, before the signature is checked: that bounds the work.
        jti = _text(claims, "jti", _JTI_AT_MOST)
        method, url = _text(claims, "htm", _NONCE_AT_MOST), _text(claims, "htu", _URL_AT_MOST)
        iat = _time(claims)
        if len(tail) != key.signature_chars or not key.check(_part(tail, "its signature"), signed):
            raise InvalidDpopProof("its signature is not valid")
        if known is None:
            self._remember(head, alg, key)
        if method != proof.method:
            raise InvalidDpopProof("its `htm` is not the method of this request")
        if url != proof.url and _plain(url) != _plain(proof.url):
            raise InvalidDpopProof("its `htu` is not the URL of this request")
        if token is not None and not hmac.compare_digest(_text(claims, "ath", _NONCE_AT_MOST), hash_of(token)):
            raise InvalidDpopProof("its `ath` is not the hash of the access token")
        if not self.is_ours(claims.get("nonce"), now):
            raise UseDpopNonce(self.nonce(now))
        if not abs(now - iat) <= IAT_WITHIN:
            raise InvalidDpopProof(f"its `iat` is {abs(now - iat):.0f} s off: set the clock of the client")
        return Proved(key.kid, alg, jti)

    # Nonces

    def nonce(self, now: float) -> str:
        """Return a nonce for the next proofs: the time, and a MAC of it. Nothing is stored."""
        at = int(now).to_bytes(_TIME_BYTES, "big")
        return encode(at + self._mac(at))

    def is_ours(self, nonce: object, now: float) -> bool:
        """Return whether a nonce was made by this service a short while ago."""
        at = self._time_of(nonce)
        return at is not None and -NODES_APART <= now - at <= NONCE_FOR

    def _time_of(self, nonce: object) -> int | None:
        if type(nonce) is not str or len(nonce) > _NONCE_AT_MOST:
            return None
        try:
            raw = decode(nonce)
        except InvalidToken:
            return None
        at, mac = raw[:_TIME_BYTES], raw[_TIME_BYTES:]
        right = len(raw) == _NONCE_BYTES and hmac.compare_digest(mac, self._mac(at))
        return int.from_bytes(at, "big") if right else None

    def _mac(self, at: bytes) -> bytes:
        return hmac.digest(self._key, at, "sha256")[: _NONCE_BYTES - _TIME_BYTES]

    # What is remembered

    def _remember(self, head: bytes, alg: str, key: Key) -> None:
        # Only now: the signature was valid. A client's header stays the same, and reading its key costs as much again.
        with self._lock:
            if len(self._keys) >= _KEYS_AT_MOST:
                self._keys.clear()
            self._keys[head] = alg, key

    def _spend(self, proved: Proved, now: float) -> None:
        """Take a proof, once. Raises `InvalidDpopProof` if this process has taken it before."""
        name = proved.spent_as
        with self._lock:
            if now >= self._grows_old_at or len(self._young) >= _SPENT_AT_MOST:
                self._old = self._young if now < self._grows_old_at + REMEMBERED_FOR else set()
                self._young, self._grows_old_at = set(), now + REMEMBERED_FOR
            if name in self._young or name in self._old:
                raise InvalidDpopProof("it was used before: each request needs a new one, with a `jti` of its own")
            self._young.add(name)

    def renew_lock(self) -> None:
        """After a fork, the child needs a new lock: the thread that held the old one does not exist there."""
        self._lock = Lock()


def _read_head(head: bytes) -> tuple[str, Key]:
    members = _members(head, "its header")
    alg, jwk = members.get("alg"), members.get("jwk")
    if members.get("typ") != _TYPE:
        # Any other JWT that the key has signed must not pass for a proof.
        raise InvalidDpopProof("its `typ` is not dpop+jwt")
    if type(alg) is not str or alg not in ALGORITHMS:
        raise InvalidDpopProof(f"its `alg` is none of {', '.join(ALGORITHMS)}")
    if not _REFUSED.isdisjoint(members):
        raise InvalidDpopProof("its header has a parameter that is refused")
    if type(jwk) is not dict:
        raise InvalidDpopProof("its header has no public key in `jwk`")
    try:
        # Without `kid`, a key is named by its thumbprint. A client must not choose the name.
        return alg, Key.from_jwk({name: value for name, value in jwk.items() if name != "kid"}, alg=alg)
    except InvalidKey as refusal:
        raise InvalidDpopProof(f"its `jwk` is refused: {refusal.reason}") from None


def _members(part: bytes, name: str) -> dict[str, Any]:
    try:
        return strict_json.decode_object(_part(part, name))
    except strict_json.MalformedJSON as refusal:
        raise InvalidDpopProof(f"{name}: {refusal}") from None


def _part(part: bytes, name: str) -> bytes:
    try:
        return decode_part(part)
    except InvalidToken as refusal:
        raise InvalidDpopProof(f"{name} is {refusal.reason}") from None


def _text(claims: dict[str, Any], name: str, at_most: int) -> str:
    value = claims.get(name)
    if type(value) is not str or not 0 < len(value) <= at_most or not value.isprintable():
        raise InvalidDpopProof(f"its `{name}` is missing, or no text of at most {at_most} characters")
    return value


def _time(claims: dict[str, Any]) -> float:
    iat = claims.get("iat")
    if type(iat) is int or type(iat) is float:
        return iat
    raise InvalidDpopProof("its `iat` is missing, or no number")


def _plain(url: str) -> tuple[str, str, int | None, str]:
    """Return what is compared of a URL (RFC 9449, 4.3): scheme, host, port and path, without query and fragment. A
    server sees its path without escapes, so that `%2F` and a slash are one.

    Raises `InvalidDpopProof`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidDpopProof("its `htu` is no URL") from None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise InvalidDpopProof("its `htu` is no URL with http or https and a host")
    return parts.scheme, parts.hostname.rstrip("."), port or _PORTS[parts.scheme], unquote(parts.path) or "/"
