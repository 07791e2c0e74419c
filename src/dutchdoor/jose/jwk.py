"""Keys: each has exactly one algorithm, is parsed and checked once, and is cheap to use afterwards.

Follows RFC 7517 (JWK), 7518 (the algorithms), 7638 (thumbprints as `kid`), 8037 and 9864 (Ed25519 under both its
names). Deliberately left out: RSA-OAEP and the other encrypting algorithms, `none`, secp256k1, Ed448, X.509 chains, and
any way to fetch a key: this module never follows an address that a token names.

The algorithm is a property of the key, never of the token. Most of the famous JWT forgeries (HS256 with the RSA public
key as the secret: CVE-2017-11424, CVE-2022-29217, CVE-2024-33663) are one mistake: the verifier asks the token how to
check it.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import pybase64
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_der_public_key,
)

from dutchdoor.errors import InvalidKey
from dutchdoor.jose import strict_json
from dutchdoor.jose.signatures import (
    CURVE_OF,
    CURVES,
    Check,
    PrivateKey,
    PublicKey,
    Sign,
    cannot_sign,
    ec_check,
    ed25519_check,
    hmac_check,
    hmac_signer,
    rsa_check,
    signer,
)
from dutchdoor.jose.weak_secrets import is_known_leaked

__all__ = ["ALGORITHMS", "MAX_KEYS", "MAX_KID", "MAX_SET_BYTES", "Key", "KeySet", "is_known_leaked"]

MAX_KEYS: Final = 100
MAX_SET_BYTES: Final = 256 * 1024
"""A larger set is refused before it is parsed: it comes over the network, and each key costs a curve check."""
MAX_KID: Final = 255
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""The cost of a check grows with the square of the modulus: an attacker could use 16,384 bits to exhaust the processor.
"""
MAX_SECRET: Final = 4096
_MIN_DIFFERENT: Final = 8
"""Different bytes in a secret. 32 random bytes have thirty on average, and never as few as this."""
_MIN_EXPONENT: Final = 3
_MAX_EXPONENT_BITS: Final = 64
_RSA_ALGS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_HMAC_BYTES: Final[Mapping[str, int]] = {"HS256": 32, "HS384": 48, "HS512": 64}
_ED25519_NAMES: Final = frozenset({"EdDSA", "Ed25519"})
ALGORITHMS: Final = frozenset({*_RSA_ALGS, *CURVE_OF, *_HMAC_BYTES, *_ED25519_NAMES})

_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_NAMES_OF: Final[Mapping[str, frozenset[str]]] = {
    "EC": frozenset(CURVE_OF),
    "OKP": _ED25519_NAMES,
    "RSA": _RSA_ALGS,
    "oct": frozenset(_HMAC_BYTES),
}


class Key:
    """One key for one algorithm. Only the constructors below create one, and each refuses a key that must not be used.
    Its `repr` shows nothing secret.
    """

    __slots__ = (
        "_alone", "_private", "_public", "_secret", "accepts", "alg", "check", "kid",
        "sign", "signature_chars", "symmetric",
    )  # fmt: skip

    alg: str
    """The one algorithm the key signs with."""
    accepts: frozenset[str]
    """The `alg` names the key accepts in a token: one, or both names of Ed25519 if the key did not name one."""
    kid: str
    symmetric: bool
    check: Check
    """`check(signature, data)` returns whether this key made the signature. It raises nothing."""
    sign: Sign
    """`sign(data)` returns a signature in the form of JWS (for ECDSA the two numbers side by side, RFC 7518).

    Raises `InvalidKey` if this key has no private part.
    """
    signature_chars: int
    """Length of its signatures in base64url: a signature of any other length is refused before any cryptography."""

    def __init__(self) -> None:
        raise TypeError("use Key.generate, from_jwk, from_secret or from_private_bytes")

    # --- making one ---------------------------------------------------------------------------------------------------

    @classmethod
    def generate(cls, alg: str, *, kid: str | None = None) -> Key:
        """Generate a private key, named by its thumbprint (RFC 7638) unless `kid` is given.

        Raises:
            InvalidKey: `alg` is not one of `ALGORITHMS`.
        """
        if alg in _HMAC_BYTES:
            return cls.from_secret(secrets.token_bytes(_HMAC_BYTES[alg]), alg, kid=kid)
        private: PrivateKey
        if alg in _RSA_ALGS:
            private = rsa.generate_private_key(65537, MIN_RSA_BITS)
        elif alg in CURVE_OF:
            private = ec.generate_private_key(CURVE_OF[alg][1]())
        elif alg in _ED25519_NAMES:
            private = ed25519.Ed25519PrivateKey.generate()
        else:
            raise InvalidKey("unknown algorithm")
        return _asymmetric(private.public_key(), private, alg, frozenset({alg}), kid)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any], *, alg: str | None = None) -> Key:
        """Read a public JWK, or a symmetric one (`kty` `oct`).

        Args:
            jwk: the members, as a strict JSON reader returned them.
            alg: the algorithm of an RSA or `oct` key that does not name one. Other kinds of key decide it themselves.

        Raises:
            InvalidKey: it is malformed, weak, private, contradicts itself, or leaves its algorithm open.
        """
        if not isinstance(jwk, Mapping) or not all(type(name) is str for name in jwk):
            raise InvalidKey("a JWK is not an object")
        kty = jwk.get("kty")
        if type(kty) is not str or kty not in _NAMES_OF:
            raise InvalidKey("unknown kty")
        if kty != "oct" and not _PRIVATE_MEMBERS.isdisjoint(jwk):
            # The publisher of this JWK has published a private key. Accepting its public half would hide that.
            raise InvalidKey("a private member in a public key")
        name, accepts = _algorithm(jwk, kty, alg)
        _check_purpose(jwk, kty)
        kid = _kid(jwk["kid"]) if "kid" in jwk else None
        if kty == "oct":
            if not _PRIVATE_MEMBERS.isdisjoint(jwk.keys() - {"k"}):
                raise InvalidKey("a private member of another kind")
            return cls.from_secret(_bytes(jwk, "k", limit=MAX_SECRET), name, kid=kid)
        public: PublicKey
        if kty == "RSA":
            public = _rsa_public(jwk)
        elif kty == "EC":
            public = _ec_public(jwk, name)
        else:
            public = _ed25519_public(_bytes(jwk, "x", exactly=32))
        return _asymmetric(public, None, name, accepts, kid)

    @classmethod
    def from_secret(cls, secret: bytes, alg: str = "HS256", *, kid: str | None = None) -> Key:
        """Take a symmetric key. Every verifier that holds it can also sign with it.

        Raises:
            InvalidKey: it is shorter than the hash, known to attackers, repeats a few bytes, or is in fact a public
                key.
        """
        if alg not in _HMAC_BYTES:
            raise InvalidKey("not an HMAC algorithm")
        if not isinstance(secret, bytes) or len(secret) > MAX_SECRET:
            raise InvalidKey("a secret is bytes, at most 4,096 of them")
        if is_known_leaked(secret):
            raise InvalidKey("the secret is known to attackers")
        if len(secret) < _HMAC_BYTES[alg]:
            # RFC 7518, 3.2. An attacker can guess a shorter secret offline from a single token.
            raise InvalidKey("the secret is shorter than the hash")
        if len(set(secret)) < _MIN_DIFFERENT:
            raise InvalidKey("the secret has almost no entropy")
        if _is_key_text(secret):
            # The classic algorithm confusion: a public key, known to everyone, used as a secret.
            raise InvalidKey("the secret is an asymmetric key in some encoding")
        self = _blank(alg, frozenset({alg}), symmetric=True)
        self.kid = _thumbprint({"k": _b64(secret), "kty": "oct"}) if kid is None else _kid(kid)
        self._secret, self._private, self._public = secret, None, None
        self.sign = hmac_signer(secret, alg)
        self.check = hmac_check(self.sign)
        self.signature_chars = _chars(_HMAC_BYTES[alg])
        return self

    @classmethod
    def from_private_bytes(cls, alg: str, raw: bytes, *, kid: str | None = None) -> Key:
        """Read what `private_bytes` wrote: PKCS#8 in DER, or the secret itself.

        Raises:
            InvalidKey: it is not such a key, or must not be used.
        """
        if alg in _HMAC_BYTES:
            return cls.from_secret(raw, alg, kid=kid)
        try:
            return _from_private(load_der_private_key(raw, None), alg, kid)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidKey("not a private key that can be used") from None

    # --- using it -----------------------------------------------------------------------------------------------------

    def public(self) -> Key:
        """Return the key without its private part. A symmetric key has no public half and is returned as it is."""
        if self._public is None:
            return self
        return _asymmetric(self._public, None, self.alg, self.accepts, self.kid)

    def public_jwk(self) -> dict[str, object]:
        """Return the public JWK, fit for a published set.

        Raises:
            InvalidKey: the key is symmetric. It must never be published.
        """
        if self._public is None:
            raise InvalidKey("a symmetric key has no public form")
        return {**_public_members(self._public), "alg": self.alg, "kid": self.kid, "use": "sig"}

    def private_bytes(self) -> bytes:
        """Return the private part for sealing: PKCS#8 in DER, or the secret itself. `from_private_bytes` reads it.

        Raises:
            InvalidKey: this key has no private part.
        """
        if self.symmetric:
            return self._secret
        if self._private is None:
            raise InvalidKey("there is no private part to write")
        return self._private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def alone(self) -> KeySet:
        """Return the set that holds this key only."""
        if self._alone is None:
            self._alone = KeySet((self,))
        return self._alone

    def __repr__(self) -> str:
        return f"Key(alg={self.alg!r}, kid={self.kid!r})"

    _alone: KeySet | None
    _private: PrivateKey | None
    _public: PublicKey | None
    _secret: bytes


class KeySet:
    """Keys that may verify, found by `kid` only. Immutable: a rotation creates a new set.

    `known_headers` maps an encoded header to its parsed form, so that a set parses each header once. It holds only
    headers of tokens whose signature was valid, and at most `MAX_HEADERS`: an attacker's garbage cannot fill it.
    """

    __slots__ = ("_by_kid", "known_headers", "only")

    MAX_HEADERS: Final = 256

    def __init__(self, keys: Iterable[Key]) -> None:
        """Raises `InvalidKey`: no keys, too many, a `kid` twice, or symmetric and asymmetric ones together."""
        held = tuple(keys)
        if not held:
            raise InvalidKey("a key set without keys")
        if len(held) > MAX_KEYS:
            raise InvalidKey("too many keys in one set")
        self._by_kid = {key.kid: key for key in held}
        if len(self._by_kid) != len(held):
            raise InvalidKey("a kid is used twice")
        if len({key.symmetric for key in held}) != 1:
            # With a secret beside public keys, a published set can leak the secret, and algorithm confusion becomes
            # possible.
            raise InvalidKey("symmetric and asymmetric keys in one set")
        self.only: Key | None = held[0] if len(held) == 1 else None
        self.known_headers: dict[bytes, Any] = {}

    @classmethod
    def from_jwks(cls, jwks: bytes | str | Mapping[str, Any], *, alg: str | None = None) -> KeySet:
        """Read a JWK Set (RFC 7517, 5).

        Keys of a kind or curve we do not know, and well-formed keys for encryption, are passed over, as the RFC asks.
        One bad key among the others refuses the whole set: it is evidence that something is wrong with its source.

        Args:
            jwks: JSON text, or its members.
            alg: for keys that leave their algorithm open, as `Key.from_jwk`.

        Raises:
            InvalidKey: it is malformed, too large, or holds a key that must not be used, or none that can be.
        """
        if isinstance(jwks, str):
            try:
                jwks = jwks.encode()
            except UnicodeEncodeError:
                raise InvalidKey("a JWK set is not UTF-8") from None
        if isinstance(jwks, bytes):
            if len(jwks) > MAX_SET_BYTES:
                raise InvalidKey("a JWK set is too large")
            try:
                jwks = strict_json.decode_object(jwks)
            except strict_json.MalformedJSON as refusal:
                raise InvalidKey(str(refusal)) from None
        if not isinstance(jwks, Mapping):
            raise InvalidKey("a JWK set is not an object")
        entries = jwks.get("keys")
        if type(entries) is not list:
            raise InvalidKey("a JWK set has no list of keys")
        if len(entries) > MAX_KEYS:
            raise InvalidKey("too many keys in one set")
        named = [entry["kid"] for entry in entries if isinstance(entry, Mapping) and "kid" in entry]
        if len({_kid(kid) for kid in named}) != len(named):
            # Skipped keys count too: another reader of the set that looks up the kid would find another key than we do.
            raise InvalidKey("a kid is used twice")
        return cls(Key.from_jwk(entry, alg=alg) for entry in entries if not _passed_over(entry))

    def get(self, kid: str) -> Key | None:
        """Find a key by exact `kid`."""
        return self._by_kid.get(kid)

    @property
    def symmetric(self) -> bool:
        return next(iter(self)).symmetric

    def remember(self, header: bytes, meaning: Any) -> None:
        """Remember an encoded header's parsed form. Call it only after the token's signature was valid."""
        if header not in self.known_headers:
            if len(self.known_headers) >= self.MAX_HEADERS:
                self.known_headers.clear()
            self.known_headers[header] = meaning

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_kid.values())

    def __len__(self) -> int:
        return len(self._by_kid)

    def __repr__(self) -> str:
        return f"KeySet({list(self)!r})"


# --- reading members --------------------------------------------------------------------------------------------------


def _algorithm(jwk: Mapping[str, Any], kty: str, wanted: str | None) -> tuple[str, frozenset[str]]:
    """Decide the key's one algorithm, and the names for it a token may use."""
    fits = _NAMES_OF[kty]
    if kty == "EC":
        crv = jwk.get("crv")
        if type(crv) is not str or crv not in CURVES:
            raise InvalidKey("unknown curve")
        fits = frozenset({CURVES[crv][0]})
    elif kty == "OKP" and jwk.get("crv") != "Ed25519":
        raise InvalidKey("unknown curve")
    if "alg" in jwk:
        name = jwk["alg"]
        if type(name) is not str or name not in fits:
            raise InvalidKey("alg does not fit the key")
        if wanted is not None and wanted != name:
            raise InvalidKey("alg is not the one asked for")
        return name, frozenset({name})
    if wanted is not None:
        if wanted not in fits:
            raise InvalidKey("alg does not fit the key")
        return wanted, frozenset({wanted})
    if kty == "OKP":
        return "EdDSA", _ED25519_NAMES
    if len(fits) != 1:
        # RS256 and PS256 with one key are two algorithms: RFC 8725, 3.1 wants one.
        raise InvalidKey("the key does not say which alg it is for")
    (name,) = fits
    return name, fits


def _check_purpose(jwk: Mapping[str, Any], kty: str) -> None:
    if "use" in jwk and jwk["use"] != "sig":
        raise InvalidKey("use does not allow signatures")
    if "key_ops" in jwk:
        ops = jwk["key_ops"]
        if type(ops) is not list or not all(type(op) is str for op in ops) or len(set(ops)) != len(ops):
            raise InvalidKey("key_ops is malformed")
        # RFC 7517, 4.3: unrelated operations on one key are refused, and so is a use that says otherwise.
        if "verify" not in ops or not set(ops) <= ({"sign", "verify"} if kty == "oct" else {"verify"}):
            raise InvalidKey("key_ops does not allow verifying, and only that")


def _passed_over(entry: object) -> bool:
    """Return whether a set's entry is well-formed but of no use here."""
    if not isinstance(entry, Mapping):
        raise InvalidKey("a JWK is not an object")
    kty, crv, use = entry.get("kty"), entry.get("crv"), entry.get("use")
    if type(kty) is not str or (use is not None and type(use) is not str):
        raise InvalidKey("a JWK's kty or use is malformed")
    if kty in _NAMES_OF and kty != "oct" and not _PRIVATE_MEMBERS.isdisjoint(entry):
        raise InvalidKey("a private member in a public key")
    if use == "enc":
        # A signature algorithm on a key for encryption is a contradiction, and refused as such.
        return entry.get("alg") not in ALGORITHMS and entry.get("key_ops") is None
    if kty in {"EC", "OKP"}:
        return type(crv) is str and crv not in CURVES and crv != "Ed25519"
    return kty not in _NAMES_OF


def _kid(value: object) -> str:
    if type(value) is not str or not 0 < len(value) <= MAX_KID or not value.isprintable():
        raise InvalidKey("kid is malformed")
    return value


def _bytes(jwk: Mapping[str, Any], member: str, *, exactly: int | None = None, limit: int = MAX_RSA_BITS // 8) -> bytes:
    """Read a member as canonical base64url without padding."""
    text = jwk.get(member)
    if type(text) is not str or not text.isascii() or not 0 < len(text) <= limit * 4 // 3 + 4:
        raise InvalidKey(f"{member} is malformed")
    if "+" in text or "/" in text:  # the decoder would accept them, with a warning
        raise InvalidKey(f"{member} is not base64url")
    try:
        raw = pybase64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidKey(f"{member} is malformed") from None
    if _b64(raw) != text:
        raise InvalidKey(f"{member} is not canonical base64url")
    if exactly is not None and len(raw) != exactly:
        raise InvalidKey(f"{member} has the wrong length")
    return raw


def _number(jwk: Mapping[str, Any], member: str) -> int:
    raw = _bytes(jwk, member)
    if raw[0] == 0:
        raise InvalidKey(f"{member} has leading zeros")  # RFC 7518, 2: Base64urlUInt is minimal
    return int.from_bytes(raw, "big")


def _b64(raw: bytes) -> str:
    return pybase64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _b64_number(value: int) -> str:
    return _b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _chars(size: int) -> int:
    return (size * 4 + 2) // 3


# --- RSA --------------------------------------------------------------------------------------------------------------


def _rsa_public(jwk: Mapping[str, Any]) -> rsa.RSAPublicKey:
    n, e = _number(jwk, "n"), _number(jwk, "e")
    _check_rsa(n, e)
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey("not an RSA key") from None


def _check_rsa(n: int, e: int) -> None:
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS:
        raise InvalidKey("an RSA modulus has 2,048 to 8,192 bits")
    if e % 2 == 0 or e < _MIN_EXPONENT or e.bit_length() > _MAX_EXPONENT_BITS:
        # With 1 every message is its own signature; an even exponent has no inverse; a huge one makes checks slow.
        raise InvalidKey("the RSA exponent is even, 1 or too large")
    if n % 2 == 0 or any(n % prime == 0 for prime, _ in _ROCA):
        raise InvalidKey("the RSA modulus has a small factor")
    if all(n % prime in residues for prime, residues in _ROCA):
        raise InvalidKey("the RSA modulus has the ROCA fingerprint (CVE-2017-15361)")


def _powers(prime: int) -> frozenset[int]:
    """The residues that 65537 generates modulo a prime. Vulnerable primes are 65537^a mod the product of small
    primes.
    """
    residues, residue = set(), 1
    while residue not in residues:
        residues.add(residue)
        residue = residue * 65537 % prime
    return frozenset(residues)


_ROCA: Final = tuple((p, _powers(p)) for p in range(3, 168, 2) if all(p % q for q in range(3, math.isqrt(p) + 1, 2)))
"""The small primes and their residues. A sound modulus has this fingerprint by chance once in 2^27; see `_check_rsa`.
"""


# --- elliptic curves --------------------------------------------------------------------------------------------------


def _ec_public(jwk: Mapping[str, Any], alg: str) -> ec.EllipticCurvePublicKey:
    _, curve, size = CURVE_OF[alg]
    x, y = (int.from_bytes(_bytes(jwk, member, exactly=size), "big") for member in ("x", "y"))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()  # refuses points off the curve
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey("not a point on the curve") from None


_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ORDER_8_Y: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _ORDER_8_Y, _P - _ORDER_8_Y})


def _ed25519_public(raw: bytes) -> ed25519.Ed25519PublicKey:
    """Read a point. OpenSSL checks it only when it verifies, and accepts points of small order even then."""
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P:
        raise InvalidKey("not a canonical point")
    if y in _SMALL_ORDER_Y:
        # Under such a key one signature is valid for every message.
        raise InvalidKey("a point of small order")
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(x_squared, (_P - 1) // 2, _P) != 1:
        raise InvalidKey("not a point on the curve")
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


# --- symmetric --------------------------------------------------------------------------------------------------------

_KEY_MARKS = (b"-----BEGIN", b"PUBLICKEY", b"PRIVATEKEY", b"ssh-rsa", b"ssh-ed25519", b"ecdsa-sha2-", b'"kty"')


def _is_key_text(secret: bytes) -> bool:
    """Recognise an asymmetric key in PEM, DER, JWK, JWKS or SSH form, with whitespace added or removed."""
    packed = re.sub(rb"\s+|\\n|\\r", b"", secret)
    if any(mark in packed for mark in _KEY_MARKS):
        return True
    bodies = [secret]
    with suppress(ValueError):
        bodies.append(pybase64.b64decode(packed.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/")) + b"=="))
    for body in bodies:
        if body[:1] == b"\x30":
            for load in (load_der_public_key, lambda der: load_der_private_key(der, None)):
                try:
                    load(body)
                except (ValueError, TypeError, UnsupportedAlgorithm):
                    continue
                return True
    return False


# --- putting a key together -------------------------------------------------------------------------------------------


def _blank(alg: str, accepts: frozenset[str], *, symmetric: bool) -> Key:
    key = Key.__new__(Key)
    key.alg, key.accepts, key.symmetric = alg, accepts, symmetric
    key._alone = None  # noqa: SLF001
    return key


def _from_private(private: object, alg: str, kid: str | None) -> Key:
    public: PublicKey
    if isinstance(private, rsa.RSAPrivateKey) and alg in _RSA_ALGS:
        public = private.public_key()
        numbers = public.public_numbers()
        _check_rsa(numbers.n, numbers.e)
    elif isinstance(private, ec.EllipticCurvePrivateKey) and alg in CURVE_OF:
        public = private.public_key()
        if not isinstance(public.curve, CURVE_OF[alg][1]):
            raise InvalidKey("alg does not fit the curve")
    elif isinstance(private, ed25519.Ed25519PrivateKey) and alg in _ED25519_NAMES:
        public = private.public_key()
    else:
        raise InvalidKey("alg does not fit the key")
    return _asymmetric(public, private, alg, frozenset({alg}), kid)


def _asymmetric(
    public: PublicKey, private: PrivateKey | None, alg: str, accepts: frozenset[str], kid: str | None
) -> Key:
    self = _blank(alg, accepts, symmetric=False)
    self._public, self._private, self._secret = public, private, b""
    if isinstance(public, rsa.RSAPublicKey):
        size = (public.key_size + 7) // 8
        self.check = rsa_check(public, alg)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        size = 2 * CURVE_OF[alg][2]
        self.check = ec_check(public, alg)
    else:
        size = 64
        self.check = ed25519_check(public)
    self.signature_chars = _chars(size)
    self.kid = _thumbprint(_public_members(public)) if kid is None else _kid(kid)
    self.sign = cannot_sign if private is None else signer(private, alg)
    return self


def _public_members(public: PublicKey) -> dict[str, object]:
    if isinstance(public, rsa.RSAPublicKey):
        rsa_numbers = public.public_numbers()
        return {"e": _b64_number(rsa_numbers.e), "kty": "RSA", "n": _b64_number(rsa_numbers.n)}
    if isinstance(public, ec.EllipticCurvePublicKey):
        numbers = public.public_numbers()
        crv, size = next((crv, size) for crv, (_, curve, size) in CURVES.items() if isinstance(public.curve, curve))
        x, y = (_b64(value.to_bytes(size, "big")) for value in (numbers.x, numbers.y))
        return {"crv": crv, "kty": "EC", "x": x, "y": y}
    return {"crv": "Ed25519", "kty": "OKP", "x": _b64(public.public_bytes_raw())}


def _thumbprint(members: Mapping[str, object]) -> str:
    """RFC 7638: the required members, sorted, without whitespace. None of them needs escaping."""
    text = "{" + ",".join(f'"{name}":"{members[name]}"' for name in sorted(members)) + "}"
    return _b64(hashlib.sha256(text.encode()).digest())
