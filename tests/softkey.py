"""An authenticator in software, and the browser in front of it: each part of what they say can be another."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from fido2 import cbor
from fido2.cose import ES256, RS256, CoseKey, EdDSA

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40
PRESENT, VERIFIED = UP, UP | UV
SYNCHRONISED = UP | UV | BE | BS


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


class SoftKey:
    """One passkey. `counts` is for a key that counts its signatures, as security keys do."""

    def __init__(self, origin: str, *, alg: int = ES256.ALGORITHM, flags: int = VERIFIED, counts: bool = False) -> None:
        self.origin, self.flags, self.counts, self.count = origin, flags, counts, 0
        self.id, self.user, self.rp_id = secrets.token_bytes(24), b"", ""
        if alg == ES256.ALGORITHM:
            elliptic = ec.generate_private_key(ec.SECP256R1())
            self.sign = lambda data: elliptic.sign(data, ec.ECDSA(SHA256()))
            self.public: CoseKey = ES256.from_cryptography_key(elliptic.public_key())
        elif alg == EdDSA.ALGORITHM:
            edwards = ed25519.Ed25519PrivateKey.generate()
            self.sign = edwards.sign
            self.public = EdDSA.from_cryptography_key(edwards.public_key())
        else:
            long = rsa.generate_private_key(65537, 2048)
            self.sign = lambda data: long.sign(data, PKCS1v15(), SHA256())
            self.public = RS256.from_cryptography_key(long.public_key())

    def create(self, options: Mapping[str, Any], **other: Any) -> dict[str, Any]:
        """Answer `navigator.credentials.create`. `other` are parts to be false."""
        self.user, self.rp_id = raw(options["user"]["id"]), options["rp"]["id"]
        held = bytes(16) + pack(">H", len(self.id)) + self.id + cbor.encode(other.get("public", self.public))
        data = self._data(other, AT) + held
        return {
            "id": b64(self.id),
            "rawId": b64(self.id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": b64(self._client_data("webauthn.create", options, other)),
                "attestationObject": b64(cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})),
                "authenticatorData": b64(data),
                "transports": ["internal", "hybrid"],
                "publicKeyAlgorithm": -7,
            },
        }

    def get(self, options: Mapping[str, Any], **other: Any) -> dict[str, Any]:
        """Answer `navigator.credentials.get`. `other` are parts to be false."""
        client_data = self._client_data("webauthn.get", options, other)
        data = self._data(other)
        signature = self.sign(data + sha256(client_data).digest())
        return {
            "id": b64(other.get("id", self.id)),
            "rawId": b64(other.get("id", self.id)),
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": b64(client_data),
                "authenticatorData": b64(data),
                "signature": b64(other.get("signature", signature)),
                "userHandle": b64(other.get("user", self.user)),
            },
        }

    def _data(self, other: Mapping[str, Any], more: int = 0) -> bytes:
        self.count += self.counts
        site = sha256(other.get("rp_id", self.rp_id).encode()).digest()
        return site + pack(">BI", other.get("flags", self.flags) | more, other.get("count", self.count))

    def _client_data(self, kind: str, options: Mapping[str, Any], other: Mapping[str, Any]) -> bytes:
        said = {
            "type": other.get("type", kind),
            "challenge": other.get("challenge", options["challenge"]),
            "origin": other.get("origin", self.origin),
            "crossOrigin": other.get("embedded", False),
        }
        return json.dumps(said).encode()
