"""Keys in PEM, as other libraries want them. Ours are written only to be sealed."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from dutchdoor.jose.jwk import Key


@cache
def private_pem(key: Key) -> bytes:
    private = load_der_private_key(key.private_bytes(), None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def public_pem(key: Key) -> bytes:
    public = load_der_private_key(key.private_bytes(), None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
