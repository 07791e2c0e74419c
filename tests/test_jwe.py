"""Encrypted tokens: off unless configured, one way each, and nothing but what we write is decrypted."""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("joserfc", reason="the extra `jwe` is not installed")

from joserfc import jwe
from joserfc.jwk import ECKey, OctKey, RSAKey

from dutchdoor.access.jwe import EncryptedTokenVerifier, TokenEncryption
from dutchdoor.access.jwt import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.errors import InvalidKey, InvalidToken
from dutchdoor.keys import Key

ISS, AUD, NOW = "https://auth.example.com", "https://api.example.com", 1_800_000_000.0
KEY, RECIPIENT = Key.generate("ES256"), Key.generate("ES256")
SECRET = os.urandom(32)
DIRECT = TokenEncryption.direct(SECRET, kid="d")
ECDH = TokenEncryption.ecdh_es(RECIPIENT.private_pem(), kid="e")
TO_ECDH = TokenEncryption.ecdh_es(RECIPIENT.public_pem(), kid="e")
SIGNED = AccessTokenIssuer(issuer=ISS, audience=AUD)(
    key=KEY, now=NOW, lifetime=600.0, subject="somebody", client_id="web", epoch=3, amr=["pwd"], roles=["admin"]
)
VERIFY = AccessTokenVerifier(keys=KEY.public(), issuer=ISS, audience=AUD, clock=lambda: NOW)
PAIRS = {"dir": (DIRECT, DIRECT), "ECDH-ES": (TO_ECDH, ECDH)}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def header_of(token: str) -> dict[str, Any]:
    head = token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))


def sealed(header: dict[str, Any], text: bytes = SIGNED.encode()) -> str:
    """A token encrypted with the right key, whatever its header says."""
    head, nonce = b64(json.dumps(header).encode()), os.urandom(12)
    both = AESGCM(SECRET).encrypt(nonce, text, head.encode())
    return f"{head}..{b64(nonce)}.{b64(both[:-16])}.{b64(both[-16:])}"


def refused(token: Any, encryption: TokenEncryption = DIRECT) -> str:
    with pytest.raises(InvalidToken) as refusal:
        EncryptedTokenVerifier(VERIFY, encryption)(token)
    return refusal.value.reason


@pytest.mark.parametrize("way", PAIRS)
def test_a_token_goes_in_and_comes_out(way: str) -> None:
    """What is encrypted to a key is verified by its holder, shows nothing to the client, and differs every time."""
    sender, reader = PAIRS[way]
    token = sender.encrypt(SIGNED)
    assert EncryptedTokenVerifier(VERIFY, reader)(token) == VERIFY(SIGNED)
    assert EncryptedTokenVerifier(VERIFY, reader)(token.encode()).sub == "somebody"
    assert header_of(token).items() >= {"alg": way, "enc": "A256GCM", "cty": "JWT", "kid": sender.kid}.items()
    assert SIGNED.split(".")[1] not in token
    assert sender.encrypt(SIGNED) != token
    assert len(token) < 2000


def test_j16_encrypted_tokens_are_refused_unless_configured() -> None:
    """J16: the ordinary verifier refuses every encrypted token; the one for encrypted tokens refuses those in the
    clear.
    """
    for sender, _ in PAIRS.values():
        with pytest.raises(InvalidToken):
            VERIFY(sender.encrypt(SIGNED))
    refused(SIGNED)


def test_what_is_inside_is_verified() -> None:
    """Encryption proves nothing: a token inside that is forged, foreign or no token at all is refused."""
    for inside in ("", "x", SIGNED.replace(".", ".A", 1), json.dumps({"sub": "admin"}), DIRECT.encrypt(SIGNED)):
        refused(DIRECT.encrypt(inside))
    refused(DIRECT.encrypt(SIGNED), TokenEncryption.direct(os.urandom(32), kid="d"))
    refused(TO_ECDH.encrypt(SIGNED), TokenEncryption.ecdh_es(Key.generate("ES256").private_pem(), kid="e"))
    assert refused(TO_ECDH.encrypt(SIGNED), TO_ECDH) == "there is no private key to decrypt with"


def test_j16_no_other_way_in() -> None:
    """J16: another algorithm, cipher, key or kid, `zip`, `crit`, or any parameter we do not write is refused."""
    key = OctKey.import_key(SECRET)
    base = {"alg": "dir", "enc": "A256GCM", "cty": "JWT", "kid": "d"}
    assert EncryptedTokenVerifier(VERIFY, DIRECT)(sealed(base)).sub == "somebody"
    for changed in (
        *({"zip": "DEF"}, {"kid": "other"}, {"kid": None}, {"cty": "jwt"}, {"typ": "JWT"}, {"p2c": 10**9}, {"x": 1}),
        *(
            {"jku": "https://x"},
            {"crit": []},
            {"alg": "ECDH-ES"},
            {"alg": "none"},
            {"alg": ["dir"]},
            {"enc": "A128GCM"},
        ),
    ):
        refused(sealed({**base, **changed}))
    for missing in ("alg", "enc", "cty"):
        refused(sealed({name: value for name, value in base.items() if name != missing}))
    assert EncryptedTokenVerifier(VERIFY, DIRECT)(sealed({name: base[name] for name in ("alg", "enc", "cty")}))
    wrapped = {**base, "alg": "A256KW"}
    refused(jwe.encrypt_compact(wrapped, SIGNED, key, algorithms=["A256KW", "A256GCM"]))
    oaep = {**base, "alg": "RSA-OAEP"}
    refused(jwe.encrypt_compact(oaep, SIGNED, RSAKey.generate_key(2048), algorithms=["RSA-OAEP", "A256GCM"]))
    other = ECKey.generate_key("P-384")
    ours = {**base, "alg": "ECDH-ES", "kid": "e"}
    refused(jwe.encrypt_compact(ours, SIGNED, other, algorithms=["ECDH-ES", "A256GCM"]), ECDH)


def test_j16_bombs_cost_nothing() -> None:
    """J16: a compression bomb, a huge iteration count and 1 MiB of token are refused within 20 ms each."""
    bomb = zlib.compress(bytes(10_000_000), 9)[2:-4]
    bomb_head = b64(json.dumps({"alg": "dir", "enc": "A256GCM", "cty": "JWT", "zip": "DEF"}).encode())
    slow_head = b64(json.dumps({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2s": "AA", "p2c": 2**31}).encode())
    tokens = [
        f"{bomb_head}..{'A' * 16}.{b64(bomb)[:7000]}.{'A' * 22}",
        f"{slow_head}.AA.AA.AA.AA",
        "A" * (1 << 20),
        ".".join(["A" * 200_000] * 5),
    ]
    for token in tokens:
        started = time.perf_counter()
        refused(token)
        refused(token, ECDH)
        assert time.perf_counter() - started < 0.04


def test_points_off_the_curve_are_refused() -> None:
    """An ephemeral key that is no point of the curve, or brings more than a point, is refused before it is used."""
    token = TO_ECDH.encrypt(SIGNED)
    parts = token.split(".")
    header = header_of(token)
    good = header["epk"]
    for epk in (
        *(None, {}, "x", {**good, "y": good["x"]}, {**good, "d": good["x"]}, {**good, "crv": "P-384"}),
        *({**good, "x": "AA"}, [good]),
    ):
        refused(".".join([b64(json.dumps({**header, "epk": epk}).encode()), *parts[1:]]), ECDH)
    without = {name: value for name, value in header.items() if name != "epk"}
    refused(".".join([b64(json.dumps(without).encode()), *parts[1:]]), ECDH)
    direct = DIRECT.encrypt(SIGNED)
    refused(".".join([b64(json.dumps({**header_of(direct), "epk": good}).encode()), *direct.split(".")[1:]]))


@pytest.mark.parametrize("way", PAIRS)
def test_no_character_can_be_changed(way: str) -> None:
    """Every part is authenticated and has one spelling: a token changed in any character is refused."""
    sender, reader = PAIRS[way]
    token = sender.encrypt(SIGNED)
    for index in range(0, len(token), 5):
        for letter in "A-_+=. ":
            if token[index] != letter:
                refused(token[:index] + letter + token[index + 1 :], reader)


def test_bad_keys_are_refused() -> None:
    """A secret of another length or a known one, and a key of another curve or kind, encrypts nothing."""
    for secret in (b"", b"x" * 32, os.urandom(31), os.urandom(33), b"secret" * 5 + b"se"):
        with pytest.raises(InvalidKey):
            TokenEncryption.direct(secret, kid="d")
    for pem in (b"", Key.generate("ES384").private_pem(), Key.generate("EdDSA").public_pem()):
        with pytest.raises(InvalidKey):
            TokenEncryption.ecdh_es(pem, kid="e")
    with pytest.raises(InvalidKey):
        TokenEncryption.direct(os.urandom(32), kid="")
    assert b64(SECRET) not in repr(DIRECT)


@given(st.text() | st.binary() | st.from_regex(r"[\w-]{1,40}\.\.[\w-]{16}\.[\w-]{1,40}\.[\w-]{22}", fullmatch=True))
def test_only_invalid_token_escapes(token: str | bytes) -> None:
    """Whatever comes, InvalidToken comes out."""
    for encryption in (DIRECT, ECDH):
        refused(token, encryption)
