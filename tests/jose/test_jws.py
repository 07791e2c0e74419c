"""Compact JWS: which texts are one, and that only the key decides how a signature is checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.b64 import b64
from tests.jose.pem import public_pem

from dutchdoor.errors import InvalidKey, InvalidToken
from dutchdoor.jose import jws
from dutchdoor.jose.claims import MAX_TOKEN
from dutchdoor.jose.jwk import ALGORITHMS, Key, KeySet


@cache
def key_of(alg: str) -> Key:
    """The key of an algorithm, made by the test that asks for it first: one of RSA takes a twentieth of a second."""
    return Key.generate(alg)


ES, HS, ED = map(key_of, ("ES256", "HS256", "EdDSA"))
PAYLOAD = b'{"sub":"somebody"}'
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forge(header: bytes | dict[str, Any], payload: bytes = PAYLOAD, key: Key = ES) -> str:
    """A token whose signature is right, whatever its header says."""
    raw = json.dumps(header).encode() if isinstance(header, dict) else header
    signed = b64(raw) + "." + b64(payload)
    return signed + "." + b64(key.sign(signed.encode()))


def refused(token: Any, key: Key | KeySet = ES) -> str:
    """Present a token and give the reason it was refused for. Warnings are errors here."""
    with pytest.raises(InvalidToken) as refusal:
        jws.verify(token, key)
    assert str(refusal.value) == "The token is not valid."
    return refusal.value.reason


GOOD = jws.sign(PAYLOAD, ES)
HEAD, BODY, TAIL = GOOD.split(".")


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_what_is_signed_verifies_and_nothing_near_it(alg: str) -> None:
    """Every algorithm: text and bytes verify, with the key or its set; each part changed by one character does not."""
    key = key_of(alg)
    token = jws.sign(PAYLOAD, key, typ="at+jwt")
    assert jws.verify(token, key.public()) == PAYLOAD
    assert jws.verify(token.encode(), KeySet([key.public()])) == PAYLOAD
    assert jws.verify(jws.sign(b"", key), key) == b""
    for index in range(0, len(token), 7):
        changed = token[:index] + ("A" if token[index] != "A" else "B") + token[index + 1 :]
        refused(changed, key.public())
    other = Key.generate(alg, kid=key.kid) if alg[0] not in "RP" else key_of("RS512" if alg != "RS512" else "RS256")
    refused(token, other)
    refused(token, KeySet([ES, ED] if key not in {ES, ED} else [key_of("ES384"), key_of("ES512")]))


def test_examples_of_the_rfcs_verify() -> None:
    """RFC 7515 A.3 (ES256), A.4 (ES512) and RFC 8037 A.4 (EdDSA), as printed there."""
    es256 = Key.from_jwk(
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
    )
    claims = jws.verify(
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
        "fQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        es256,
    )
    assert json.loads(claims)["iss"] == "joe"
    ed25519 = Key.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    text = jws.verify(
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4"
        "iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ed25519,
    )
    assert text == b"Example of Ed25519 signing"


# --- J01, J02: the algorithm is the key's -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alg",
    ["none", "None", "nOnE", "NONE", "", "es256", "ES256 ", "ES384", "HS256", "ES256K", None, 1, True, ["ES256"], {}],
)
def test_j01_an_alg_that_is_not_the_keys_is_refused(alg: Any) -> None:
    """J01: `alg` is compared exactly, and there is no `none` in any spelling, signed or not."""
    header = {"alg": alg, "kid": ES.kid}
    refused(forge(header))
    unsigned = b64(json.dumps(header).encode()) + "." + BODY + "."
    refused(unsigned)
    refused(unsigned + TAIL)


def test_j01_a_header_without_alg_is_refused() -> None:
    """J01: no `alg`, no token."""
    refused(forge({"kid": ES.kid}))
    refused(forge(b"{}"))


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["PEM", "PEM stripped", "DER", "JWK", "JWKS", "n"])
def test_j02_a_public_key_as_hmac_secret_forges_nothing(alg: str, form: str) -> None:
    """J02: a token HMAC-signed with the public key in any encoding is refused by that key and by its set."""
    own, public = key_of("RS256"), key_of("RS256").public()
    from_jwk = json.dumps(own.public_jwk()).encode()
    pem = public_pem(own)
    secret = {
        "PEM": pem,
        "PEM stripped": pem.strip(),
        "DER": base64.b64decode(b"".join(pem.splitlines()[1:-1])),
        "JWK": from_jwk,
        "JWKS": b'{"keys":[%s]}' % from_jwk,
        "n": str(own.public_jwk()["n"]).encode(),
    }[form]
    for kid in ({}, {"kid": public.kid}):
        signed = b64(json.dumps({"alg": alg, **kid}).encode()) + "." + b64(PAYLOAD)
        token = signed + "." + b64(hmac.digest(secret, signed.encode(), "sha" + alg[2:]))
        refused(token, public)
        refused(token, KeySet([public, ES.public()]))


def test_j02_one_rsa_key_serves_one_algorithm() -> None:
    """J02: RS256 and PS256 with the same numbers are two keys; neither takes the other's tokens."""
    pkcs1 = key_of("RS256")
    pss = Key.from_private_bytes("PS256", pkcs1.private_bytes())
    for signer, reader in ((pkcs1, pss), (pss, pkcs1)):
        token = jws.sign(PAYLOAD, signer)
        refused(token, reader)
        refused(forge({"alg": reader.alg, "kid": reader.kid}, key=signer), reader)


def test_both_names_of_ed25519_only_where_the_key_leaves_it_open() -> None:
    """A key that says EdDSA takes no token that says Ed25519, nor the other way; one that says neither takes both."""
    old, new = (Key.from_private_bytes(name, ED.private_bytes()) for name in ("EdDSA", "Ed25519"))
    silent = Key.from_jwk({name: value for name, value in ED.public_jwk().items() if name != "alg"})
    refused(jws.sign(PAYLOAD, old), new)
    refused(jws.sign(PAYLOAD, new), old)
    assert jws.verify(jws.sign(PAYLOAD, old), silent) == jws.verify(jws.sign(PAYLOAD, new), silent) == PAYLOAD


# --- J03, J04, J05: the rest of the header ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({"jwk", "jku", "x5u", "x5c"}))
def test_j03_a_header_that_brings_a_key_is_refused(name: str) -> None:
    """J03: a key, or the address of one, in the header is never followed, however well it fits (CVE-2018-0114)."""
    value = {"jwk": ES.public_jwk(), "x5c": ["MIIB"]}.get(name, "http://127.0.0.1:9/keys")
    refused(forge({"alg": "ES256", "kid": ES.kid, name: value}))
    thief = Key.generate("ES256")
    refused(forge({"alg": "ES256", name: thief.public_jwk()}, key=thief))


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "' OR 1=1 --",
        "|sleep 10",
        "k" * 256,
        "",
        "\0",
        0,
        1,
        None,
        [],
        ["x"],
        {},
        True,
        "é",
        pytest.param(ES.kid + " ", id="its own and a space"),
    ],
)
def test_j04_a_kid_is_looked_up_exactly_or_refused(kid: Any) -> None:
    """J04: a kid that is no kid of ours, or no string, is refused before any signature is looked at."""
    refused(forge({"alg": "ES256", "kid": kid}))
    refused(forge({"alg": "ES256", "kid": kid}), KeySet([ES, ED]))


def test_j04_without_kid_only_a_single_key_is_meant() -> None:
    """J04: with one key there is nothing to choose; among several, no kid means no key."""
    token = forge({"alg": "ES256"})
    assert jws.verify(token, ES) == PAYLOAD
    refused(token, KeySet([ES, ED]))


@pytest.mark.parametrize("crit", [[], ["exp"], ["b64"], ["kid"], "b64", None, 1, {}, ["http://example.com/x"]])
def test_j05_crit_is_refused(crit: Any) -> None:
    """J05: we understand no extension, so any `crit` is refused, empty or wrong ones too (CVE-2025-59420)."""
    refused(forge({"alg": "ES256", "kid": ES.kid, "crit": crit}))


@pytest.mark.parametrize(
    "extra", [{"b64": False}, {"b64": True}, {"b64": False, "crit": ["b64"]}, {"zip": "DEF"}, {"enc": "A256GCM"}]
)
def test_j05_unencoded_and_encrypted_payloads_are_refused(extra: dict[str, Any]) -> None:
    """J05: `b64` changes what is signed, `zip` and `enc` belong to encryption: none of them is in a token of ours."""
    refused(forge({"alg": "ES256", "kid": ES.kid, **extra}))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "dir", "enc": "A256GCM", "cty": "JWT", "kid": ES.kid},
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        {"alg": "ECDH-ES", "enc": "A256GCM", "kid": ES.kid, "epk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}},
        {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2s": "AA", "p2c": 2**31},
        {"alg": "RSA-OAEP", "enc": "A256GCM", "typ": "at+jwt", "kid": ES.kid},
        {"alg": "ES256", "enc": "A256GCM", "kid": ES.kid},
    ],
    ids=lambda header: header["alg"] + "+zip" * ("zip" in header),
)
def test_j16_an_encrypted_token_is_refused_by_name(header: dict[str, Any]) -> None:
    """J16: the five parts of a JWE are refused as what they are, before anything is decompressed or derived."""
    token = f"{b64(json.dumps(header).encode())}.{b64(b'key')}.{b64(b'nonce')}.{b64(b'text' * 999)}.{b64(b'tag' * 5)}"
    assert refused(token) == refused(token, KeySet([ES, ED])) == "an encrypted token (JWE)"


@pytest.mark.parametrize("typ", [None, 1, [], "x" * 65])
def test_a_malformed_typ_is_refused(typ: Any) -> None:
    """`typ` is a short string or absent."""
    refused(forge({"alg": "ES256", "kid": ES.kid, "typ": typ}))


# --- J06: one spelling ------------------------------------------------------------------------------------------------

BROKEN: dict[str, Any] = {
    "empty": "",
    "one part": HEAD,
    "two parts": HEAD + "." + BODY,
    "four parts": GOOD + "." + TAIL,
    "five parts": GOOD + "..",
    "dots": "..",
    "no header": "." + BODY + "." + TAIL,
    "no payload": HEAD + ".." + TAIL,
    "no signature": HEAD + "." + BODY + ".",
    "leading space": " " + GOOD,
    "trailing space": GOOD + " ",
    "trailing newline": GOOD + "\n",
    "a newline inside": HEAD + "." + BODY[:4] + "\n" + BODY[4:] + "." + TAIL,
    "a NUL": GOOD + "\0",
    "padding": GOOD + "==",
    "padded payload": HEAD + "." + BODY + "=" * (-len(BODY) % 4 or 4) + "." + TAIL,
    "padded header": HEAD + "=" * (-len(HEAD) % 4 or 4) + "." + BODY + "." + TAIL,
    "fullwidth letters": "".join(chr(ord(letter) + 0xFEE0) for letter in GOOD),
    "a lone surrogate": GOOD + "\ud800",
    "not ASCII": GOOD[:-1] + "é",
    "Latin-1 bytes": GOOD.encode() + b"\xe9",
    "Bearer": "Bearer " + GOOD,
    "quoted": '"' + GOOD + '"',
    "flattened JSON": json.dumps({"protected": HEAD, "payload": BODY, "signature": TAIL}),
    "general JSON": json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": TAIL}]}),
    "detached payload": HEAD + "." + "" + "." + TAIL,
    "too long": HEAD + "." + "A" * 8192 + "." + TAIL,
    "DER signature": HEAD
    + "."
    + BODY
    + "."
    + b64(b"\x30\x44\x02\x20" + unb64(TAIL)[:32] + b"\x02\x20" + unb64(TAIL)[32:]),
    "short signature": HEAD + "." + BODY + "." + b64(unb64(TAIL)[:-1]),
    "long signature": HEAD + "." + BODY + "." + b64(unb64(TAIL) + b"\0"),
    "signature of zeros": HEAD + "." + BODY + "." + b64(bytes(64)),
    "signature of the order": HEAD
    + "."
    + BODY
    + "."
    + b64((0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551).to_bytes(32, "big") * 2),
    "signature of ones": HEAD + "." + BODY + "." + b64(b"\xff" * 64),
    "None": None,
    "a number": 1,
    "a list": [GOOD],
    "bytearray": bytearray(GOOD.encode()),
    "memoryview": memoryview(GOOD.encode()),
}


@pytest.mark.parametrize("token", BROKEN.values(), ids=list(BROKEN))
def test_j06_what_is_no_compact_jws_is_refused(token: Any) -> None:
    """J06: three parts of base64url without padding, ASCII, at most 8 KiB, and nothing around them."""
    refused(token)


def test_j06_every_part_has_one_spelling() -> None:
    """J06: of the spellings that decode to the same bytes (spare bits, the other alphabet), one is accepted."""
    for key in map(key_of, sorted(ALGORITHMS)):
        for size in range(4):
            token = jws.sign(b"?>?" * 4 + b"~" * size, key)
            for index, part in enumerate(parts := token.split(".")):
                for last in ALPHABET:
                    other = [*parts]
                    other[index] = part[:-1] + last
                    if other != parts and unb64(other[index]) == unb64(part):
                        refused(".".join(other), key)
            swapped = token.replace("-", "+").replace("_", "/")
            if swapped != token:
                refused(swapped, key)


def test_j06_a_second_spelling_is_refused_even_where_it_was_signed() -> None:
    """J06: spare bits, padding and the other alphabet are refused in any part, though the signature covers them."""
    head, text = b64(b'{"alg":"ES256"}  '), b64(b"?>?~")
    for part_of_head, body in (
        *(
            (head, text[:-1] + ALPHABET[ALPHABET.index(text[-1]) + 1]),
            (head, text + "=="),
            (head, "Pz4_+g"),
            (head, "Pz4/"),
        ),
        *(
            (head[:-1] + ALPHABET[ALPHABET.index(head[-1]) + 1], text),
            (head + "=", text),
            (head, text + "\n"),
            (head, "A"),
        ),
    ):
        signed = part_of_head + "." + body
        refused(signed + "." + b64(ES.sign(signed.encode())))
    signed = head + "." + text
    assert jws.verify(signed + "." + b64(ES.sign(signed.encode())), ES) == b"?>?~"


def test_j07_what_is_longer_than_any_token_is_refused_however_good() -> None:
    """J07: more than 8,192 characters are not looked at, signed well or not."""
    fits = jws.sign(b"x" * 5990, ES)
    assert len(fits) < MAX_TOKEN
    assert jws.verify(fits, ES)
    refused(jws.sign(b"x" * 6200, ES))


# --- J07: strict JSON in the header -----------------------------------------------------------------------------------

KID = ES.kid.encode()
HEADERS: dict[str, bytes] = {
    "not JSON": b"alg",
    "an array": b'["ES256"]',
    "a string": b'"ES256"',
    "null": b"null",
    "alg twice": b'{"alg":"none","alg":"ES256","kid":"%s"}' % KID,
    "alg twice, the same": b'{"alg":"ES256","alg":"ES256"}',
    "alg twice, once escaped": b'{"alg":"ES256","\\u0061lg":"none"}',
    "kid twice": b'{"alg":"ES256","kid":"x","kid":"%s"}' % KID,
    "a name twice, deeper": b'{"alg":"ES256","x":{"y":1,"y":2}}',
    "a name twice, in an array": b'{"alg":"ES256","x":[{"y":1,"y":2}]}',
    "NaN": b'{"alg":"ES256","x":NaN}',
    "Infinity": b'{"alg":"ES256","x":-Infinity}',
    "1e400": b'{"alg":"ES256","x":1e400}',
    "10^4200": b'{"alg":"ES256","x":1' + b"0" * 4200 + b"}",
    "2^64": b'{"alg":"ES256","x":18446744073709551616}',
    "byte order mark": b'\xef\xbb\xbf{"alg":"ES256"}',
    "UTF-16": '{"alg":"ES256"}'.encode("utf-16"),
    "not UTF-8": b'{"alg":"ES256","x":"\xff"}',
    "not UTF-8 in a name": b'{"alg":"ES256","\xff":1}',
    "overlong UTF-8": b'{"alg":"ES256","x":"\xc0\x80"}',
    "surrogate in UTF-8": b'{"alg":"ES256","x":"\xed\xa0\x80"}',
    "lone surrogate escaped": b'{"alg":"ES256","x":"\\ud800"}',
    "trailing comma": b'{"alg":"ES256",}',
    "comment": b'{"alg":"ES256"/**/}',
    "single quotes": b"{'alg':'ES256'}",
    "more after it": b'{"alg":"ES256"}{}',
    "NUL after it": b'{"alg":"ES256"}\0',
    "33 deep": b'{"alg":"ES256","x":' + b"[" * 32 + b"]" * 32 + b"}",
    "2,000 deep": b'{"alg":"ES256","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "2,000 deep, open": b'{"alg":"ES256","x":' + b"[" * 2000,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=list(HEADERS))
def test_j07_a_header_is_strict_json(header: bytes) -> None:
    """J07: one object in UTF-8, each name once at every depth, numbers of 64 bits, at most 32 deep."""
    refused(forge(header))


def test_j07_what_only_looks_like_that_is_accepted() -> None:
    """J07: names that repeat in different objects, brackets, colons and quotes inside strings, and whitespace are
    fine.
    """
    for extra in (
        {"x": {"y": 1}, "z": {"y": 1}},
        {"x": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["},
        {"x": 'a":"b', "y:": '\\":', "": "::"},
        {"x": [[[{"y": [-1.5, 0, 2**64 - 1, True, None]}]]]},
    ):
        header = {"alg": "ES256", **extra}
        assert jws.verify(forge(json.dumps(header, indent=1).encode()), ES) == PAYLOAD
        assert jws.verify(forge(json.dumps(header, ensure_ascii=False).encode()), ES) == PAYLOAD
    assert jws.verify(forge(b'{"alg":"ES256","x":' + b"[" * 31 + b"]" * 31 + b"}"), ES) == PAYLOAD


# --- the memory of headers --------------------------------------------------------------------------------------------


def test_only_headers_of_good_tokens_are_remembered() -> None:
    """A header is remembered when its token's signature held, and never more than so many: garbage cannot fill it."""
    keys = KeySet([ES.public(), ED.public()])
    for number in range(300):
        head = b64(json.dumps({"alg": "ES256", "kid": ES.kid, "n": number}).encode())
        refused(head + "." + BODY + "." + TAIL, keys)
    assert keys.known_headers == {}
    for number in range(KeySet.MAX_HEADERS + 5):
        jws.verify(forge({"alg": "ES256", "kid": ES.kid, "n": number}), keys)
    assert 0 < len(keys.known_headers) <= KeySet.MAX_HEADERS


def test_a_remembered_header_proves_nothing() -> None:
    """A known header still needs its own signature over its own payload."""
    keys = KeySet([ES.public()])
    assert jws.verify(GOOD, keys) == PAYLOAD
    refused(HEAD + "." + b64(b'{"sub":"admin"}') + "." + TAIL, keys)
    assert HEAD.encode() in keys.known_headers


def test_signing_needs_a_private_key() -> None:
    """A public key signs no token."""
    with pytest.raises(InvalidKey):
        jws.sign(PAYLOAD, ES.public())


def test_hmac_is_the_hmac_of_the_standard_library() -> None:
    """Our HMAC, with its key blocks hashed beforehand, is HMAC for every length of key and text."""
    for alg in ("HS256", "HS384", "HS512"):
        for size in (64, 65, 127, 128, 129, 200):
            secret = hashlib.shake_256(b"%d" % size).digest(size)
            for length in (0, 1, 63, 64, 65, 500):
                text = bytes(length)
                assert Key.from_secret(secret, alg).sign(text) == hmac.digest(secret, text, "sha" + alg[2:])


@given(st.one_of(st.text(), st.binary(), st.text(ALPHABET + ".=+/ ", max_size=200)))
def test_j17_only_invalid_token_escapes(text: str | bytes) -> None:
    """J17: whatever text or bytes come, and wherever a good token is broken open for them, InvalidToken comes out."""
    refused(text)
    middle = text if isinstance(text, str) else text.decode("latin-1")
    for token in (middle + GOOD, HEAD + "." + middle + "." + TAIL, middle + "." + BODY + "." + TAIL):
        if token != GOOD:
            refused(token)


@given(st.binary(max_size=300))
def test_j17_any_header_bytes_are_judged_quietly(header: bytes) -> None:
    """J17: any bytes as a header, well signed, are refused or are a header that says ES256."""
    try:
        assert jws.verify(forge(header), ES) == PAYLOAD
    except InvalidToken:
        return
    assert json.loads(header)["alg"] == "ES256"
