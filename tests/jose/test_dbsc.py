"""The proofs of a browser's key (Device Bound Session Credentials), read strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.b64 import b64
from tests.devicekey import DeviceKey, made

from dutchdoor.errors import DeviceKeyRefused, InvalidKey
from dutchdoor.jose.dbsc import PROOF_AT_MOST, key_of, read_proof, text_of
from dutchdoor.jose.jwk import Key

CHALLENGE = "AGsMztz6ik6OO3Xp2G2-Gw_-sw2q"
DEVICE = DeviceKey()
LONG = DeviceKey("RS256")


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def registered(header: dict[str, Any], payload: object = None, key: Key = DEVICE.key) -> str:
    return made(key, header, {"jti": CHALLENGE} if payload is None else payload)


FULL: dict[str, Any] = {"alg": "ES256", "jwk": DEVICE.jwk, "typ": "dbsc+jwt"}
EDDSA = Key.generate("EdDSA")
SHORT = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
OFF_CURVE = {**DEVICE.jwk, "y": b64(bytes(31) + b"\x01")}


@pytest.mark.parametrize("device", [DEVICE, LONG], ids=["ES256", "RS256"])
def test_k10_a_right_proof_is_taken(device: DeviceKey) -> None:
    """A registration brings its key, named by its thumbprint; what a session keeps of it checks the proofs after it."""
    first = read_proof(device.registration(CHALLENGE), registers=True)
    assert first.challenge == CHALLENGE
    assert first.key is not None
    assert first.is_by(first.key)
    assert first.key.kid == device.key.kid
    kept = text_of(first.key)
    assert " " not in kept, "it is one word of a binding"
    assert len(device.registration(CHALLENGE)) < PROOF_AT_MOST / 2
    again = read_proof(device.proof(CHALLENGE), registers=False)
    assert again.key is None
    assert again.is_by(key_of(kept, first.alg))
    assert not again.is_by(DeviceKey(device.key.alg).key)
    assert not again.is_by((LONG if device is DEVICE else DEVICE).key), "the other algorithm"


def test_k10_quotes_and_other_claims_are_taken() -> None:
    """The draft has the proof in quotes, and Chromium sends none. Claims that a later browser adds change nothing."""
    proof = made(DEVICE.key, FULL, {"jti": CHALLENGE, "aud": "https://other.example/", "iat": 1})
    quoted = read_proof(f'"{proof}"', registers=True)
    assert quoted.signed + b"." + quoted.signature == proof.encode()
    assert quoted.signature.decode() not in repr(quoted)


WRONG = {
    "algorithm none": (registered({**FULL, "alg": "none"}), "its `alg` is none of ES256, RS256"),
    "EdDSA": (registered({**FULL, "alg": "EdDSA"}, key=EDDSA), "its `alg` is none of"),
    "ES384": (registered({**FULL, "alg": "ES384"}), "its `alg` is none of"),
    "HS256": (registered({**FULL, "alg": "HS256"}), "its `alg` is none of"),
    "no alg": (registered({"jwk": DEVICE.jwk, "typ": "dbsc+jwt"}), "its `alg` is none of"),
    "alg is a list": (registered({**FULL, "alg": ["ES256"]}), "its `alg` is none of"),
    "typ of an access token": (registered({**FULL, "typ": "at+jwt"}), "its `typ` is not dbsc+jwt"),
    "typ of a DPoP proof": (registered({**FULL, "typ": "dpop+jwt"}), "its `typ` is not dbsc+jwt"),
    "typ in capitals": (registered({**FULL, "typ": "DBSC+JWT"}), "its `typ` is not dbsc+jwt"),
    "no typ": (registered({"alg": "ES256", "jwk": DEVICE.jwk}), "its `typ` is not dbsc+jwt"),
    "no jti": (registered(FULL, {"iat": 1}), "its `jti` is no challenge"),
    "jti is a number": (registered(FULL, {"jti": 1}), "its `jti` is no challenge"),
    "jti is empty": (registered(FULL, {"jti": ""}), "its `jti` is no challenge"),
    "jti is too long": (registered(FULL, {"jti": "x" * 129}), "its `jti` is no challenge"),
    "no jwk": (DEVICE.proof(CHALLENGE), "its header has no `jwk`"),
    "jwk is a text": (registered({**FULL, "jwk": "x"}), "its `jwk` is no public key"),
    "jwk with its private part": (registered({**FULL, "jwk": {**DEVICE.jwk, "d": "AAAA"}}), "a private member"),
    "jwk is a secret": (
        registered({**FULL, "jwk": {"kty": "oct", "k": b64(bytes(range(64)))}}),
        "its `jwk` is refused",
    ),
    "jwk of EdDSA": (registered({**FULL, "jwk": EDDSA.public_jwk()}), "its `jwk`"),
    "jwk of RSA under ES256": (registered({**FULL, "jwk": LONG.jwk}), "its `jwk`"),
    "jwk of P-256 under RS256": (registered({**FULL, "alg": "RS256"}), "its `jwk`"),
    "RSA of 1,024 bits": (
        registered({**FULL, "alg": "RS256", "jwk": {"kty": "RSA", "n": number(SHORT.n), "e": "AQAB"}}),
        "its `jwk` is refused",
    ),
    "RSA with the exponent 1": (registered({**FULL, "alg": "RS256", "jwk": {**LONG.jwk, "e": "AQ"}}), "its `jwk` is"),
    "point that is not on the curve": (registered({**FULL, "jwk": OFF_CURVE}), "its `jwk` is refused"),
    "point of the wrong length": (registered({**FULL, "jwk": {**DEVICE.jwk, "x": "AQ"}}), "its `jwk` is refused"),
    "key by reference": (registered({**FULL, "jku": "https://evil.example/"}), "a parameter that is refused"),
    "certificate": (registered({**FULL, "x5c": ["AA"]}), "a parameter that is refused"),
    "crit": (registered({**FULL, "crit": ["b64"], "b64": False}), "a parameter that is refused"),
    "two alg": (
        made(DEVICE.key, b'{"alg":"none",' + json.dumps(FULL)[1:].encode(), {"jti": CHALLENGE}),
        "its header: ",
    ),
    "two jti": (made(DEVICE.key, FULL, b'{"jti":"a","jti":"b"}'), "its payload: "),
    "payload is a list": (made(DEVICE.key, FULL, []), "its payload: "),
    "header is no JSON": (made(DEVICE.key, b"{", {"jti": CHALLENGE}), "its header: "),
    "oversized": (made(DEVICE.key, FULL, {"jti": CHALLENGE, "x": "x" * PROOF_AT_MOST}), "no signed JWT of at most"),
    "two parts": (DEVICE.registration(CHALLENGE).rpartition(".")[0], "no signed JWT of at most"),
    "four parts": (DEVICE.registration(CHALLENGE) + ".x", "no signed JWT of at most"),
    "other letters": ("é.é.é", "no signed JWT of at most"),
    "padding": (DEVICE.registration(CHALLENGE).replace(".", "=.", 1), "its header is "),
    "empty": ("", "no signed JWT of at most"),
    "quotes alone": ('""', "no signed JWT of at most"),
}


@pytest.mark.parametrize("name", WRONG)
def test_k11_a_wrong_registration_is_refused(name: str) -> None:
    """A registration that is wrong in one thing is refused before any signature is checked, and the error says why."""
    proof, why = WRONG[name]
    with pytest.raises(DeviceKeyRefused) as refused:
        read_proof(proof, registers=True)
    assert why in refused.value.reason
    assert refused.value.reason in str(refused.value)


def test_k11_a_signature_by_another_key_is_no_proof() -> None:
    """A signature that is wrong, of another length, or no base64url, proves nothing, and raises nothing."""
    signed = DEVICE.registration(CHALLENGE).rpartition(".")[0]
    for tail in (b64(bytes(64)), b64(bytes(63)), "!" * 86, "", b64(DEVICE.key.sign(b"another text"))):
        proof = read_proof(f"{signed}.{tail}", registers=True)
        assert proof.key is not None
        assert not proof.is_by(proof.key), tail


def test_k11_a_refresh_brings_no_key() -> None:
    """A key in the header of a later proof is refused: a thief could bring another one."""
    with pytest.raises(DeviceKeyRefused, match="has a `jwk`"):
        read_proof(DEVICE.proof(CHALLENGE, jwk=DeviceKey().jwk), registers=False)


def test_k11_what_is_kept_of_a_key_is_the_key_alone() -> None:
    """A session keeps the members of RFC 7638 of a key: no name that the browser chose, no use, no algorithm."""
    proof = registered({**FULL, "jwk": {**DEVICE.jwk, "kid": "of-my-own", "alg": "ES256", "use": "sig"}})
    key = read_proof(proof, registers=True).key
    assert key is not None
    assert set(json.loads(text_of(key))) == {"kty", "crv", "x", "y"}
    assert key.kid == DEVICE.key.kid
    with pytest.raises(InvalidKey):
        key_of(text_of(key), "RS256")
