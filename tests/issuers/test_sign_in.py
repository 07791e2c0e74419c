"""Sign-in by another issuer on the pages, against an issuer that is a real server on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.devicekey import DeviceKey
from tests.issuer import ADA, FaultyIssuer, House, begin, come_back, me, sign_in, words
from tests.web.test_form_pages import FORM, PASSWORD

from dutchdoor.model.accounts import Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.services.identities import IDENTITY

OWN = {"email": ADA, "password": PASSWORD}


def csrf(client: Any, path: str = "/auth/account") -> dict[str, str]:
    found = re.findall(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    return {"csrf_token": found[0]} if found else {}


def link(client: Any, issuer: FaultyIssuer) -> Any:
    return come_back(client, issuer.answer(begin(client, "/auth/identities/link", issuer="corp", **csrf(client))))


def test_the_first_sign_in_creates_an_account_and_the_next_finds_it(issuer: FaultyIssuer, house: House) -> None:
    """A person comes back from the issuer, has an account with a verified address, and finds it again."""
    with house.browser() as client, house.browser() as other:
        assert "Continue with Corp" in client.get("/auth/login").text
        assert "Continue with Corp" in client.get("/auth/register").text
        done = sign_in(client, issuer)
        assert (done.status_code, done.headers["location"]) == (303, "/after"), words(done)
        first = me(client)
        assert first["user"]["email"] == ADA and first["user"]["email_verified"]
        assert first["amr"] == ["fed"] and first["acr"] == "aal1"
        assert sign_in(other, issuer).status_code == 303
        assert me(other)["user"]["id"] == first["user"]["id"]


def test_q34_a_session_by_an_issuer_takes_the_key_of_the_page(issuer: FaultyIssuer, house: House) -> None:
    """A browser whose sign-in page has our script comes back from the issuer with its key still: the session keeps it,
    and the cookie is cleared.
    """
    key = DeviceKey()
    with house.browser() as client:
        client.cookies.set("dd_key", f"{key.jwk['x']}.{key.jwk['y']}", domain="testserver.local", path="/")
        assert sign_in(client, issuer).status_code == 303
        (session,) = house.run(house.auth.authority.sessions(me(client)["user"]["id"]))
        assert session.browser_key == f"{key.jwk['x']}.{key.jwk['y']}"
        assert "dd_key" not in client.cookies


def test_an_address_that_both_sides_verified_links(issuer: FaultyIssuer, house: House) -> None:
    """An account with the same verified address is found, linked, and its owner gets a mail."""
    with house.browser() as client, house.browser() as other:
        client.post("/auth/register", data=OWN, headers=FORM)
        house.verify(ADA)
        mine = me(client)["user"]["id"]
        assert sign_in(other, issuer).status_code == 303
        assert me(other)["user"]["id"] == mine
    house.wait()
    assert any("Another log-in was linked" in each.subject for each in house.mail.mails)


@pytest.mark.parametrize(
    ("said", "trusted", "ours"),
    [(True, ["example.com"], False), (False, ["example.com"], True), ("true", ["example.com"], True),
     (1, ["example.com"], True), (True, ["other.example"], True), (True, [], True)],
    ids=["not-by-us", "not-by-them", "a-text", "a-number", "not-trusted", "trusted-for-none"],
)  # fmt: skip
def test_no_other_address_links(issuer: FaultyIssuer, said: Any, trusted: list[str], ours: bool) -> None:
    """If one side has not verified the address, or the issuer is not trusted for it, the account stays its owner's and
    the page says what to do.
    """
    house = House(issuer, trusted_for=trusted)
    issuer.person["email_verified"] = said
    with house.browser() as client, house.browser() as other:
        client.post("/auth/register", data=OWN, headers=FORM)
        if ours:
            house.verify(ADA)
        refused = sign_in(other, issuer)
        assert refused.status_code == 403
        assert ("never confirmed" if not ours else "link Corp") in words(refused)
        assert me(other) is None
        assert house.identities(ADA) == []


def test_an_issuer_that_moves_an_address_hands_over_no_account(issuer: FaultyIssuer, house: House) -> None:
    """The key of an identity is issuer and `sub`: another person with the address gets into nothing new, and the first
    person keeps the account under another address.
    """
    with house.browser() as first, house.browser() as again, house.browser() as second:
        sign_in(first, issuer)
        mine = me(first)["user"]["id"]
        issuer.person |= {"email": "countess@example.com"}
        sign_in(again, issuer)
        assert me(again)["user"]["id"] == mine
        assert me(again)["user"]["email"] == ADA, "ours stays as it is"
        issuer.person |= {"sub": "mallory-1", "email": ADA}
        house.unverify(ADA)
        assert sign_in(second, issuer).status_code == 403
        assert me(second) is None


def test_where_addresses_must_be_verified_an_untrusted_one_is_confirmed_by_mail(issuer: FaultyIssuer) -> None:
    """The answer is the same whether the address has an account. The mailed link in the same browser completes it."""
    house = House(issuer, replace(STANDARD, require_verified_email=True), trusted_for=[])
    with house.browser() as client, house.browser() as other:
        sent = sign_in(client, issuer)
        assert (sent.status_code, sent.headers["location"]) == (303, "/auth/register/sent")
        assert me(client) is None
        house.wait()
        again = sign_in(client, issuer)  # still not confirmed: another link, and no session
        assert again.headers["location"] == "/auth/register/sent"
        house.wait()
        verified = client.post("/auth/email/verify", data={"token": house.mail.token()}, headers=FORM)
        assert verified.status_code == 303, verified.text
        assert sign_in(client, issuer).headers["location"] == "/after"
        assert me(client)["user"]["email_verified"]
        issuer.person |= {"sub": "someone-else"}
        taken = sign_in(other, issuer)
        assert (taken.status_code, taken.headers["location"]) == (sent.status_code, sent.headers["location"])
        house.wait()
        assert "already have an account" in house.mail.mails[-1].subject
        assert len(house.identities(ADA)) == 1


def test_a_stranger_who_registers_by_an_issuer_loses_it_to_the_mailbox(issuer: FaultyIssuer) -> None:
    """An account whose address was never verified belongs to the person who reads the mailbox, and the identity that
    began it no longer signs in.
    """
    house = House(issuer, trusted_for=[])
    with house.browser() as stranger, house.browser() as owner:
        assert sign_in(stranger, issuer).status_code == 303
        owner.post("/auth/password/forgot", data={"email": ADA}, headers=FORM)
        house.wait()
        body = {"token": house.mail.token(), "new_password": PASSWORD}
        assert owner.post("/auth/password/reset", data=body, headers=FORM).status_code in {200, 303}
        assert house.identities(ADA) == []
        assert me(stranger) is None


@pytest.mark.parametrize(("registration", "registers", "enters"), [
    ("closed", "policy", False), ("invite", "policy", False), ("closed", "always", True), ("open", "never", False),
])  # fmt: skip
def test_who_gets_an_account(issuer: FaultyIssuer, registration: Any, registers: str, enters: bool) -> None:
    """The policy decides, or the issuer's own rule."""
    house = House(issuer, replace(STANDARD, registration=registration), registers=registers)
    with house.browser() as client:
        answer = sign_in(client, issuer)
        assert answer.status_code == (303 if enters else 403)
        assert enters or "Ask an administrator" in words(answer)


def test_only_people_of_the_domains_come(issuer: FaultyIssuer) -> None:
    """A verified address of a listed domain is needed, also to link."""
    house = House(issuer, domains=["staff.example"])
    with house.browser() as client:
        assert "may come in here" in words(sign_in(client, issuer))
        issuer.person |= {"email": "ada@staff.example", "email_verified": False}
        assert sign_in(client, issuer).status_code == 403
        issuer.person |= {"email_verified": True}
        assert sign_in(client, issuer).status_code == 303


def test_claims_give_and_take_roles(issuer: FaultyIssuer) -> None:
    """Roles that the issuer decides on come and go with its claims; others stay, and so does the last administrator."""
    roles = {"admins": "admin", "writers": "editor"}
    house = House(issuer, roles_claim="groups", roles=roles)
    with house.browser() as client:
        issuer.person["groups"] = ["admins", "writers", "unknown", 7]
        assert sign_in(client, issuer).status_code == 303
        assert me(client)["user"]["roles"] == ["admin", "editor"]
        issuer.person["groups"] = "nothing"
        assert sign_in(client, issuer).status_code == 303
        assert me(client)["user"]["roles"] == ["admin"], "the last administrator stays one"


def test_a_disabled_account_does_not_enter(issuer: FaultyIssuer, house: House) -> None:
    """The identity is right, and nothing starts."""
    with house.browser() as client:
        sign_in(client, issuer)
        house.change(ADA, status="disabled")
        client.cookies.clear()
        assert "Ask an administrator" in words(sign_in(client, issuer))
        assert me(client) is None


def test_a_second_factor_is_asked_for_unless_the_issuer_is_trusted_for_it(issuer: FaultyIssuer) -> None:
    """After another log-in the app's code is asked for, as after a password; the issuer's `amr` counts only if that is
    configured.
    """
    for trusted in (False, True):
        house = House(issuer, trusts_second_factor=trusted)
        with house.browser() as client, house.browser() as other:
            sign_in(client, issuer)
            secret = house.enrol(client)
            issuer.clock.forward(60)  # type: ignore[attr-defined]
            issuer.person["amr"] = ["pwd", "mfa"]
            answer = sign_in(other, issuer)
            if trusted:
                assert answer.headers["location"] == "/after"
                assert me(other)["acr"] == "aal2"
                continue
            assert answer.headers["location"].startswith("/auth/login/step")
            assert me(other) is None
            code = {"method": "totp", "response": house.code(secret)}
            assert other.post("/auth/login/step", data=code, headers=FORM).status_code == 303
            assert me(other)["amr"] == ["fed", "otp"] and me(other)["acr"] == "aal2"


def test_an_owner_links_and_unlinks(issuer: FaultyIssuer, house: House) -> None:
    """With a fresh proof, an owner links a log-in under any address, signs in by it, and unlinks it; what began by it
    ends.
    """
    issuer.person["email"] = "other@elsewhere.example"
    with house.browser() as client, house.browser() as other:
        client.post("/auth/register", data=OWN, headers=FORM)
        done = link(client, issuer)
        assert done.headers["location"] == "/auth/account?done=identity_linked"
        page = client.get("/auth/account?done=identity_linked").text
        assert "The log-in is linked" in page and "other@elsewhere.example" in page
        sign_in(other, issuer)
        assert me(other)["user"]["email"] == ADA
        (identity,) = client.get("/auth/identities", headers={"accept": "application/json"}).json()["identities"]
        gone = client.post("/auth/identities/unlink", data={"id": identity["id"], **csrf(client)}, headers=FORM)
        assert gone.headers["location"] == "/auth/account?done=identity_unlinked"
        assert me(other) is None and me(client)
        assert house.identities(ADA) == []


def test_g33_a_log_in_that_a_thief_linked_does_not_outlive_a_reset(issuer: FaultyIssuer, house: House) -> None:
    """A log-in that was linked in the week before a reset signs no one in until the owner keeps it. The page after the
    reset says so, and signing in leads to the question.
    """
    issuer.person["email"] = "other@elsewhere.example"
    with house.browser() as thief, house.browser() as client, house.browser() as other:
        thief.post("/auth/register", data=OWN, headers=FORM)
        house.verify(ADA)
        issuer.clock.forward(60)  # type: ignore[attr-defined]
        link(thief, issuer)
        done = chosen_by_mail(house, client)
        page = client.get(done.partition("#")[0]).text
        assert "we ask you after you have signed in" in page and 'name="next" value="/auth/account"' in page
        assert house.identities(ADA) == [] and me(thief) is None
        sent = client.post("/auth/login", data={**OWN, "password": NEW, "next": "/auth/account"}, headers=FORM)
        assert sent.headers["location"] == "/auth/account"
        page = client.get("/auth/account").text
        assert "does not sign in until you say that it is yours" in page and "other@elsewhere.example" in page
        way = re.findall(r'name="id" value="([^"]+)"', page)[0]
        assert sign_in(other, issuer).status_code == 303
        assert me(other)["user"]["email"] == "other@elsewhere.example", "an account of its own"
        refused = client.post("/auth/set-aside/keep", data={"id": way, **csrf(client)}, headers=FORM)
        assert refused.status_code == 403 and "another account uses it" in refused.text.lower()
        house.run(house.auth.directory.deletion.erase(me(other)["user"]["id"], client=Client(), actor="cli"))
        kept = client.post("/auth/set-aside/keep", data={"id": way, **csrf(client)}, headers=FORM)
        assert kept.headers["location"] == "/auth/account?done=way_kept"
        page = client.get("/auth/account?done=way_kept").text
        assert "It is yours, and works again." in page and "/auth/set-aside" not in page
    with house.browser() as other:
        sign_in(other, issuer)
        assert me(other)["user"]["email"] == ADA


def test_g33_the_log_in_by_which_an_account_began_stays(issuer: FaultyIssuer, house: House) -> None:
    """A person who came by another log-in this week, and chooses a first password by mail, keeps the log-in."""
    with house.browser() as client, house.browser() as other:
        sign_in(client, issuer)
        chosen_by_mail(house, other)
        assert len(house.identities(ADA)) == 1
        sign_in(client, issuer)
        assert me(client)["user"]["email"] == ADA


NEW = "a new password of theirs"


def chosen_by_mail(house: House, client: Any) -> str:
    """Choose a new password by a mailed link, and return where the browser is led to."""
    client.post("/auth/password/forgot", data={"email": ADA}, headers=FORM)
    house.wait()
    sent = client.post("/auth/password/reset", data={"token": house.mail.token(), "new_password": NEW}, headers=FORM)
    assert sent.status_code == 303, sent.text
    house.wait()
    return str(sent.headers["location"])


def test_unlinking_ends_a_sign_in_that_waits(issuer: FaultyIssuer, house: House) -> None:
    """A sign-in that began by a log-in and waits for its next step is over once its owner unlinks that log-in."""
    with house.browser() as client, house.browser() as other:
        client.post("/auth/register", data=OWN, headers=FORM)
        link(client, issuer)
        secret = house.enrol(client)
        issuer.clock.forward(60)  # type: ignore[attr-defined]
        code = {"method": "totp", "response": house.code(secret)}
        assert sign_in(other, issuer).headers["location"].startswith("/auth/login/step")
        (identity,) = house.identities(ADA)
        client.post("/auth/identities/unlink", data={"id": identity.id, **csrf(client)}, headers=FORM)
        assert house.identities(ADA) == []
        other.post("/auth/login/step", data=code, headers=FORM)
        assert me(other) is None


def test_the_last_way_in_stays(issuer: FaultyIssuer, house: House) -> None:
    """An account that began by another log-in, without a password, cannot lose it."""
    with house.browser() as client:
        sign_in(client, issuer)
        (identity,) = client.get("/auth/identities", headers={"accept": "application/json"}).json()["identities"]
        refused = client.post("/auth/identities/unlink", data={"id": identity["id"], **csrf(client)}, headers=FORM)
        assert refused.status_code == 403 and "only way into the account" in refused.text
        assert len(house.identities(ADA)) == 1
        page = client.get("/auth/account").text
        assert "Mail me a link" in page
        assert "/auth/identities/unlink" not in page and "the only way into your account" in page


def test_before_a_proof_nothing_tells_of_a_linked_login(issuer: FaultyIssuer, house: House) -> None:
    """With a wrong password, an account that has none and a log-in elsewhere is like an address without an account: the
    answer, and the work (one hash).
    """
    hashed: list[int] = []
    verify = house.auth.directory.hasher.verify_nothing

    async def counted(password: str) -> None:
        hashed.append(1)
        await verify(password)

    house.auth.directory.hasher.verify_nothing = counted  # type: ignore[method-assign]
    with house.browser() as client, house.browser() as stranger:
        sign_in(client, issuer)
        seen = []
        for email in (ADA, "unknown@example.com"):
            answer = stranger.post("/auth/login", data={"email": email, "password": PASSWORD}, headers=FORM)
            seen.append((answer.status_code, answer.text.replace(email, "")))
        assert seen[0] == seen[1] and seen[0][0] == 401
        assert len(hashed) == 2


def test_an_app_can_be_removed_beside_another_login(issuer: FaultyIssuer, house: House) -> None:
    """An account without a password has its log-in left: removing the app locks no one out."""
    with house.browser() as client:
        sign_in(client, issuer)
        house.enrol(client)
        gone = client.post("/auth/factors/remove", data={"method": "totp", **csrf(client)}, headers=FORM)
        assert gone.headers["location"] == "/auth/account?done=factor_removed"


def test_an_identity_of_another_account_is_not_linked(issuer: FaultyIssuer, house: House) -> None:
    """It stays with the account that has it."""
    with house.browser() as client, house.browser() as other:
        sign_in(client, issuer)
        other.post("/auth/register", data=OWN | {"email": "bob@example.com"}, headers=FORM)
        assert "linked to another account" in words(link(other, issuer))


def test_linking_needs_a_fresh_proof_and_the_session_that_began(issuer: FaultyIssuer, house: House) -> None:
    """An old session is asked to confirm first; one that ended while the person was away links nothing."""
    with house.browser() as client:
        client.post("/auth/register", data=OWN, headers=FORM)
        way = begin(client, "/auth/identities/link", issuer="corp", **csrf(client))
        client.post("/auth/logout", data=csrf(client), headers=FORM)
        assert come_back(client, issuer.answer(way)).status_code == 401
        assert house.identities(ADA) == []
        client.post("/auth/login", data=OWN, headers=FORM)
        issuer.clock.forward(STANDARD.step_up_for + 60)  # type: ignore[attr-defined]
        asked = client.post("/auth/identities/link", data={"issuer": "corp", **csrf(client)}, headers=FORM)
        assert asked.headers["location"].startswith("/auth/confirm")


def test_a_person_without_a_password_confirms_by_the_issuer(issuer: FaultyIssuer, house: House) -> None:
    """The page offers the linked log-in and no password. The issuer must say that it asked anew."""
    with house.browser() as client:
        sign_in(client, issuer)
        issuer.clock.forward(STANDARD.step_up_for + 60)  # type: ignore[attr-defined]
        page = client.get("/auth/confirm?next=/after").text
        assert "Confirm with Corp" in page and "<h1" in page and 'type="password"' not in page
        way = begin(client, "/auth/identities/confirm", issuer="corp", **csrf(client))
        assert "prompt=login" in way and "max_age=0" in way
        issuer.claims["auth_time"] = int(house.clock()) - 3600
        assert come_back(client, issuer.answer(way)).status_code == 403
        issuer.claims["auth_time"] = None
        way = begin(client, "/auth/identities/confirm", issuer="corp", **csrf(client))
        assert come_back(client, issuer.answer(way)).status_code == 403
        issuer.claims.clear()
        way = begin(client, "/auth/identities/confirm", issuer="corp", **csrf(client))
        assert come_back(client, issuer.answer(way)).headers["location"] == "/after"
        assert client.post("/auth/account/delete", data=csrf(client), headers=FORM).status_code == 303
        issuer.person["sub"] = "mallory"


def test_confirming_by_another_identity_proves_nothing(issuer: FaultyIssuer, house: House) -> None:
    """The person must be the one whose log-in is linked."""
    with house.browser() as client:
        sign_in(client, issuer)
        way = begin(client, "/auth/identities/confirm", issuer="corp", **csrf(client))
        issuer.person["sub"] = "mallory"
        assert "not linked to your account" in words(come_back(client, issuer.answer(way)))


def test_auth_time_of_the_issuer_is_the_age_of_the_proof(issuer: FaultyIssuer, house: House) -> None:
    """A person who signed in at the issuer an hour ago is not fresh here."""
    issuer.claims["auth_time"] = int(house.clock()) - 3600
    with house.browser() as client:
        assert sign_in(client, issuer).status_code == 303
        asked = client.post("/auth/identities/link", data={"issuer": "corp", **csrf(client)}, headers=FORM)
        assert asked.headers["location"].startswith("/auth/confirm")


def test_an_export_has_the_identities_and_an_erasure_removes_them(issuer: FaultyIssuer, house: House) -> None:
    """All that is known of a person has the log-in elsewhere. After the account is erased, it is another person's."""
    with house.browser() as client:
        sign_in(client, issuer)
        given = client.get("/auth/account/export", headers={"accept": "application/json"}).json()
        assert [each["issuer"] for each in given["identities"]] == ["corp"]
        first = me(client)["user"]["id"]
        house.run(house.auth.erase(first))
        assert house.run(house.auth.store.find(Credential, method=IDENTITY, handle=f"{issuer.url} ada-1")) is None
        client.cookies.clear()
        sign_in(client, issuer)
        assert me(client)["user"]["id"] != first


def test_the_errors_of_an_issuer_become_plain_sentences(issuer: FaultyIssuer, house: House) -> None:
    """A person who stopped reads what happened. The issuer's text is nowhere, and the attempt is over."""
    with house.browser() as client:
        state = issuer.answer(begin(client))["state"]
        page = come_back(client, {"error": "access_denied", "error_description": "<b>Call 555</b>", "state": state})
        assert (page.status_code, "You have stopped" in words(page), "555" in page.text) == (403, True, False)
        assert "expired" in words(come_back(client, {"code": "x", "state": state}))
        state = issuer.answer(begin(client))["state"]
        page = come_back(client, {"error": "<script>alert(1)</script>", "state": state})
        assert "did not work" in words(page) and "<script>alert" not in page.text


def test_an_application_with_google_is_short() -> None:
    """The first example of the guide has at most fifteen lines."""
    guide = (Path(__file__).parents[2] / "docs/guides/social-sign-in.md").read_text()
    block = guide.split("```python\n")[1].split("```")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 15


def test_the_policy_that_demands_a_factor_holds_after_another_login(issuer: FaultyIssuer) -> None:
    """Where a second factor is required, a first sign-in by an issuer leads to enrolling one, whatever `auth_time`."""
    house = House(issuer, Policy(second_factor="required"))
    issuer.claims["auth_time"] = int(house.clock()) - 7200
    with house.browser() as client:
        answer = sign_in(client, issuer)
        assert answer.headers["location"].startswith("/auth/login/step")
        assert me(client) is None
