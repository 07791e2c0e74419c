"""Attacks and outages: each thing that an issuer, its network or another person can do wrong, against a real server."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.issuer import ADA, CLIENT, FaultyIssuer, House, begin, come_back, give, me, sign_in, words
from tests.jose.test_jws import forge
from tests.server.running import eventually
from tests.web.test_form_pages import FORM

from dutchdoor.issuers import openid_provider, outbound
from dutchdoor.jose import jws
from dutchdoor.jose.jwk import Key


def refused(house: House, answer: Any, status: int = 403) -> str:
    """Check that nothing was created and nothing started, and return what the person reads."""
    assert answer.status_code == status, answer.text
    assert house.run(house.auth.store.account_by_email(ADA)) is None
    assert not [line for line in answer.headers.get_list("set-cookie") if "session" in line]
    return words(answer)


@pytest.mark.parametrize("claims", [
    {"aud": "another-client"}, {"aud": [CLIENT, "another"]}, {"azp": "another"}, {"iss": "https://evil.example"},
    {"nonce": "x"}, {"nonce": None}, {"exp": 1}, {"iat": 1}, {"sub": None}, {"sub": "x" * 300},
], ids=str)  # fmt: skip
def test_a_wrong_id_token_signs_no_one_in(issuer: FaultyIssuer, house: House, claims: dict[str, Any]) -> None:
    """A foreign audience or `azp`, a replayed nonce, an old token, another issuer: one sentence. The log has why."""
    issuer.claims = claims
    with house.browser() as client:
        assert "did not work" in refused(house, sign_in(client, issuer))
    events = house.run(house.auth.store.events(limit=10))
    assert any(each.name == "login" and each.detail.startswith("corp: ") for each in events)


def test_the_alg_is_not_the_tokens_to_choose(issuer: FaultyIssuer, house: House) -> None:
    """`none`, a secret that is the public key, and a key that the issuer does not publish."""
    stranger = Key.generate("ES256", kid="first")
    forgers = [
        lambda payload: forge({"alg": "none", "kid": "first"}, payload, issuer.key),
        lambda payload: forge({"alg": "HS256", "kid": "first"}, payload, stranger),
        lambda payload: jws.sign(payload, stranger),
        lambda payload: jws.sign(payload, issuer.key) + "x" * 9000,
        lambda payload: "",
    ]
    with house.browser() as client:
        for forger in forgers:
            issuer.sign = forger
            assert "did not work" in refused(house, sign_in(client, issuer))


def test_another_browser_gains_nothing(issuer: FaultyIssuer, house: House) -> None:
    """Log-in CSRF: the attacker's answer in the victim's browser. Code injection: the victim's code with the attacker's
    state, and the victim's whole answer in the attacker's browser.
    """
    with house.browser() as victim, house.browser() as attacker:
        theirs = issuer.answer(begin(attacker))
        assert "another browser" in refused(house, come_back(victim, theirs))
        begin(victim)  # with a cookie of its own
        assert "another browser" in refused(house, come_back(victim, theirs))
        stolen = issuer.answer(begin(victim))
        assert "another browser" in refused(house, come_back(attacker, stolen))
        # The code in a flow of the attacker's own: PKCE and the nonce are the victim's.
        mine = issuer.answer(begin(attacker))
        assert "did not work" in refused(house, come_back(attacker, {**mine, "code": stolen["code"]}))


def test_an_answer_is_accepted_once(issuer: FaultyIssuer, house: House) -> None:
    """A replayed answer, and a replayed code in a new flow."""
    with house.browser() as client:
        back = issuer.answer(begin(client))
        assert come_back(client, back).status_code == 303
        client.cookies.delete("dd_session")
        assert "used already" in words(come_back(client, back))
        assert "did not work" in words(come_back(client, {**issuer.answer(begin(client)), "code": back["code"]}))


@pytest.mark.parametrize("name", ["%0d%0aset-cookie:x=1", "%C3%A9", "..%5C..%5Cauth", "a%3Fb"])
def test_the_name_of_an_issuer_is_one_that_is_configured(house: House, name: str) -> None:
    """An address of the way back with a made-up name leads nowhere: the name would go into a header of the answer."""
    with house.browser() as client:
        answer = client.get(f"/auth/issuers/{name}/callback?state=a&code=b")
        assert (answer.status_code, answer.headers.get("refresh")) == (404, None)


def test_an_answer_that_took_too_long_is_over(issuer: FaultyIssuer, house: House) -> None:
    """A quarter of an hour."""
    with house.browser() as client:
        back = issuer.answer(begin(client))
        issuer.clock.forward(15 * 60)  # type: ignore[attr-defined]
        assert "expired" in refused(house, come_back(client, back))


def test_two_tabs_do_not_disturb_each_other(issuer: FaultyIssuer, house: House) -> None:
    """A sign-in that began in another tab meanwhile leaves the first one valid."""
    with house.browser() as client:
        first, second = issuer.answer(begin(client)), issuer.answer(begin(client))
        assert come_back(client, second).status_code == 303
        assert come_back(client, first).status_code == 303


@pytest.mark.parametrize("state", ["", "x", "ddo1_" + "A" * 48, "ddo1_" + "A" * 4000])
def test_a_made_up_state_is_refused(house: House, state: str) -> None:
    """No state, a malformed one, an unknown one."""
    with house.browser() as client:
        begin(client)
        answer = client.get(f"/auth/issuers/corp/callback?{urlencode({'code': 'c', 'state': state})}")
        if answer.status_code == 200:
            answer = client.get(answer.headers["refresh"].removeprefix("0;url="))
        assert answer.status_code in {400, 403}


def test_an_answer_names_its_issuer(issuer: FaultyIssuer, house: House) -> None:
    """RFC 9207: a wrong `iss` is refused always, and a missing one if the metadata says that it is sent."""
    with house.browser() as client:
        back = issuer.answer(begin(client))
        assert "did not work" in refused(house, come_back(client, {**back, "iss": "https://evil.example"}))
    issuer.metadata["authorization_response_iss_parameter_supported"] = True
    house = House(issuer)
    with house.browser() as client:
        back = issuer.answer(begin(client))
        assert back.pop("iss") == issuer.url
        assert "did not work" in refused(house, come_back(client, back))
        assert sign_in(client, issuer).status_code == 303


def test_the_answer_of_one_issuer_is_none_of_another(issuer: FaultyIssuer) -> None:
    """Mix-up: a state that began at one issuer comes back at the address of another one, and no code is sent there."""
    with FaultyIssuer(issuer.clock) as evil:
        house = House(issuer, also=[House(evil, name="evil", title="Evil").configured])
        with house.browser() as client:
            back = issuer.answer(begin(client))
            assert "another browser" in refused(house, come_back(client, back, "evil"))
            assert not evil.forms, "the code went to no one"


def test_keys_rotate_while_a_person_is_away(issuer: FaultyIssuer, house: House) -> None:
    """A token by a new key fetches the keys again. An unknown name does so once a minute, however many come."""
    with house.browser() as client:
        assert sign_in(client, issuer).status_code == 303
        back = issuer.answer(begin(client))
        issuer.rotate()
        assert come_back(client, back).status_code == 303
        fetched = issuer.seen.count("/keys")
        issuer.rotate(publish=False)
        for _ in range(3):
            assert sign_in(client, issuer).status_code == 403
        assert issuer.seen.count("/keys") == fetched
        issuer.clock.forward(61)  # type: ignore[attr-defined]
        assert sign_in(client, issuer).status_code == 403
        assert issuer.seen.count("/keys") == fetched + 1


def test_an_issuer_that_is_down_gets_a_kind_page(issuer: FaultyIssuer, house: House, monkeypatch: Any) -> None:
    """503, with the ways to sign in that work. Waiting people do not each wait; the next try is a few seconds later."""
    for fault in (
        lambda request: give(request, 500, {}),
        lambda request: give(request, 200, b"<html>"),
        lambda request: give(request, 200, b'{"a":' + b"9" * 300_000 + b"}"),
        slowly,
        lambda request: redirect(request, issuer.url + "/elsewhere"),
    ):
        issuer.replies["/.well-known/openid-configuration"] = fault
        monkeypatch.setattr(outbound, "ANSWERED_WITHIN", 0.3 if fault is slowly else 60.0)
        asked = len(issuer.seen)
        with house.browser() as client:
            page = client.post("/auth/issuers/corp/start", data={"next": "/"}, headers=FORM)
            assert page.status_code == 503, page.text
            assert "does not answer" in words(page) and 'name="password"' in page.text
            assert client.post("/auth/issuers/corp/start", data={"next": "/"}, headers=FORM).status_code == 503
        eventually(lambda asked=asked: len(issuer.seen) > asked)  # what was given up on may still be on its way
        assert issuer.seen[asked:].count("/.well-known/openid-configuration") == 1
        issuer.clock.forward(openid_provider.AGAIN_AFTER + 1)  # type: ignore[attr-defined]
    assert "/elsewhere" not in issuer.seen
    issuer.replies.clear()
    monkeypatch.setattr(outbound, "ANSWERED_WITHIN", 60.0)
    with house.browser() as client:
        assert sign_in(client, issuer).status_code == 303


def slowly(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(20):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


def redirect(request: BaseHTTPRequestHandler, to: str) -> None:
    request.send_response(302)
    request.send_header("location", to)
    request.send_header("content-length", "0")
    request.end_headers()


@pytest.mark.parametrize("keys", [
    b"{}", b'{"keys":[]}', b'{"keys":"x"}', b"[]", b'{"keys":[{"kty":"oct","k":"AAAA"}]}',
    json.dumps({"keys": [{}] * 1000}).encode(),
], ids=lambda raw: raw[:20].decode())  # fmt: skip
def test_keys_that_are_none_sign_no_one_in(issuer: FaultyIssuer, house: House, keys: bytes) -> None:
    """An empty set, a secret in it, or too many."""
    issuer.replies["/keys"] = lambda request: give(request, 200, keys)
    with house.browser() as client:
        assert "does not answer" in refused(house, sign_in(client, issuer), 503)


def test_keys_are_kept_while_the_issuer_is_down(issuer: FaultyIssuer, house: House) -> None:
    """An hour later the old keys serve, and a request beside fetches new ones."""
    with house.browser() as client:
        assert sign_in(client, issuer).status_code == 303
        issuer.replies["/keys"] = issuer.replies["/.well-known/openid-configuration"] = lambda r: give(r, 500, {})
        issuer.clock.forward(2 * openid_provider.FRESH_FOR)  # type: ignore[attr-defined]
        assert sign_in(client, issuer).status_code == 303
        issuer.clock.forward(openid_provider.KEPT_FOR)  # type: ignore[attr-defined]
        page = client.post("/auth/issuers/corp/start", data={"next": "/"}, headers=FORM)
        assert page.status_code == 503


@pytest.mark.parametrize("metadata", [
    {"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/token"}, {"jwks_uri": None},
    {"authorization_endpoint": "javascript:alert(1)"}, {"token_endpoint": "https://user@evil.example/"},
    {"token_endpoint": 7}, {"jwks_uri": "file:///etc/passwd"}, {"authorization_endpoint": "https://a.example/#x"},
], ids=str)  # fmt: skip
def test_metadata_leads_to_no_other_scheme(issuer: FaultyIssuer, house: House, metadata: dict[str, Any]) -> None:
    """The issuer in it is the configured one, and each endpoint is https, or http to this machine as the issuer is."""
    issuer.metadata = metadata
    with house.browser() as client:
        assert client.post("/auth/issuers/corp/start", data={"next": "/"}, headers=FORM).status_code == 503


def test_a_wrong_client_secret_is_our_own_fault(issuer: FaultyIssuer, caplog: Any) -> None:
    """503 for the person, and the log says what the issuer refused, without the code or the secret."""
    house = House(issuer, client_secret="not-this-one-at-all")
    with house.browser() as client:
        back = issuer.answer(begin(client))
        page = refused(house, come_back(client, back), 503)
    assert "refuses this site because of a wrong setting" in page and "does not answer" not in page
    assert "corp refuses to exchange a code: 401, invalid_client: check client_id and client_secret" in caplog.text
    assert "not-this-one" not in repr(house.configured)
    ours = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("dutchdoor"))
    assert "not-this-one" not in ours and back["code"] not in ours


def test_what_an_issuer_writes_is_bounded(issuer: FaultyIssuer, house: House) -> None:
    """A name with an escape sequence, a claim of 100,000 characters, an address that is none."""
    issuer.person |= {"name": "\x1b[31mAda", "email": "not an address"}
    with house.browser() as client:
        assert "gave no e-mail address" in refused(house, sign_in(client, issuer))
        issuer.person |= {"email": ADA, "more": "x" * 100_000}
        assert "did not work" in refused(house, sign_in(client, issuer))
        issuer.person["more"] = ""
        assert sign_in(client, issuer).status_code == 303
        assert me(client)["user"]["name"] == ""


def test_user_info_of_another_person_is_not_taken(issuer: FaultyIssuer, house: House) -> None:
    """Where the ID token has no address, the one of the user info counts only under the same `sub`."""
    issuer.metadata["userinfo_endpoint"] = f"{issuer.url}/userinfo"
    issuer.claims = {"email": None, "email_verified": None}
    issuer.replies["/userinfo"] = lambda r: give(r, 200, {"sub": "mallory", "email": ADA, "email_verified": True})
    with house.browser() as client:
        assert "did not work" in refused(house, sign_in(client, issuer))
        issuer.replies.clear()
        assert sign_in(client, issuer).status_code == 303
        assert me(client)["user"]["email"] == ADA


def test_a_page_of_another_site_begins_nothing(house: House) -> None:
    """A forged form is refused, and a link or a prefetch is none: it takes a POST."""
    with house.browser() as client:
        forged = {**FORM, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        assert client.post("/auth/issuers/corp/start", data={"next": "/"}, headers=forged).status_code == 403
        assert client.get("/auth/issuers/corp/start").status_code == 405


def test_the_button_is_a_form_wherever_one_came_from(house: House) -> None:
    """Without a `next`, its form still has a field: a form without a body would be answered as a program is."""
    with house.browser() as client:
        page = client.get("/auth/login").text
        form = page[page.index("/auth/issuers/corp/start") :]
        assert 'name="next" value=""' in form[: form.index("</form>")]
        assert begin(client, next="").startswith(house.issuer.url)


def test_after_an_issuer_people_go_to_no_other_site(issuer: FaultyIssuer, house: House) -> None:
    """Open redirect: `next` is a path of this host."""
    with house.browser() as client:
        for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example"):
            done = come_back(client, issuer.answer(begin(client, next=elsewhere)))
            assert done.headers["location"] == "/"


def test_too_many_begin_from_one_address(house: House) -> None:
    """Each one that begins stores a row."""
    with house.browser() as client:
        statuses = {
            client.post("/auth/issuers/corp/start", data={"next": "/"}, headers=FORM).status_code for _ in range(62)
        }
        assert statuses == {200, 429}
