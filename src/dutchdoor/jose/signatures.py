"""Makes and checks one signature, for each family of algorithms (RFC 7518, 3; RFC 8037).

A key builds these functions once: work that does not depend on the message is done then. Signatures are in the form of
JWS. `jws` has compared a signature's length before a check sees it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from dutchdoor.errors import InvalidKey

__all__ = [
    "CURVES", "CURVE_OF", "Check", "PrivateKey", "PublicKey", "Sign", "cannot_sign", "ec_check", "ed25519_check",
    "hmac_check", "hmac_signer", "rsa_check", "signer",
]  # fmt: skip

_LONG: Final = 0x80
"""From this length on, DER writes a length in two bytes."""

_HASH: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
CURVES: Final[Mapping[str, tuple[str, type[ec.EllipticCurve], int]]] = {
    "P-256": ("ES256", ec.SECP256R1, 32),
    "P-384": ("ES384", ec.SECP384R1, 48),
    "P-521": ("ES512", ec.SECP521R1, 66),
}
CURVE_OF = {alg: (crv, curve, size) for crv, (alg, curve, size) in CURVES.items()}

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Check: TypeAlias = Callable[[bytes, bytes], bool]
Sign: TypeAlias = Callable[[bytes], bytes]


def hmac_signer(secret: bytes, alg: str) -> Sign:
    """Return HMAC (RFC 2104) with its two key blocks hashed once: half the cost of `hmac.digest`, which hashes them per
    call.
    """
    new = getattr(hashlib, "sha" + alg[2:])
    block = new().block_size
    padded = (new(secret).digest() if len(secret) > block else secret).ljust(block, b"\0")
    inner_copy = new(bytes(byte ^ 0x36 for byte in padded)).copy
    outer_copy = new(bytes(byte ^ 0x5C for byte in padded)).copy

    def sign(data: bytes) -> bytes:
        inner = inner_copy()
        inner.update(data)
        outer = outer_copy()
        outer.update(inner.digest())
        return outer.digest()  # type: ignore[no-any-return]

    return sign


def hmac_check(sign: Sign) -> Check:
    equal = hmac.compare_digest

    def check(signature: bytes, data: bytes) -> bool:
        return equal(sign(data), signature)

    return check


def _rsa_padding(alg: str) -> padding.AsymmetricPadding:
    if alg[0] == "P":
        digest = _HASH[alg[2:]]
        return padding.PSS(padding.MGF1(digest), digest.digest_size)  # RFC 7518, 3.5: the salt is as long as the hash
    return padding.PKCS1v15()


def rsa_check(public: rsa.RSAPublicKey, alg: str) -> Check:
    verify, scheme, digest = public.verify, _rsa_padding(alg), _HASH[alg[2:]]

    def check(signature: bytes, data: bytes) -> bool:
        try:
            verify(signature, data, scheme, digest)
        except InvalidSignature:
            return False
        return True

    return check


def ec_check(public: ec.EllipticCurvePublicKey, alg: str) -> Check:
    verify, scheme, half = public.verify, ec.ECDSA(_HASH[alg[2:]]), CURVE_OF[alg][2]
    frames, join = tuple(_frame(half, high_r, high_s) for high_r in (0, 1) for high_s in (0, 1)), b"".join

    def check(signature: bytes, data: bytes) -> bool:
        # OpenSSL reads DER. A conversion through Python's integers costs three times as much as this.
        first_r, first_s = signature[0], signature[half]
        if first_r and first_s:
            before_r, before_s = frames[(first_r >> 6) & 2 | first_s >> 7]
            der = join((before_r, signature[:half], before_s, signature[half:]))
        else:
            der = encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
        try:
            verify(der, data, scheme)
        except InvalidSignature:
            return False
        return True

    return check


def _frame(half: int, high_r: int, high_s: int) -> tuple[bytes, bytes]:
    """Return what DER writes before r and before s, if neither begins with a zero byte.

    A number whose first bit is set gets a zero in front, or it would read as negative.
    """
    size = 4 + 2 * half + high_r + high_s
    sequence = bytes((0x30, size)) if size < _LONG else bytes((0x30, 0x81, size))
    r, s = (bytes((2, half + high)) + bytes(high) for high in (high_r, high_s))
    return sequence + r, s


def ed25519_check(public: ed25519.Ed25519PublicKey) -> Check:
    verify = public.verify

    def check(signature: bytes, data: bytes) -> bool:
        try:
            verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return check


def cannot_sign(data: bytes) -> bytes:  # noqa: ARG001
    raise InvalidKey("a public key cannot sign")


def signer(private: PrivateKey, alg: str) -> Sign:
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign
    digest = _HASH[alg[2:]]
    if isinstance(private, rsa.RSAPrivateKey):
        rsa_sign, rsa_scheme = private.sign, _rsa_padding(alg)
        return lambda data: rsa_sign(data, rsa_scheme, digest)
    ec_sign, ec_scheme, half = private.sign, ec.ECDSA(digest), CURVE_OF[alg][2]

    def sign(data: bytes) -> bytes:
        # SEQUENCE of two INTEGERs, as OpenSSL wrote it: its length takes one byte, or two for P-521.
        der = ec_sign(data, ec_scheme)
        start = 4 if der[1] < _LONG else 5
        end = start + der[start - 1]
        # Take the last bytes of each number: DER puts a zero before them for the sign, and omits leading zeros of a
        # shorter number.
        return der[start:end][-half:].rjust(half, b"\0") + der[end + 2 :][-half:].rjust(half, b"\0")

    return sign
