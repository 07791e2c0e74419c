"""An issuer's back-channel log-out: what began there ends here, through the fence."""

from __future__ import annotations

from typing import Any

from tests.issuer import ADA, FaultyIssuer, House, begin, come_back, me, sign_in
from tests.web.test_form_pages import FORM, PASSWORD

from dutchdoor.jose.jwk import Key
from dutchdoor.model.policy import STANDARD

PATH = "/auth/issuers/corp/backchannel-logout"
PROGRAM = {"accept": "*/*", "content-type": "application/x-www-form-urlencoded"}


def send(house: House, token: str, path: str = PATH) -> Any:
    with house.program() as client:
        return client.post(path, data={"logout_token": token}, headers=PROGRAM)


def test_a_session_of_the_issuer_ends_what_began_by_it(issuer: FaultyIssuer, house: House) -> None:
    """By `sid`, that sign-in alone; by `sub`, each; and never one that began by a password."""
    with house.browser() as one, house.browser() as two, house.browser() as own:
        issuer.claims["sid"] = "s1"
        sign_in(one, issuer)
        issuer.claims["sid"] = "s2"
        sign_in(two, issuer)
        house.set_password(ADA, PASSWORD)
        own.post("/auth/login", data={"email": ADA, "password": PASSWORD}, headers=FORM)
        done = send(house, issuer.logout_token(sid="s1", sub=None))
        assert (done.status_code, done.json()["fenced"], done.json()["ended"]) == (200, True, 1)
        assert done.headers["cache-control"] == "no-store"
        assert me(one) is None and me(two)
        assert send(house, issuer.logout_token(sid="s2", sub="another-person")).json()["ended"] == 0
        assert me(two)
        assert send(house, issuer.logout_token()).json()["ended"] == 1
        assert me(two) is None and me(own)


def test_it_is_still_the_issuers_after_another_proof(issuer: FaultyIssuer, house: House) -> None:
    """A session that replaced the first one, after a fresh proof, ends as well."""
    with house.browser() as client:
        sign_in(client, issuer)
        house.set_password(ADA, PASSWORD)
        proved = client.post("/auth/reauthenticate", data={"password": PASSWORD, **house.csrf(client)}, headers=FORM)
        assert proved.status_code == 303, proved.text
        assert send(house, issuer.logout_token()).json()["ended"] == 1
        assert me(client) is None


def test_a_log_out_token_is_accepted_once_and_only_a_right_one(issuer: FaultyIssuer, house: House) -> None:
    """A replay, an ID token in its place, another audience, an old one, a forged one: 400, and nothing ends."""
    with house.browser() as client:
        sign_in(client, issuer)
        token = issuer.logout_token()
        assert send(house, token).status_code == 200
        sign_in(client, issuer)
        stranger, right = Key.generate("ES256", kid=issuer.key.kid), issuer.key
        issuer.key = stranger
        forged = issuer.logout_token()
        issuer.key = right
        for wrong in (
            token, forged, "", "x", "x" * 9000,
            issuer.logout_token(nonce="n"), issuer.logout_token(aud="another"), issuer.logout_token(events={}),
            issuer.logout_token(iat=int(house.clock()) - 3600), issuer.logout_token(jti=None),
            issuer.logout_token(typ="at+jwt"), issuer.logout_token(iss="https://evil.example"),
        ):  # fmt: skip
            answer = send(house, wrong)
            assert answer.status_code == 400, wrong
            assert answer.json()["error"] == "invalid_request"
            assert answer.headers["cache-control"] == "no-store"
        assert me(client)
        unknown = send(house, token, "/auth/issuers/none/backchannel-logout")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


def test_a_second_step_keeps_what_the_sign_in_began_by(issuer: FaultyIssuer) -> None:
    """A session that starts after a second factor ends with the issuer's, too."""
    house = House(issuer, STANDARD)
    with house.browser() as client, house.browser() as other:
        sign_in(client, issuer)
        secret = house.enrol(client)
        house.clock.forward(60)  # type: ignore[attr-defined]
        assert come_back(other, issuer.answer(begin(other))).headers["location"].startswith("/auth/login/step")
        code = {"method": "totp", "response": house.code(secret)}
        assert other.post("/auth/login/step", data=code, headers=FORM).status_code == 303
        assert send(house, issuer.logout_token()).json()["ended"] == 2
        assert me(other) is None and me(client) is None
