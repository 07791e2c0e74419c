"""Proofs of a client's key (RFC 9449): one right proof, and everything that makes it a wrong one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from dutchdoor.client.dpop import ProofKey
from dutchdoor.errors import DpopRequired, DutchdoorError, InvalidDpopProof, UseDpopNonce
from dutchdoor.jose import dpop
from dutchdoor.jose.dpop import IAT_WITHIN, NONCE_FOR, DpopProof, Proofs, hash_of
from dutchdoor.jose.jwk import Key
from dutchdoor.model.ids import encode

NOW = 1_800_000_000.0
URL = "https://api.example.com/orders/7"
TOKEN = "header.claims.signature"

# RFC 9449: figure 2, figure 12, and the token and thumbprint beside them.
RFC_HEAD = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    "RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
RFC_SIGN_IN = (
    f"{RFC_HEAD}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2"
    "VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_RESOURCE = (
    f"{RFC_HEAD}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm"
    "90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9"
    ".2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
RFC_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"

PROOFS = Proofs(b"a key that every node has" * 2)
KEY = Key.generate("ES256")
JWK = {name: value for name, value in KEY.public_jwk().items() if name not in {"alg", "kid", "use"}}


def right() -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims of a proof that is right."""
    claims = {"jti": "a", "htm": "GET", "htu": URL, "iat": int(NOW), "ath": hash_of(TOKEN), "nonce": PROOFS.nonce(NOW)}
    return {"typ": "dpop+jwt", "alg": "ES256", "jwk": JWK}, claims


def signed(header: dict[str, Any], claims: dict[str, Any], key: Key = KEY) -> str:
    text = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{text}.{encode(key.sign(text.encode()))}"


def read(text: str, *, method: str = "GET", url: str = URL, now: float = NOW) -> dpop.Proved:
    return PROOFS.read(DpopProof(text, method, url), TOKEN, now)


def test_d21_the_examples_of_the_rfc_are_right_but_for_the_nonce() -> None:
    """The two proofs of RFC 9449 pass each check up to the nonce, which is ours to make, and their key has the name
    that the RFC gives it.
    """
    at_sign_in = DpopProof(RFC_SIGN_IN, "POST", "https://server.example.com/token")
    at_resource = DpopProof(RFC_RESOURCE, "GET", "https://resource.example.org/protectedresource?page=2")
    for proof, token in ((at_sign_in, None), (at_resource, RFC_TOKEN)):
        with pytest.raises(UseDpopNonce):
            PROOFS.read(proof, token, 1562262616.0)
    with pytest.raises(InvalidDpopProof, match="`ath`"):
        PROOFS.read(at_resource, RFC_TOKEN + "x", 1562262616.0)
    assert RFC_JKT in {key.kid for _, key in PROOFS._keys.values()}


def test_d21_a_right_proof_names_its_key() -> None:
    """A right proof gives the thumbprint of its key, whatever `kid` the client writes."""
    header, claims = right()
    assert read(signed(header, claims)).thumbprint == KEY.kid
    named = {**header, "jwk": {**JWK, "kid": "chosen"}}
    assert read(signed(named, claims)).thumbprint == KEY.kid


@pytest.mark.parametrize("alg", dpop.ALGORITHMS)
def test_d21_each_listed_algorithm_is_taken(alg: str) -> None:
    """What the challenge lists is what a client may sign with."""
    key = Key.generate(alg)
    jwk = {name: value for name, value in key.public_jwk().items() if name not in {"alg", "kid", "use"}}
    header, claims = right()
    assert read(signed({**header, "alg": alg, "jwk": jwk}, claims, key)).alg == alg


OTHER = Key.generate("ES256")
RSA_WEAK = {"kty": "RSA", "n": encode(bytes([0x80] + [1] * 127)), "e": "AQAB"}
SECRET = {"kty": "oct", "k": encode(bytes(range(32)))}

WRONG: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "no typ": lambda h, _: h.pop("typ"),
    "typ of a token": lambda h, _: h.update(typ="at+jwt"),
    "typ of a JWT": lambda h, _: h.update(typ="JWT"),
    "alg none": lambda h, _: h.update(alg="none"),
    "alg HS256": lambda h, _: h.update(alg="HS256"),
    "HS256 with its secret": lambda h, _: h.update(alg="HS256", jwk=SECRET),
    "alg of another key": lambda h, _: h.update(alg="ES384"),
    "alg list": lambda h, _: h.update(alg=["ES256"]),
    "no jwk": lambda h, _: h.pop("jwk"),
    "jwk is text": lambda h, _: h.update(jwk="x"),
    "private jwk": lambda h, _: h.update(jwk={**JWK, "d": "AAAA"}),
    "another jwk": lambda h, _: h.update(jwk={**OTHER.public_jwk()}),
    "symmetric jwk": lambda h, _: h.update(jwk=SECRET),
    "weak jwk": lambda h, _: h.update(alg="RS256", jwk=RSA_WEAK),
    "point off the curve": lambda h, _: h.update(jwk={**JWK, "x": JWK["y"]}),
    "crit": lambda h, _: h.update(crit=["exp"]),
    "jku": lambda h, _: h.update(jku="https://evil.example/keys"),
    "no jti": lambda _, c: c.pop("jti"),
    "empty jti": lambda _, c: c.update(jti=""),
    "long jti": lambda _, c: c.update(jti="x" * 257),
    "jti of a number": lambda _, c: c.update(jti=7),
    "no htm": lambda _, c: c.pop("htm"),
    "another htm": lambda _, c: c.update(htm="POST"),
    "htm in lower case": lambda _, c: c.update(htm="get"),
    "no htu": lambda _, c: c.pop("htu"),
    "another path": lambda _, c: c.update(htu="https://api.example.com/orders/8"),
    "another case in the path": lambda _, c: c.update(htu="https://api.example.com/Orders/7"),
    "path below": lambda _, c: c.update(htu=URL + "/"),
    "another host": lambda _, c: c.update(htu="https://evil.example.com/orders/7"),
    "another port": lambda _, c: c.update(htu="https://api.example.com:8443/orders/7"),
    "plain HTTP": lambda _, c: c.update(htu="http://api.example.com/orders/7"),
    "user in the URL": lambda _, c: c.update(htu="https://api.example.com@evil.example/orders/7"),
    "plain HTTP at the port of TLS": lambda _, c: c.update(htu="http://api.example.com:443/orders/7"),
    "user before our host": lambda _, c: c.update(htu="https://ada@api.example.com/orders/7"),
    "longer than any proof": lambda _, c: c.update(more="x" * 4096),
    "no host": lambda _, c: c.update(htu="/orders/7"),
    "port out of range": lambda _, c: c.update(htu="https://api.example.com:99999/orders/7"),
    "no ath": lambda _, c: c.pop("ath"),
    "another ath": lambda _, c: c.update(ath=hash_of("another")),
    "no iat": lambda _, c: c.pop("iat"),
    "iat is text": lambda _, c: c.update(iat=str(int(NOW))),
    "iat is a truth": lambda _, c: c.update(iat=True),
    "stale iat": lambda _, c: c.update(iat=NOW - IAT_WITHIN - 1),
    "future iat": lambda _, c: c.update(iat=NOW + IAT_WITHIN + 1),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_d22_a_proof_that_is_wrong_in_one_thing_is_refused(wrong: str) -> None:
    """A proof that differs from a right one in one thing is refused, and the message says which."""
    header, claims = right()
    WRONG[wrong](header, claims)
    with pytest.raises(InvalidDpopProof) as refusal:
        read(signed(header, claims))
    assert str(refusal.value).startswith("The DPoP proof is not valid: it")


@pytest.mark.parametrize("nonce", [None, "", 7, "x", "é" * 28, "A" * 28, Proofs(b"another" * 5).nonce(NOW)])
def test_d23_a_nonce_of_another_hand_asks_for_ours(nonce: object) -> None:
    """A proof without a nonce, or with one that this service did not make, gets one, and is right with it."""
    header, claims = right()
    with pytest.raises(UseDpopNonce) as asked:
        read(signed(header, {**claims, "nonce": nonce}))
    assert read(signed(header, {**claims, "nonce": asked.value.nonce}))


@pytest.mark.parametrize(
    ("age", "taken"), [(0, True), (NONCE_FOR, True), (NONCE_FOR + 1, False), (-59, True), (-61, False)]
)
def test_d23_a_nonce_lives_for_minutes_on_every_node(age: float, taken: bool) -> None:
    """A node takes the nonce of another one with the same key, also if that one's clock is a minute ahead, and for no
    longer than it says.
    """
    node = Proofs(b"a key that every node has" * 2)
    assert node.is_ours(PROOFS.nonce(NOW), NOW + age) is taken


MALFORMED = ("a.b", "a.b.c.d", "....", "a b.c.d", "é.é.é", "e30.e30.", "e30=.e30.e30", "=.=.=", "x" * 5000)


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_d22_what_is_no_jwt_is_refused(text: str) -> None:
    """Text that is no JWT, or longer than any proof, is refused before anything is computed."""
    with pytest.raises(InvalidDpopProof):
        read(text)


def test_d22_an_algorithm_that_is_not_listed_is_refused() -> None:
    """What the challenge does not list is refused, however right the signature is."""
    key = Key.generate("RS512")
    header, claims = right()
    jwk = {name: value for name, value in key.public_jwk().items() if name not in {"alg", "kid", "use"}}
    with pytest.raises(InvalidDpopProof, match="`alg` is none of"):
        read(signed({**header, "alg": "RS512", "jwk": jwk}, claims, key))


def test_d22_a_member_that_is_there_twice_is_refused() -> None:
    """Two readers of a proof must not see two methods in it."""
    header, claims = right()
    body = json.dumps(claims)[:-1] + ', "htm": "GET"}'
    text = f"{encode(json.dumps(header).encode())}.{encode(body.encode())}"
    with pytest.raises(InvalidDpopProof):
        read(f"{text}.{encode(KEY.sign(text.encode()))}")


def test_d22_a_changed_proof_is_refused() -> None:
    """A bit more or less in the signature, or the signature of another proof, is refused, and no key is kept of it."""
    header, claims = right()
    text = signed(header, claims)
    fresh = Proofs(b"a key that every node has" * 2)
    for other in (text[:-6] + "AAAAAA", text[:-2], text + "A", text.rpartition(".")[0] + "." + "A" * 86):
        with pytest.raises(InvalidDpopProof):
            fresh.read(DpopProof(other, "GET", URL), TOKEN, NOW)
    assert not fresh._keys


SAME = (
    ("https://api.example.com/orders/7", "https://API.example.com:443/orders/7?page=2#top"),
    ("https://api.example.com", "https://api.example.com/"),
    ("https://api.example.com/a%20b/%C3%A9", "https://api.example.com/a b/é"),
    ("http://localhost:8000/x", "http://LOCALHOST:8000/x"),
    ("http://localhost/x", "http://localhost:80/x"),
)


@pytest.mark.parametrize(("asked", "named"), SAME)
def test_d24_two_spellings_of_one_url_are_one(asked: str, named: str) -> None:
    """Case of scheme and host, the usual port, escapes, query and fragment make no other URL (RFC 9449, 4.3)."""
    header, claims = right()
    assert read(signed(header, {**claims, "htu": named}), url=asked)
    assert read(signed(header, {**claims, "htu": asked}), url=named)


def checked(proofs: Proofs, bound_to: str, proof: str | None, now: float = NOW) -> DutchdoorError | None:
    given = None if proof is None else DpopProof(proof, "GET", URL)
    try:
        proofs.check(bound_to, given, TOKEN, now)
    except DutchdoorError as error:
        return error
    return None


def test_d25_a_bound_token_needs_its_own_key_and_another_token_none() -> None:
    """A bound token without a proof, with another key's proof, and an unbound token with a proof are refused: the
    scheme is that of the token, in both directions.
    """
    header, claims = right()
    proof = signed(header, claims)
    proofs = Proofs(b"a key that every node has" * 2)
    assert checked(proofs, "", None) is None
    assert isinstance(checked(proofs, KEY.kid, None), DpopRequired)
    assert isinstance(checked(proofs, KEY.kid, ""), DpopRequired)
    assert "its key is not" in str(checked(proofs, OTHER.kid, proof))
    assert "send it by the scheme Bearer" in str(checked(proofs, "", proof))
    assert checked(proofs, KEY.kid, proof) is None


def test_d26_a_proof_is_taken_once_for_as_long_as_it_could_be() -> None:
    """The same proof is refused the second time, until its nonce is too old. Another key has a `jti` of its own."""
    proofs = Proofs(b"a key that every node has" * 2)
    header, claims = right()
    proof = signed(header, claims)
    assert checked(proofs, KEY.kid, proof) is None
    for later in (0.0, 1.0, 150.0, 299.0):
        assert "used before" in str(checked(proofs, KEY.kid, proof, NOW + later)), later
    assert isinstance(checked(proofs, KEY.kid, proof, NOW + NONCE_FOR + 1), UseDpopNonce)
    theirs = signed({**header, "jwk": OTHER.public_jwk()}, claims, OTHER)
    assert checked(proofs, OTHER.kid, theirs) is None


def test_d26_a_proof_is_remembered_when_others_are_forgotten() -> None:
    """A proof that was taken shortly before older ones are forgotten is refused after that, too."""
    proofs = Proofs(b"a key that every node has" * 2)
    header, claims = right()
    assert checked(proofs, KEY.kid, signed(header, claims)) is None
    later = NOW + dpop.REMEMBERED_FOR - 10
    proof = signed(header, {**claims, "jti": "b", "iat": later, "nonce": proofs.nonce(later)})
    assert checked(proofs, KEY.kid, proof, later) is None
    for after in (later + 20, later + 280):
        assert "used before" in str(checked(proofs, KEY.kid, proof, after))


def test_d26_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends proof after proof fills two generations at most, and clients with ever new keys no more than
    a thousand headers.
    """
    monkeypatch.setattr(dpop, "_SPENT_AT_MOST", 8)
    monkeypatch.setattr(dpop, "_KEYS_AT_MOST", 4)
    proofs = Proofs(b"a key that every node has" * 2)
    for n in range(40):
        key = ProofKey.generate()
        proof = key.proof("GET", URL, at=NOW, nonce=proofs.nonce(NOW + n), token=TOKEN)
        assert checked(proofs, key.thumbprint, proof, NOW + n) is None
    assert len(proofs._young) + len(proofs._old) <= 16
    assert len(proofs._keys) <= 4


def test_d27_the_client_writes_proofs_that_are_right() -> None:
    """The proof of `dutchdoor.client` is right, its key comes back from its text, and neither shows in a `repr`."""
    key = ProofKey.parse(ProofKey.generate().text())
    proof = key.proof("GET", URL + "?page=2", at=time.time(), nonce=PROOFS.nonce(time.time()), token=TOKEN)
    assert read(proof, now=time.time()).thumbprint == key.thumbprint
    assert key.text() not in repr(key)
    assert proof not in repr(DpopProof(proof, "GET", URL))
