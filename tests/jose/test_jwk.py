"""Keys: what is refused, why, and that what is accepted works with one algorithm only."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st
from tests.b64 import b64

from dutchdoor.errors import InvalidKey
from dutchdoor.jose.jwk import ALGORITHMS, MAX_KEYS, MAX_SET_BYTES, Key, KeySet
from dutchdoor.jose.weak_secrets import is_known_leaked

HMAC = ("HS256", "HS384", "HS512")
ASYMMETRIC = sorted(ALGORITHMS - set(HMAC))
KEYS = {alg: Key.generate(alg) for alg in ("ES256", "ES384", "ES512", "EdDSA", "RS256", *HMAC)}


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk(of: str, /, **changed: Any) -> dict[str, Any]:
    """A good JWK with some members changed; None takes one out."""
    key = KEYS[of]
    members = {"kty": "oct", "k": b64(key.private_bytes()), "alg": of} if key.symmetric else key.public_jwk()
    return {name: value for name, value in {**members, **changed}.items() if value is not None}


def flipped(text: str) -> str:
    """Another text for the same bytes: a spare bit set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4 in {2, 3}
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


# --- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_a_generated_key_signs_and_its_public_half_checks(alg: str) -> None:
    """A key of every algorithm signs, is checked by its public half, and refuses every other text and signature."""
    key = Key.generate(alg)
    public = key.public()
    signature = key.sign(b"text")
    assert len(b64(signature)) == public.signature_chars
    assert public.check(signature, b"text")
    assert not public.check(signature, b"texT")
    assert not public.check(bytes(len(signature)), b"text")
    assert public.alg == key.alg == alg
    assert public.kid == key.kid


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_private_bytes_come_back_as_the_same_key(alg: str) -> None:
    """What is sealed and opened again is the same key under the same name."""
    key = Key.generate(alg, kid="mine")
    again = Key.from_private_bytes(alg, key.private_bytes(), kid="mine")
    assert again.kid == "mine"
    assert key.check(again.sign(b"text"), b"text")


@pytest.mark.parametrize("alg", ASYMMETRIC)
def test_a_jwk_comes_back_as_the_same_key(alg: str) -> None:
    """A key written as a JWK and read again checks the same signatures, and the JWK is public."""
    key = Key.generate(alg)
    signature = key.sign(b"text")
    members = key.public_jwk()
    assert Key.from_jwk(members).check(signature, b"text")
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & members.keys()
    assert members["alg"] == alg
    assert members["use"] == "sig"


def test_ecdsa_numbers_with_leading_zeros_survive() -> None:
    """A signature whose r or s begins with zero bytes is as long as any other, and holds: one in 128 does so."""
    for alg in ("ES256", "ES512"):
        key = KEYS[alg]
        seen = 0
        for attempt in range(2000):
            text = b"%d" % attempt
            signature = key.sign(text)
            half = len(signature) // 2
            assert key.check(signature, text)
            seen += signature[0] == 0 or signature[half] == 0
            if seen > 3:
                break
        assert seen > 3


def test_thumbprints_are_those_of_the_rfcs() -> None:
    """`kid` is the RFC 7638 thumbprint: the examples of RFC 7638 and RFC 8037 give theirs."""
    rsa_jwk = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-"
        "65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"
        "bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
    }
    assert Key.from_jwk(rsa_jwk).kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    ed_jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert Key.from_jwk(ed_jwk).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_alg_follows_from_the_kind_only_where_it_is_unambiguous() -> None:
    """Without `alg` a curve decides; an RSA or symmetric key must name its `alg`, because it fits several."""
    assert Key.from_jwk(jwk("ES384", alg=None)).alg == "ES384"
    assert Key.from_jwk(jwk("EdDSA", alg=None)).accepts == {"EdDSA", "Ed25519"}
    assert Key.from_jwk(jwk("EdDSA", alg="Ed25519")).accepts == {"Ed25519"}
    for alg in ("RS256", "HS256"):
        with pytest.raises(InvalidKey):
            Key.from_jwk(jwk(alg, alg=None))
        assert Key.from_jwk(jwk(alg, alg=None), alg=alg).alg == alg
    with pytest.raises(InvalidKey):
        Key.from_jwk(jwk("RS256"), alg="PS256")


def test_a_symmetric_key_is_never_published() -> None:
    """A secret has no public form."""
    with pytest.raises(InvalidKey):
        KEYS["HS256"].public_jwk()


def test_no_secret_shows() -> None:
    """No repr of a key or set, and no refusal, contains what is secret."""
    key = KEYS["HS256"]
    text = b64(key.private_bytes())
    assert text not in repr(key) + repr(KeySet([key]))
    with pytest.raises(InvalidKey) as refused:
        Key.from_jwk(jwk("HS512", k=text))
    assert text not in str(refused.value) + refused.value.reason


def test_a_public_key_cannot_sign() -> None:
    """A key without its private part refuses to sign and has nothing to seal."""
    public = KEYS["ES256"].public()
    for attempt in (lambda: public.sign(b""), public.private_bytes):
        with pytest.raises(InvalidKey):
            attempt()


# --- what is refused: one key -----------------------------------------------------------------------------------------

P256_Y = base64.urlsafe_b64decode(str(KEYS["ES256"].public_jwk()["y"]) + "=")
MODULUS = int.from_bytes(base64.urlsafe_b64decode(str(KEYS["RS256"].public_jwk()["n"]) + "=="), "big")
FIELD = 2**255 - 19
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
SHORT_RSA = rsa.generate_private_key(65537, 1024).public_key().public_numbers()

BAD_KEYS: dict[str, dict[str, Any]] = {
    "no kty": jwk("ES256", kty=None),
    "unknown kty": jwk("ES256", kty="ec"),
    "kty is a list": jwk("ES256", kty=["EC"]),
    "alg none": jwk("ES256", alg="none"),
    "alg of another kind": jwk("ES256", alg="RS256"),
    "alg of another curve": jwk("ES256", alg="ES384"),
    "alg in lower case": jwk("ES256", alg="es256"),
    "alg is a list": jwk("ES256", alg=["ES256"]),
    "alg HS256 on an RSA key": jwk("RS256", alg="HS256"),
    "alg RSA-OAEP": jwk("RS256", alg="RSA-OAEP"),
    "unknown curve": jwk("ES256", crv="secp256k1"),
    "curve of another size": jwk("ES256", crv="P-384", alg=None),
    "use enc": jwk("ES256", use="enc"),
    "use is a list": jwk("ES256", use=["sig"]),
    "key_ops without verify": jwk("ES256", key_ops=["sign"]),
    "key_ops that encrypts": jwk("ES256", key_ops=["verify", "encrypt"]),
    "key_ops twice": jwk("ES256", key_ops=["verify", "verify"]),
    "key_ops is a string": jwk("ES256", key_ops="verify"),
    "key_ops is empty": jwk("ES256", key_ops=[]),
    "kid is a number": jwk("ES256", kid=1),
    "kid is empty": jwk("ES256", kid=""),
    "kid is long": jwk("ES256", kid="k" * 256),
    "kid with a newline": jwk("ES256", kid="a\nb"),
    "private EC member": jwk("ES256", d=b64(bytes(32))),
    "private RSA member": jwk("RS256", p=b64(b"\x01" * 128)),
    "a secret in a public key": jwk("ES256", k=b64(bytes(32))),
    "x is missing": jwk("ES256", x=None),
    "x is a number": jwk("ES256", x=1),
    "x is padded": jwk("ES256", x=str(KEYS["ES256"].public_jwk()["x"]) + "="),
    "x with a spare bit": jwk("ES256", x=flipped(str(KEYS["ES256"].public_jwk()["x"]))),
    "x in the other alphabet": jwk("ES256", x="+" + "A" * 42),
    "x is short": jwk("ES256", x=b64(bytes(31))),
    "x with a leading zero": jwk("ES256", x=b64(b"\0" + bytes(32))),
    "x not ASCII": jwk("ES256", x="é" * 43),
    "a point off the curve": jwk("ES256", y=b64(P256_Y[:-1] + bytes([P256_Y[-1] ^ 1]))),
    "the point at zero": jwk("ES256", x=b64(bytes(32)), y=b64(bytes(32))),
    "coordinate beyond the field": jwk("ES256", x=b64(b"\xff" * 32)),
    "RSA of 1,024 bits": jwk("RS256", n=number(SHORT_RSA.n)),
    "RSA of 2,047 bits": jwk("RS256", n=number(MODULUS >> 1 | 1)),
    "RSA of 16,384 bits": jwk("RS256", n=number(1 << 16383 | 1)),
    "RSA modulus even": jwk("RS256", n=number(MODULUS & ~1)),
    "RSA modulus with a factor of 3": jwk("RS256", n=number(3 * (MODULUS // 3 // 2 * 2 - 1))),
    "RSA modulus with a leading zero": jwk("RS256", n=b64(b"\0" + MODULUS.to_bytes(256, "big"))),
    "RSA exponent 1": jwk("RS256", e=number(1)),
    "RSA exponent 2": jwk("RS256", e=number(2)),
    "RSA exponent even": jwk("RS256", e=number(65536)),
    "RSA exponent 0": jwk("RS256", e=b64(b"\0")),
    "RSA exponent with a leading zero": jwk("RS256", e=b64(b"\0\1\0\1")),
    "RSA exponent huge": jwk("RS256", e=number((1 << 2000) + 1)),
    "Ed25519 identity": jwk("EdDSA", x=b64(b"\x01" + bytes(31))),
    "Ed25519 of order 2": jwk("EdDSA", x=b64((FIELD - 1).to_bytes(32, "little"))),
    "Ed25519 of order 4": jwk("EdDSA", x=b64(bytes(32))),
    "Ed25519 of order 4, other sign": jwk("EdDSA", x=b64(bytes(31) + b"\x80")),
    "Ed25519 of order 8": jwk("EdDSA", x=b64(ORDER_8)),
    "Ed25519 of order 8, other": jwk(
        "EdDSA", x=b64((FIELD - int.from_bytes(ORDER_8, "little")).to_bytes(32, "little"))
    ),
    "Ed25519 not canonical": jwk("EdDSA", x=b64((FIELD + 1).to_bytes(32, "little"))),
    "Ed25519 off the curve": jwk("EdDSA", x=b64((2).to_bytes(32, "little"))),
    "Ed448": jwk("EdDSA", crv="Ed448"),
    "X25519": jwk("EdDSA", crv="X25519"),
    "secret shorter than its hash": jwk("HS512", k=b64(KEYS["HS384"].private_bytes())),
    "secret empty": jwk("HS256", k=""),
    "secret known": jwk("HS256", k=b64(b"secret" * 6)),
    "secret filled up with zeros": jwk("HS256", k=b64(b"changeme" + bytes(24))),
    "secret of one letter": jwk("HS256", k=b64(b"x" * 64)),
    "secret of RFC 7515": jwk(
        "HS256", k="AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
    ),
    "secret with a member of another kind": jwk("HS256", d="AQAB"),
}


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=list(BAD_KEYS))
def test_a_bad_key_is_refused(bad: dict[str, Any]) -> None:
    """A key that is malformed, weak, private or contradicts itself is refused, alone and in a set, with InvalidKey."""
    with pytest.raises(InvalidKey):
        Key.from_jwk(bad)
    if bad.get("use") != "enc" and bad.get("crv") not in {"secp256k1", "Ed448", "X25519"} and bad.get("kty") != "ec":
        with pytest.raises(InvalidKey):
            KeySet.from_jwks({"keys": [bad]})


def test_the_good_key_beside_the_bad_ones_is_accepted() -> None:
    """Unchanged, the keys that the table changes are all accepted: it is the change that is refused."""
    for alg in KEYS:
        assert Key.from_jwk(jwk(alg)).alg == alg


@pytest.mark.parametrize("value", [None, [], "x", 1, b"", {1: 2}])
def test_what_is_no_mapping_is_refused(value: Any) -> None:
    """Whatever is given as a JWK, only InvalidKey comes out."""
    with pytest.raises(InvalidKey):
        Key.from_jwk(value)


def test_a_modulus_with_the_roca_fingerprint_is_refused() -> None:
    """A modulus made the way CVE-2017-15361 made them, both primes 65537^a modulo a primorial, is recognised."""
    primes = [p for p in range(2, 168) if all(p % q for q in range(2, p))]
    primorial = prod(primes)

    def weak_factor() -> int:
        # Whether it is prime does not show in a modulus, and the search would take minutes.
        return secrets.randbits(1026 - primorial.bit_length()) * primorial + pow(
            65537, secrets.randbelow(primorial), primorial
        )

    modulus = 0
    while modulus.bit_length() != 2048:
        modulus = weak_factor() * weak_factor()
    with pytest.raises(InvalidKey) as refused:
        Key.from_jwk({"kty": "RSA", "alg": "RS256", "e": "AQAB", "n": number(modulus)})
    assert "ROCA" in refused.value.reason


def test_private_keys_are_judged_like_any_other() -> None:
    """A weak, foreign or broken private key is refused with InvalidKey, whatever `cryptography` says about it."""

    def written(private: PrivateKeyTypes) -> bytes:
        der, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
        return private.private_bytes(der, form, serialization.NoEncryption())

    for raw, alg in (
        (written(rsa.generate_private_key(65537, 1024)), "RS256"),
        (written(ec.generate_private_key(ec.SECP256K1())), "ES256"),
        (KEYS["ES256"].private_bytes(), "ES384"),
        (KEYS["ES256"].private_bytes(), "HS256"),
        (KEYS["EdDSA"].private_bytes(), "ES256"),
        (b"", "RS256"),
        ("text", "RS256"),
    ):
        with pytest.raises(InvalidKey):
            Key.from_private_bytes(alg, raw)  # type: ignore[arg-type]
    with pytest.raises(InvalidKey):
        Key.from_private_bytes("ES256", b"nonsense")
    with pytest.raises(InvalidKey):
        Key.generate("none")


def public_key_texts() -> dict[str, bytes]:
    key = serialization.load_der_private_key(KEYS["RS256"].private_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    public = key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    members = {"kty": "RSA", "n": number(public.public_numbers().n), "e": "AQAB"}
    ed = ed25519.Ed25519PrivateKey.generate().public_key()
    return {
        "PEM": pem,
        "PEM without its newlines": pem.replace(b"\n", b""),
        "PEM with spaces": pem.replace(b"\n", b"\n  "),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "PEM with written newlines": pem.replace(b"\n", b"\\n"),
        "PEM with whitespace around": b"\n\n  " + pem + b" \n",
        "PEM body": b"".join(pem.splitlines()[1:-1]),
        "DER": public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        "PKCS1 PEM": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        "PKCS1 DER": public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1),
        "SSH RSA": public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
        "SSH Ed25519": ed.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
        "JWK": json.dumps(members).encode(),
        "JWKS": json.dumps({"keys": [members]}, indent=2).encode(),
        "private PEM": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }


@pytest.mark.parametrize(
    ("form", "text"), public_key_texts().items(), ids=lambda value: value if type(value) is str else ""
)
def test_j02_a_public_key_is_never_taken_for_a_secret(form: str, text: bytes) -> None:
    """J02: an asymmetric key in any encoding is no HMAC secret (CVE-2017-11424, CVE-2022-29217, CVE-2024-33663)."""
    for alg in HMAC:
        with pytest.raises(InvalidKey):
            Key.from_secret(text, alg)


def test_j14_known_secrets_are_recognised() -> None:
    """J14: every secret of the list, padded, repeated or in other case too, is refused; the digests are of this
    list.
    """
    listed = (Path(__file__).parents[1] / "vectors" / "known_leaked_secrets.txt").read_text().splitlines()
    known = [line for line in listed if line.strip() and not line.startswith("#")]
    assert len(known) >= 100
    for text in known:
        for form in (text, text.upper(), f" {text}\n", text * 9, text + "\0" * 30):
            assert is_known_leaked(form.encode()), form
            with pytest.raises(InvalidKey):
                Key.from_secret(form.encode())


@given(st.binary(min_size=32, max_size=64))
def test_random_secrets_are_not_taken_for_known_ones(secret: bytes) -> None:
    """A secret of random bytes is not found among the known ones by accident."""
    fresh = hashlib.sha512(secret).digest()
    assert not is_known_leaked(fresh)


# --- what is refused: a set -------------------------------------------------------------------------------------------

A, B, H = KEYS["ES256"].public_jwk(), KEYS["EdDSA"].public_jwk(), jwk("HS256", kid="h")

BAD_SETS: dict[str, Any] = {
    "no keys member": {},
    "keys is an object": {"keys": {}},
    "keys is null": {"keys": None},
    "no keys": {"keys": []},
    "a list": [A],
    "a number": 5,
    "a key that is a string": {"keys": ["x"]},
    "a key that is null": {"keys": [A, None]},
    "the same key twice": {"keys": [A, A]},
    "one kid for two keys": {"keys": [A, {**B, "kid": A["kid"]}]},
    "symmetric and asymmetric": {"keys": [A, H]},
    "a private key among public ones": {"keys": [A, {**B, "d": b64(bytes(32))}]},
    "a private key for encryption": {"keys": [A, {**B, "kid": "e", "use": "enc", "alg": "ECDH-ES", "d": "AA"}]},
    "use enc on a key for signatures": {"keys": [A, {**B, "use": "enc"}]},
    "only keys for encryption": {"keys": [{**B, "use": "enc", "alg": "ECDH-ES"}]},
    "the kid of one that is passed over": {"keys": [A, {**B, "kid": A["kid"], "use": "enc", "alg": "ECDH-ES"}]},
    "too many": {"keys": [{**A, "kid": str(n)} for n in range(MAX_KEYS + 1)]},
    "one bad key among good ones": {"keys": [A, {**B, "x": "AA"}]},
    "text: not JSON": "{",
    "text: not an object": b"[]",
    "text: a name twice": b'{"keys":[],"keys":[%s]}' % json.dumps(A).encode(),
    "text: a name twice inside a key": b'{"keys":[{"kty":"EC",%s]}' % json.dumps(A).encode()[1:],
    "text: NaN": b'{"keys":[%s],"n":NaN}' % json.dumps(A).encode(),
    "text: a byte order mark": b"\xef\xbb\xbf" + json.dumps({"keys": [A]}).encode(),
    "text: not UTF-8": b'{"keys":[],"x":"\xff"}',
    "text: a lone surrogate": '{"keys":[],"x":"\udcff"}',
    "text: too deep": b'{"keys":' + b"[" * 40 + b"]" * 40 + b"}",
    "text: too long": b'{"keys":[' + b" " * MAX_SET_BYTES + b"]}",
    "text: more after it": json.dumps({"keys": [A]}).encode() + b"{}",
}


@pytest.mark.parametrize("bad", BAD_SETS.values(), ids=list(BAD_SETS))
def test_j15_a_bad_set_is_refused(bad: Any) -> None:
    """J15: a set that is malformed, ambiguous, mixed, private or too large is refused as a whole, with InvalidKey."""
    with pytest.raises(InvalidKey):
        KeySet.from_jwks(bad)


def test_a_good_set_is_read_whatever_form_it_has() -> None:
    """Text, bytes and members give the same set; keys of unknown kinds and keys for encryption are passed over."""
    members = {"keys": [A, B, {"kty": "new", "kid": "n"}, {**B, "kid": "e", "use": "enc", "alg": "ECDH-ES"}]}
    text = json.dumps(members)
    for form in (members, text, text.encode()):
        found = KeySet.from_jwks(form)
        assert {key.kid for key in found} == {A["kid"], B["kid"]}
        assert found.get("e") is None
        assert found.only is None
    assert KeySet.from_jwks({"keys": [H]}).symmetric
    assert KeySet.from_jwks(json.dumps({"keys": [KEYS["ES256"].public_jwk()]})).only is not None


def test_a_set_made_of_keys_is_judged_as_one_that_was_read() -> None:
    """However a set is made: it has keys, each under its own name, of one kind, and not too many."""
    key = KEYS["ES256"]
    named = [Key.from_jwk({**key.public_jwk(), "kid": str(number)}) for number in range(MAX_KEYS + 1)]
    other = Key.generate("ES256", kid=key.kid)
    for keys in ([], [key, key], [key, other], [key, KEYS["HS256"]], named):
        with pytest.raises(InvalidKey):
            KeySet(keys)
    assert len(KeySet(named[:MAX_KEYS])) == MAX_KEYS


def test_no_ed25519_key_has_a_second_spelling() -> None:
    """The nineteen encodings beyond the field are refused, those of good points too."""
    for beyond in range(19):
        for sign in (0, 1 << 255):
            with pytest.raises(InvalidKey):
                Key.from_jwk(jwk("EdDSA", x=b64((FIELD + beyond | sign).to_bytes(32, "little"))))


def test_only_exact_kids_find_a_key() -> None:
    """A kid is looked up as it is: no prefix, case or trimming finds a key."""
    found = KeySet.from_jwks({"keys": [A, B]})
    kid = str(A["kid"])
    for other in (kid + " ", kid[:-1], kid.swapcase(), "", "\0" + kid):
        assert found.get(other) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("kty alg x y n e k kid use".split()), inner)
        ),
        max_leaves=8,
    )
)
def test_only_invalid_key_escapes(value: Any) -> None:
    """Whatever JSON comes as a key, a set, or the text of one: a key, a set, or InvalidKey comes out."""
    attempts: list[Callable[[], object]] = [
        lambda: Key.from_jwk(value),
        lambda: Key.from_jwk({**A, "x": value}),
        lambda: Key.from_jwk({"kty": "RSA", "alg": "RS256", "n": value, "e": value}),
        lambda: KeySet.from_jwks({"keys": value}),
        lambda: KeySet.from_jwks(json.dumps({"keys": [value]})),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidKey):
            attempt()
