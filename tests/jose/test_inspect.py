"""`dutchdoor token inspect` and `verify` in words: they agree with the verifier, and stay silent about secrets."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.jose.access_token import AccessTokenIssuer
from dutchdoor.jose.inspect import Finding, explain
from dutchdoor.jose.jwk import Key, KeySet

ISS, AUD, NOW = "https://auth.example.com", "https://api.example.com", 1_800_000_000.0
KEY = Key.generate("ES256")
GOOD = AccessTokenIssuer(issuer=ISS, audience=AUD)(
    key=KEY, now=NOW, lifetime=600.0, subject="somebody", client_id="web", epoch=3, amr=["pwd"], roles=["admin"]
)
HEAD, BODY, TAIL = GOOD.split(".")


def b64(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def header(**changed: Any) -> str:
    return ".".join([b64({"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt", **changed}), BODY, TAIL])


def claims(**changed: Any) -> str:
    members = json.loads(base64.urlsafe_b64decode(BODY + "=="))
    return ".".join([HEAD, b64({**members, **changed}), TAIL])


def wrong(found: list[Finding]) -> str:
    return "\n".join(finding.text for finding in found if finding.level == "wrong")


def test_a_good_token_is_accepted_in_words() -> None:
    """For a valid token it says what is in it, when it expires, that its signature is valid and that it is accepted."""
    found = explain(GOOD, KEY.public(), now=NOW + 60, issuer=ISS, audience=AUD)
    text = "\n".join(finding.text for finding in found)
    assert wrong(found) == ""
    for part in (
        *("somebody", "Issued 60 seconds ago", "Expires in 9 minutes", "2027-01-15"),
        *("signature is valid", "It is accepted"),
    ):
        assert part in text
    assert TAIL not in text
    assert explain(GOOD.encode(), KEY.public(), now=NOW + 60, issuer=ISS, audience=AUD) == found


def test_without_keys_it_says_that_nothing_was_proved() -> None:
    """Without keys nothing is called accepted, and it is said that the signature was not checked."""
    found = explain(GOOD, now=NOW)
    assert any(finding.level == "warning" and "not checked" in finding.text for finding in found)
    assert not any("accepted" in finding.text for finding in found)


@pytest.mark.parametrize(
    ("token", "now", "words"),
    [
        (GOOD, NOW + 7300, "Expired 111 minutes ago"),
        (GOOD, NOW - 7300, "Issued 2 hours from now"),
        (GOOD + "\n", NOW, "whitespace"),
        ("Bearer " + GOOD, NOW, "Authorization header"),
        (f'"{GOOD}"', NOW, "quote"),
        ("", NOW, "no token"),
        ("dd_abc", NOW, "no dots"),
        ("a.b", NOW, "2 parts"),
        ("a.b.c.d.e", NOW, "encrypted"),
        (f"{HEAD}.{BODY}x.{TAIL}", NOW, "payload cannot be read"),
        (f"{HEAD}.{BODY}=.{TAIL}", NOW, "payload cannot be read"),
        (HEAD + "." + "A" * 9000 + "." + TAIL, NOW, "characters"),
        (header(alg="none"), NOW, "not signed at all"),
        (header(alg="hs256"), NOW, "not an algorithm we know"),
        (claims(cnf={"jkt": "x"}), NOW, "bound to a key in a way that is not known here"),
        (header(typ="JWT"), NOW, "ID token"),
        (header(crit=["x"]), NOW, "'crit'"),
        (header(b64=False), NOW, "'b64'"),
        (header(jwk={}), NOW, "'jwk' brings its own key"),
        (header(kid="other"), NOW, "no key of this kid"),
        (claims(exp=1_800_000_600_000), NOW, "not seconds since 1970"),
        (claims(iat="1"), NOW, "'iat' is \"1\""),
        (claims(nbf=NOW + 500), NOW, "Not valid before"),
        (claims(exp=NOW - 100), NOW, "before it was issued"),
        (claims(iss=ISS + "/"), NOW, "A slash counts"),
        (claims(aud="other"), NOW, "not for"),
        (claims(sub="admin"), NOW, "signature is not valid"),
        (GOOD[:-5] + "AAAAA", NOW, "signature"),
    ],
)
def test_what_is_wrong_is_named(token: str, now: float, words: str) -> None:
    """Each reason to refuse a token has its sentence, and the verdict is the verifier's."""
    found = explain(token, KEY.public(), now=now, issuer=ISS, audience=AUD)
    assert words in wrong(found)
    assert not any("accepted" in finding.text for finding in found)


def test_missing_claims_are_listed() -> None:
    """What RFC 9068 requires and the token lacks is listed by name."""
    assert "iss, sub, aud, exp, iat, jti, client_id" in wrong(explain(f"{HEAD}.{b64({})}.{TAIL}", now=NOW))
    no_typ = ".".join([b64({"alg": "ES256"}), BODY, TAIL])
    assert "'typ' is missing" in wrong(explain(no_typ, now=NOW))


def test_a_stranger_cannot_steer_the_terminal() -> None:
    """What a token says is shown on one line, escaped and cut: no control character or flood reaches the screen."""
    nasty = claims(sub="\x1b[2J\u202e\n" + "x" * 5000, iss="\x1b" * 500, aud=["\x07"])
    for finding in explain(nasty, KEY.public(), now=NOW, issuer=ISS, audience=AUD):
        assert finding.text.isprintable()
        assert finding.text.isascii()
        assert len(finding.text) < 3000


@given(st.text() | st.binary() | st.text("AQgwe.y-_", max_size=60))
def test_nothing_escapes(token: str | bytes) -> None:
    """Whatever a person pastes, findings come out, and for nothing pasted at random does it say accepted."""
    for keys in (None, KEY, KeySet([KEY])):
        found = explain(token, keys, now=NOW, issuer=ISS, audience=AUD)
        assert found
        assert not any("accepted" in finding.text for finding in found)
