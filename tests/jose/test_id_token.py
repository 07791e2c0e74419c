"""ID tokens and log-out tokens of other issuers: each check by itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from tests.b64 import b64
from tests.jose.test_jws import forge

from dutchdoor.errors import InvalidToken, UnknownKey
from dutchdoor.jose import jws
from dutchdoor.jose.id_token import LOGOUT_EVENT, read_id_token, read_logout_token
from dutchdoor.jose.jwk import Key, KeySet

NOW, ISS, US = 1_750_000_000, "https://issuer.example", "us"
KEY = Key.generate("ES256", kid="k")
RSA = Key.generate("RS256", kid="r")
KEYS = KeySet([KEY.public(), RSA.public()])
GOOD: dict[str, Any] = {"iss": ISS, "sub": "ada", "aud": US, "exp": NOW + 300, "iat": NOW, "nonce": "n"}
OUT: dict[str, Any] = {"iss": ISS, "aud": US, "iat": NOW, "jti": "j", "sub": "ada", "events": {LOGOUT_EVENT: {}}}
HALF = b64(hashlib.sha256(b"at").digest()[:16])
DIRECTORY = "00000000-0000-0000-0000-00000000000a"
TENANTS = "https://login.example/{tenantid}/v2.0"


def token(claims: dict[str, Any], key: Key = KEY, typ: str | None = None) -> str:
    return jws.sign(json.dumps({n: v for n, v in claims.items() if v is not None}).encode(), key, typ=typ)


def read(text: str, **more: Any) -> Any:
    given = {"algorithms": {"ES256"}, "issuer": ISS, "client_id": US, "nonce": "n", "now": float(NOW)}
    return read_id_token(text, KEYS, **{**given, **more})


def read_out(text: str, **more: Any) -> Any:
    given = {"algorithms": {"ES256"}, "issuer": ISS, "client_id": US, "now": float(NOW)}
    return read_logout_token(text, KEYS, **{**given, **more})


@pytest.mark.parametrize("claims", [
    {}, {"aud": [US]}, {"azp": US}, {"aud": [US, "other"], "azp": US}, {"at_hash": HALF}, {"nbf": NOW},
    {"exp": NOW - 59}, {"iat": NOW - 600}, {"iat": NOW + 59, "auth_time": NOW + 59},
], ids=str)  # fmt: skip
def test_what_an_issuer_may_write_is_read(claims: dict[str, Any]) -> None:
    """Tokens as OpenID Connect allows them, clocks a minute apart."""
    assert read(token({**GOOD, **claims}), access_token="at")["sub"] == "ada"
    assert read(token({**GOOD, **claims}, typ="JWT"), access_token="at")["sub"] == "ada"


@pytest.mark.parametrize("claims", [
    {"iss": None}, {"iss": ISS + "/"}, {"iss": [ISS]}, {"iss": "https://other.example"},
    {"aud": None}, {"aud": "other"}, {"aud": []}, {"aud": ["other"]}, {"aud": [US, 7]}, {"aud": {"a": US}},
    {"aud": [US, "other"]}, {"azp": "other"}, {"aud": [US, "other"], "azp": "other"}, {"azp": [US]},
    {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 256}, {"sub": "a\nb"}, {"sub": "\u00e9"},
    {"nonce": None}, {"nonce": "m"}, {"nonce": ["n"]}, {"nonce": "n\u0000"},
    {"exp": None}, {"exp": NOW - 60}, {"exp": "9999999999"}, {"exp": True}, {"exp": -1}, {"exp": 1e300},
    {"iat": None}, {"iat": NOW - 661}, {"iat": NOW + 61}, {"nbf": NOW + 61}, {"nbf": "now"},
    {"at_hash": "x"}, {"at_hash": 7}, {"auth_time": NOW + 61}, {"auth_time": "x"},
], ids=str)  # fmt: skip
def test_any_other_claim_refuses_the_token(claims: dict[str, Any]) -> None:
    """Issuer, audience, `azp`, subject, nonce, times and `at_hash` are each enough to refuse it."""
    with pytest.raises(InvalidToken):
        read(token({**GOOD, **claims}), access_token="at")


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "dpop+jwt", "JWE"])
def test_a_token_of_another_kind_is_none(typ: str) -> None:
    """An access token or a log-out token by the same key is no ID token."""
    with pytest.raises(InvalidToken):
        read(token(GOOD, typ=typ))


def test_the_alg_is_one_that_the_issuer_lists_and_the_key_has() -> None:
    """`none`, HS256 with the public key as the secret, an unlisted algorithm, another key, an unknown one."""
    payload = json.dumps(GOOD).encode()
    with pytest.raises(InvalidToken, match="not valid"):
        read(token(GOOD, RSA))
    assert read(token(GOOD, RSA), algorithms={"RS256", "ES256"})
    for header in ({"alg": "none", "kid": "k"}, {"alg": "HS256", "kid": "k"}, {"alg": "RS256", "kid": "k"}):
        with pytest.raises(InvalidToken):
            read(forge(header, payload, KEY), algorithms={"none", "HS256", "ES256", "RS256"})
    with pytest.raises(InvalidToken):
        read(token(GOOD, Key.generate("ES256", kid="k")))
    with pytest.raises(UnknownKey):
        read(token(GOOD, Key.generate("ES256", kid="unknown")))
    secret = Key.from_secret(bytes(range(100, 132)), "HS256", kid="s")
    with pytest.raises(InvalidToken, match="not valid"):
        read_id_token(
            token(GOOD, secret), KeySet([secret]), algorithms={"HS256"}, issuer=ISS, client_id=US, nonce="n", now=NOW
        )


@pytest.mark.parametrize("payload", [
    b'{"iss":"https://issuer.example","iss":"x"}', b"[]", b"{", b'{"sub":NaN}', b"\xff", b"",
], ids=repr)  # fmt: skip
def test_claims_are_one_strict_object(payload: bytes) -> None:
    """A name that occurs twice, no object, or no JSON."""
    with pytest.raises(InvalidToken):
        read(jws.sign(payload, KEY))


def test_a_proof_that_was_asked_for_anew_is_newer() -> None:
    """`auth_time` must be there, and not older than the question, but for the leeway."""
    assert read(token({**GOOD, "auth_time": NOW - 30}), proved_after=float(NOW))
    for at in (None, NOW - 61, 0):
        with pytest.raises(InvalidToken, match="not valid"):
            read(token({**GOOD, "auth_time": at}), proved_after=float(NOW))


def test_each_tenant_signs_for_itself() -> None:
    """`iss` has the tenant of `tid`, and a key that is for one tenant signs for no other."""
    iss = TENANTS.replace("{tenantid}", DIRECTORY)
    assert read(token({**GOOD, "iss": iss, "tid": DIRECTORY}), issuer=TENANTS)
    other = DIRECTORY[:-1] + "b"
    for claims in ({"tid": other}, {"tid": None}, {"tid": "x"}, {"tid": DIRECTORY.upper()}, {"iss": TENANTS}):
        with pytest.raises(InvalidToken):
            read(token({**GOOD, "iss": iss, "tid": DIRECTORY, **claims}), issuer=TENANTS)
    only = {"k": TENANTS.replace("{tenantid}", other)}
    with pytest.raises(InvalidToken):
        read(token({**GOOD, "iss": iss, "tid": DIRECTORY}), issuer=TENANTS, key_issuers=only)
    assert read(token({**GOOD, "iss": iss, "tid": DIRECTORY}), issuer=TENANTS, key_issuers={"k": TENANTS})


def test_a_log_out_token_is_read() -> None:
    """With a subject, a session or both, with and without a type."""
    for typ in (None, "JWT", "logout+jwt"):
        assert read_out(token(OUT, typ=typ)).subject == "ada"
    assert read_out(token({**OUT, "sub": None, "sid": "s"})).sid == "s"


@pytest.mark.parametrize("claims", [
    {"nonce": "n"}, {"events": None}, {"events": {}}, {"events": {LOGOUT_EVENT: 1}}, {"events": LOGOUT_EVENT},
    {"sub": None}, {"jti": None}, {"jti": ""}, {"iss": "x"}, {"aud": "other"}, {"iat": NOW - 661}, {"iat": NOW + 61},
    {"exp": NOW - 60}, {"sid": 7},
], ids=str)  # fmt: skip
def test_any_other_log_out_token_is_refused(claims: dict[str, Any]) -> None:
    """An ID token in its place, another event, no `jti`, no one named, another time."""
    with pytest.raises(InvalidToken):
        read_out(token({**OUT, **claims}))
    with pytest.raises(InvalidToken):
        read_out(token({**OUT, "events": None, "nonce": "n", "exp": NOW + 300}))
    with pytest.raises(InvalidToken):
        read_out(token(OUT, typ="at+jwt"))
