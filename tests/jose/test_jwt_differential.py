"""Against other libraries: they read what we write, we read what they write, and we accept nothing all of them refuse.

PyJWT, joserfc, Authlib and jwcrypto are oracles here and nothing else. Each deliberate difference is listed in
`STRICTER`: tokens that at least one of them accepts and we do not. There is no list the other way, because there is no
token that we accept and all of them refuse.

`make soak` runs the same with 100,000 tokens.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import string
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.b64 import b64
from tests.jose.pem import private_pem, public_pem

from dutchdoor.errors import InvalidToken
from dutchdoor.jose import jws
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.jose.jwk import ALGORITHMS, Key

ISS, AUD, NOW = "https://auth.example.com", "https://api.example.com", 1_800_000_000.0
# RFC 9864's name is known to some of them only.
ALGS = sorted(ALGORITHMS - {"Ed25519"})
EC_KEY = Key.generate("ES256")


@cache
def keys_of(alg: str) -> list[Key]:
    more = [Key.generate(alg) for _ in range(2 if alg[0] in "EH" else 0)]
    return [EC_KEY if alg == EC_KEY.alg else Key.generate(alg), *more]


def module(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


pyjwt, joserfc, authlib, jwcrypto = (module(name) for name in ("jwt", "joserfc.jws", "authlib.jose", "jwcrypto.jws"))

Read = Callable[[str], bytes]
Write = Callable[[bytes], str]


@cache
def peers(key: Key) -> dict[str, tuple[Read, Write]]:
    """Give each installed library's way to read and to write one compact JWS with this key."""
    alg, header = key.alg, {"alg": key.alg, "kid": key.kid, "typ": "at+jwt"}
    secret = key.private_bytes() if key.symmetric else None
    pem = b"" if key.symmetric else private_pem(key)
    found: dict[str, tuple[Read, Write]] = {}
    if pyjwt:
        private = secret or load_pem_private_key(pem, None)
        public = secret or private.public_key()  # type: ignore[union-attr]
        own = pyjwt.PyJWS()
        found["PyJWT"] = (
            lambda token: own.decode(token, public, [alg]),
            lambda payload: own.encode(payload, private, alg, {"kid": key.kid, "typ": "at+jwt"}),
        )
    if joserfc:
        jwk = module("joserfc.jwk")
        kind = {"R": jwk.RSAKey, "P": jwk.RSAKey, "H": jwk.OctKey, "E": jwk.OKPKey if alg == "EdDSA" else jwk.ECKey}
        rfc_key = kind[alg[0]].import_key(secret or pem)
        found["joserfc"] = (
            lambda token: joserfc.deserialize_compact(token, rfc_key, algorithms=[alg]).payload,
            lambda payload: joserfc.serialize_compact(header, payload, rfc_key, algorithms=[alg]),
        )
    if authlib:
        kinds = {"R": authlib.RSAKey, "P": authlib.RSAKey, "H": authlib.OctKey}
        lib_key = kinds.get(alg[0], authlib.OKPKey if alg == "EdDSA" else authlib.ECKey).import_key(secret or pem)
        reader = authlib.JsonWebSignature([alg])
        found["Authlib"] = (
            lambda token: reader.deserialize_compact(token.encode(), lib_key)["payload"],
            lambda payload: reader.serialize_compact(header, payload, lib_key).decode(),
        )
    if jwcrypto:
        jwk = module("jwcrypto.jwk")
        crypto_key = jwk.JWK(kty="oct", k=b64(secret)) if secret else jwk.JWK.from_pem(pem)

        def read(token: str) -> bytes:
            opened = jwcrypto.JWS()
            opened.allowed_algs = [alg]
            opened.deserialize(token, crypto_key)
            return opened.payload

        def write(payload: bytes) -> str:
            made = jwcrypto.JWS(payload)
            made.add_signature(crypto_key, alg, json.dumps(header))
            return made.serialize(compact=True)

        found["jwcrypto"] = (read, write)
    return found


needs_peers = pytest.mark.skipif(not all((pyjwt, joserfc, authlib, jwcrypto)), reason="needs all four peers")
quiet = pytest.mark.filterwarnings("ignore")


def a_claim_set(dice: random.Random) -> dict[str, Any]:
    """Claims of many shapes and sizes, in any letters."""
    letters = string.ascii_letters + string.digits + 'äöü€😀"\\/ \n\0:{}[],'

    def text(most: int) -> str:
        return "".join(dice.choices(letters, k=dice.randint(0, most)))

    return {
        "subject": text(30),
        "client_id": text(10),
        "epoch": dice.randint(0, 2**53),
        "amr": [text(5) for _ in range(dice.randint(0, 3))],
        "roles": [text(12) for _ in range(dice.randint(0, 5))],
        "auth_time": dice.choice([None, dice.random() * NOW]),
        "session_id": dice.choice([None, text(22)]),
        "scope": text(20),
        "extra": {
            f"x{number}": dice.choice([None, True, 1.5, -7, text(5), [1], {"a": {}}])
            for number in range(dice.randint(0, 3))
        },
    }


def both_ways(count: int, seed: int) -> Iterator[None]:
    """Write and read `count` tokens of every algorithm, each way round, comparing payloads."""
    dice = random.Random(seed)
    issuer = AccessTokenIssuer(issuer=ISS, audience=AUD)
    for number in range(count):
        alg = ALGS[number % len(ALGS)]
        key = dice.choice(keys_of(alg))
        verify = AccessTokenVerifier(keys=key, issuer=ISS, audience=AUD, clock=lambda: NOW)
        ours = issuer(key=key, now=NOW, lifetime=dice.randint(1, 3600), **a_claim_set(dice))
        claims, payload = verify(ours), jws.verify(ours, key)
        for name, (read, write) in peers(key).items():
            assert read(ours) == payload, name
            theirs = write(payload)
            assert jws.verify(theirs, key) == payload, name
            assert verify(theirs) == claims, name
        yield


@needs_peers
@quiet
@pytest.mark.parametrize("count", [30, pytest.param(240, marks=pytest.mark.long)])
def test_four_libraries_read_what_we_write_and_we_what_they_write(count: int) -> None:
    """Tokens of every algorithm, with claims in any letters, verify with each peer; theirs verify with us, alike."""
    assert sum(1 for _ in both_ways(count, seed=1)) == count


@pytest.mark.soak
@pytest.mark.timeout(7200)
@needs_peers
@quiet
def test_a_hundred_thousand_tokens_are_read_alike() -> None:
    """The same, 100,000 times."""
    assert sum(1 for _ in both_ways(100_000, seed=2)) == 100_000


# --- nothing that all of them refuse ----------------------------------------------------------------------------------


def accepted_by(token: str, key: Key) -> list[str]:
    names = []
    for name, (read, _) in peers(key).items():
        try:
            read(token)
        except Exception:  # noqa: BLE001 - several let foreign exceptions escape; that is a refusal too
            continue
        names.append(name)
    return names


def sign(header: bytes, payload: bytes, key: Key) -> str:
    signed = b64(header) + "." + b64(payload)
    return signed + "." + b64(key.sign(signed.encode()))


json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
headers = st.one_of(
    st.binary(max_size=60),
    json_text.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(["typ", "cty", "crit", "b64", "x5t", "jku", "jwk", "kid", "zip", "x"]), json_text, max_size=3
    ).map(lambda members: json.dumps({"alg": "ES256", **members}).encode()),
    st.binary(max_size=20).map(lambda raw: b'{"alg":"ES256","x":"' + raw + b'"}'),
)


@needs_peers
@quiet
@given(
    headers,
    st.binary(max_size=80),
    st.integers(0, 400),
    st.sampled_from([None, "", "=", ".", "+", "A", "\n", " ", "é"]),
)
@settings(max_examples=2 * settings.default.max_examples, suppress_health_check=[HealthCheck.too_slow])
def test_we_accept_nothing_that_all_of_them_refuse(
    header: bytes, payload: bytes, place: int, change: str | None
) -> None:
    """Whatever token is built, well signed and then perhaps broken: if we accept it, at least one peer does too."""
    key = EC_KEY
    token = sign(header, payload, key)
    if change is not None:
        at = place % len(token)
        token = token[:at] + change + token[at + 1 :]
    try:
        ours = jws.verify(token, key)
    except InvalidToken:
        return
    assert accepted_by(token, key), token
    assert ours == payload or change is not None


def broken_tokens() -> dict[str, str]:
    """Every deliberate difference: tokens that we refuse and at least one of them takes."""
    key = EC_KEY
    alg = b'{"alg":"ES256"'
    body = json.dumps(
        {"iss": ISS, "sub": "s", "aud": AUD, "exp": 1_900_000_000, "iat": 1, "jti": "j", "client_id": "c"}
    ).encode()
    good = sign(alg + b"}", body, key)
    head, middle, tail = good.split(".")
    spare = tail[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[tail[-1]]
    return {
        "spare bits in the signature": f"{head}.{middle}.{spare}",
        "padding after the signature": good + "==",
        "alg twice": sign(b'{"alg":"none","alg":"ES256"}', body, key),
        "a name twice, deeper": sign(alg + b',"x":{"a":1,"a":2}}', body, key),
        "NaN": sign(alg + b',"x":NaN}', body, key),
        "10^4200": sign(alg + b',"x":1' + b"0" * 4200 + b"}", body, key),
        "a lone surrogate": sign(alg + b',"x":"\\ud800"}', body, key),
        "100 levels deep": sign(alg + b',"x":' + b"[" * 100 + b"]" * 100 + b"}", body, key),
        "a header in UTF-16": sign('{"alg":"ES256"}'.encode("utf-16"), body, key),
        "a kid that is a number": sign(alg + b',"kid":1}', body, key),
        "a kid of another key": sign(alg + b',"kid":"other"}', body, key),
        "a typ that is a number": sign(alg + b',"typ":1}', body, key),
        "jwk in the header": sign(alg + b',"jwk":' + json.dumps(key.public_jwk()).encode() + b"}", body, key),
        "jku in the header": sign(alg + b',"jku":"https://evil.example"}', body, key),
        "b64 without crit": sign(alg + b',"b64":true}', body, key),
        "zip": sign(alg + b',"zip":"DEF"}', body, key),
        "more than 8 KiB": sign(alg + b"}", b"x" * 9000, key),
    }


STRICTER = broken_tokens()


@needs_peers
@quiet
@pytest.mark.parametrize("token", STRICTER.values(), ids=list(STRICTER))
def test_where_we_are_stricter(token: str) -> None:
    """Each deliberate difference is one: we refuse it, and at least one mainstream library takes it."""
    key = EC_KEY
    with pytest.raises(InvalidToken):
        jws.verify(token, key)
    assert accepted_by(token, key)


def claims_accepted_by(token: str, key: Key) -> list[str]:
    """Tell which libraries take a token as a whole, times, issuer and audience checked."""
    public, own_jwk = load_pem_private_key(private_pem(key), None).public_key(), module("joserfc.jwk")
    rfc_jwt, lib_key = module("joserfc.jwt"), authlib.ECKey.import_key(public_pem(key))
    wanted = {
        "iss": {"essential": True, "value": ISS},
        "aud": {"essential": True, "value": AUD},
        "exp": {"essential": True},
    }
    whole_jwt, crypto_key = module("jwcrypto.jwt"), module("jwcrypto.jwk").JWK.from_pem(public_pem(key))

    def joserfc_reads() -> None:
        found = rfc_jwt.decode(token, own_jwk.ECKey.import_key(public_pem(key)), algorithms=["ES256"])
        rfc_jwt.JWTClaimsRegistry(**wanted).validate(found.claims)

    readers: dict[str, Callable[[], object]] = {
        "PyJWT": lambda: module("jwt").decode(token, public, ["ES256"], issuer=ISS, audience=AUD),
        "joserfc": joserfc_reads,
        "Authlib": lambda: authlib.JsonWebToken(["ES256"]).decode(token, lib_key, claims_options=wanted).validate(),
        "jwcrypto": lambda: whole_jwt.JWT(
            jwt=token, key=crypto_key, algs=["ES256"], check_claims={"iss": ISS, "aud": AUD}
        ),
    }
    names = []
    for name, reader in readers.items():
        with contextlib.suppress(Exception):
            reader()
            names.append(name)
    return names


EXPIRIES = {"twice": '1,"exp":1900000000', "of 4,201 digits": "1" + "0" * 4200, "a string": '"1900000000"'}


@needs_peers
@quiet
@pytest.mark.parametrize("exp", EXPIRIES.values(), ids=list(EXPIRIES))
def test_an_exp_that_mainstream_libraries_take(exp: str) -> None:
    """An `exp` written twice, of 4,201 digits or as text is refused here, and taken elsewhere."""
    key = EC_KEY
    verify = AccessTokenVerifier(keys=key, issuer=ISS, audience=AUD)

    def made(value: str) -> str:
        payload = f'{{"iss":"{ISS}","sub":"s","aud":"{AUD}","exp":{value},"iat":1,"jti":"j","client_id":"c"}}'
        return sign(b'{"alg":"ES256","typ":"at+jwt"}', payload.encode(), key)

    far = str(int(time.time()) + 600)
    assert verify(made(far)).sub == "s"
    assert len(claims_accepted_by(made(far), key)) == 4
    with pytest.raises(InvalidToken):
        verify(made(exp.replace("1900000000", far)))
    assert claims_accepted_by(made(exp.replace("1900000000", far)), key)
