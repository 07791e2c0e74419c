"""Steps that an application adds to a sign-in: asked after all proofs, taken once, and never skipped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pyotp
import pytest
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from tests.softkey import SoftKey

from dutchdoor import HIGH, STANDARD, Auth, Client, SignInStep
from dutchdoor import flask as flask_adapter
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Misconfigured
from dutchdoor.model.policy import Policy
from dutchdoor.starlette import Auth as Adapter
from dutchdoor.stores.base import Swap

PASSWORD = "a door in two halves"
ADA = {"email": "ada@example.com", "password": PASSWORD}
FORM = {"origin": "http://testserver", "sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
PAGE = {"accept": "text/html", **FORM}


class Place:
    """An application with two steps: terms to accept, and a tenant to choose."""

    def __init__(self, **more: Any) -> None:
        self.accepted: set[str] = set()
        self.tenants = {"acme", "globex"}
        self.calls: list[str] = []
        self.fails = False
        self.auth = Auth(
            "memory:",
            hasher=PasswordHasher(CHEAPEST),
            steps=[
                SignInStep("terms", page="/terms", asks=self.has_to_accept, takes=self.accept),
                SignInStep("tenant", page="/tenants", asks=lambda _: True, takes=self.choose),
            ],
            **more,
        )
        self.client = TestClient(self.auth.asgi(), follow_redirects=False)
        assert self.client.post("/auth/register", json=ADA).status_code == 201

    def has_to_accept(self, subject: str) -> bool:
        self.calls.append("asks")
        if self.fails:
            raise RuntimeError("the database of the application is gone")
        return subject not in self.accepted

    async def accept(self, subject: str, response: str) -> str | None:
        self.calls.append("takes")
        if response != "yes":
            return None
        self.accepted.add(subject)
        return ""

    def choose(self, subject: str, response: str) -> str | None:
        return f"tenant:{response}" if response in self.tenants else None

    def begin(self, mode: str = "session", **more: str) -> dict[str, Any]:
        answer = self.client.post("/auth/login", json={**ADA, "mode": mode, **more})
        assert (answer.status_code, answer.json()["code"]) == (401, "sign_in_unfinished"), answer.text
        said: dict[str, Any] = answer.json()
        return said

    def step(self, token: str, method: str, response: str) -> Any:
        body = {"token": token, "method": method, "response": response, "transport": "body"}
        return self.client.post("/auth/login/step", json=body)

    def sessions(self) -> int:
        return asyncio.run(self.auth.store.counts())["sessions"]


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
def test_the_steps_are_taken_in_order_before_anything_starts(place: Place, mode: str) -> None:
    """A program gets the name of each step, takes them in their order, and gets what the steps add as its scope; an
    accepted step is not asked for again.
    """
    asked = place.begin(mode)
    assert (asked["step_required"], asked["methods"], asked["enrol"]) == ("terms", ["terms"], False)
    asked = place.step(asked["token"], "terms", "yes").json()
    assert (asked["code"], asked["step_required"]) == ("sign_in_unfinished", "tenant")
    assert place.sessions() == 0
    done = place.step(asked["token"], "tenant", "acme")
    assert done.status_code == 200, done.text
    if mode == "session":
        principal = asyncio.run(place.auth.authority.resume(place.client.cookies["dd_session"])).principal
    else:
        principal = asyncio.run(place.auth.authority.verify(done.json()["access_token"]))
    assert (principal.scope, principal.amr) == ("tenant:acme", ("pwd",))
    place.client.cookies.clear()
    assert place.begin(mode)["step_required"] == "tenant"


def test_a_proof_again_keeps_the_scope(place: Place) -> None:
    """A stateless sign-in that proves its password again keeps what the steps gave it."""
    token = place.step(place.begin("jwt")["token"], "terms", "yes").json()["token"]
    access = place.step(token, "tenant", "acme").json()["access_token"]
    bearer = {"authorization": f"Bearer {access}"}
    again = place.client.post("/auth/reauthenticate", json={"password": PASSWORD}, headers=bearer).json()
    assert asyncio.run(place.auth.authority.verify(again["access_token"])).scope == "tenant:acme"


def test_a_mailed_code_again_keeps_the_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stateless sign-in that proves by a mailed code who one is keeps what the steps gave it."""
    place, issued = Place(policy=Policy(sign_in_by_mail=True)), list[tuple[str, str]]()
    store, codes = place.auth.store, place.auth.directory.mailed_codes.codes
    issue = codes.issue
    monkeypatch.setattr(codes, "issue", lambda token_id: issued.append(issue(token_id)) or issued[-1])
    account = asyncio.run(store.account_by_email(ADA["email"]))
    assert account is not None
    asyncio.run(store.commit(Swap(replace(account, email_verified_at=1.0))))
    token = place.step(place.begin("jwt")["token"], "terms", "yes").json()["token"]
    bearer = {"authorization": f"Bearer {place.step(token, 'tenant', 'acme').json()['access_token']}"}
    sent = place.client.post("/auth/reauthenticate/code", headers=bearer).json()["token"]
    proof = {"method": "mail_code", "response": issued[0][0], "token": sent}
    again = place.client.post("/auth/reauthenticate", json=proof, headers=bearer).json()
    assert asyncio.run(place.auth.authority.verify(again["access_token"])).scope == "tenant:acme"


def test_a_refused_answer_may_be_given_again(place: Place) -> None:
    """An answer that the application refuses is 422, and the sign-in waits on."""
    token = place.begin()["token"]
    refused = place.step(token, "terms", "no")
    assert (refused.status_code, refused.json()["field"]) == (422, "response")
    assert place.step(token, "terms", "yes").json()["step_required"] == "tenant"


def skipped(place: Place, token: str) -> Any:
    return place.step(token, "tenant", "acme")


def with_a_proof_that_was_not_asked_for(place: Place, token: str) -> Any:
    return place.step(token, "password", PASSWORD)


def with_an_unknown_name(place: Place, token: str) -> Any:
    return place.step(token, "nothing", "yes")


def repeated(place: Place, token: str) -> Any:
    assert place.step(token, "terms", "yes").json()["step_required"] == "tenant"
    return place.step(token, "terms", "yes")


def taken_twice_in_one_sign_in(place: Place, token: str) -> Any:
    return place.step(place.step(token, "terms", "yes").json()["token"], "terms", "yes")


def as_a_session(place: Place, token: str) -> Any:
    return place.client.get("/auth/me", headers={"authorization": f"Bearer {token}"})


def after_a_change_of_the_password(place: Place, token: str) -> Any:
    subject = asyncio.run(place.auth.store.account_by_email(ADA["email"])).subject  # type: ignore[union-attr]
    asyncio.run(place.auth.end_all(subject))
    return place.step(token, "terms", "yes")


def after_disabling(place: Place, token: str) -> Any:
    subject = asyncio.run(place.auth.store.account_by_email(ADA["email"])).subject  # type: ignore[union-attr]
    asyncio.run(place.auth.directory.admin.disable(subject, client=Client(), actor="cli"))
    return place.step(token, "terms", "yes")


@pytest.mark.parametrize(
    "wrong",
    [
        skipped,
        with_a_proof_that_was_not_asked_for,
        with_an_unknown_name,
        repeated,
        taken_twice_in_one_sign_in,
        as_a_session,
        after_a_change_of_the_password,
        after_disabling,
    ],
    ids=lambda each: each.__name__,
)
def test_no_step_is_skipped(place: Place, wrong: Callable[[Place, str], Any]) -> None:
    """A step that is skipped, repeated, or taken after the account changed is refused, and no session starts."""
    answer = wrong(place, place.begin()["token"])
    assert (answer.status_code, answer.json()["code"]) in {(401, "wrong_credentials"), (401, "invalid_token")}
    assert place.sessions() == 0
    assert "dd_session" not in place.client.cookies


def test_a_step_is_of_one_account(place: Place) -> None:
    """The step of one account takes nothing for another, and its token signs in the account of its password."""
    assert place.client.post("/auth/register", json={**ADA, "email": "bob@example.com"}).status_code == 201
    adas = place.begin()["token"]
    bobs = place.begin(email="bob@example.com")["token"]
    assert place.step(bobs, "terms", "yes").json()["step_required"] == "tenant"
    assert len(place.accepted) == 1
    assert place.step(adas, "tenant", "acme").status_code == 401
    onward = place.step(adas, "terms", "yes").json()["token"]
    assert place.step(onward, "tenant", "acme").json()["user"]["email"] == ADA["email"]


def test_at_the_limit_of_sessions_the_last_step_starts_nothing() -> None:
    """Where the policy refuses one more session, the last step is 409."""
    place = Place(policy=replace(STANDARD, max_sessions=1, at_limit="refuse"))
    place.accepted.add(asyncio.run(place.auth.store.account_by_email(ADA["email"])).subject)  # type: ignore[union-attr]
    first, second = place.begin()["token"], place.begin()["token"]
    assert place.step(first, "tenant", "acme").status_code == 200
    place.client.cookies.clear()
    refused = place.step(second, "tenant", "acme")
    assert (refused.status_code, refused.json()["code"]) == (409, "session_limit_reached")
    assert place.sessions() == 1


def test_a_step_comes_after_the_second_factor(place: Place) -> None:
    """The application is not asked before the account is proved, and a recovery code made on the way is shown."""
    place = Place(policy=replace(STANDARD, second_factor="required"))
    asked = place.begin("jwt")
    assert asked["enrol"], asked
    assert not place.calls
    given = place.client.post("/auth/login/enrol", json={"token": asked["token"]}).json()
    body = {"token": asked["token"], "method": "totp", "enrolment": given["token"], "transport": "body"}
    done = place.client.post("/auth/login/step", json={**body, "response": pyotp.TOTP(given["secret"]).now()}).json()
    assert (done["step_required"], len(done["recovery_codes"])) == ("terms", 10)
    again = place.begin("jwt")
    assert "step_required" not in again and set(again["methods"]) == {"totp", "recovery_code"}
    assert place.step(again["token"], "terms", "yes").status_code == 401
    onward = place.step(again["token"], "recovery_code", done["recovery_codes"][0]).json()
    assert onward["step_required"] == "terms"
    last = place.step(place.step(onward["token"], "terms", "yes").json()["token"], "tenant", "globex")
    principal = asyncio.run(place.auth.authority.verify(last.json()["access_token"]))
    assert (principal.acr, principal.scope) == ("aal2", "tenant:globex")


def test_an_application_that_fails_signs_nobody_in(place: Place) -> None:
    """An exception of the application is 503, for the password and for the step."""
    token = place.begin()["token"]
    place.fails = True
    for answer in (place.client.post("/auth/login", json=ADA), place.step(token, "terms", "yes")):
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert place.sessions() == 0


def test_a_browser_is_led_to_the_pages_of_the_application(place: Place) -> None:
    """Without a script: sign in, the application's page, its form, back to where one came from. The token is in a
    cookie and in no address.
    """
    browser = place.client
    led = browser.post("/auth/login", data={**ADA, "next": "/orders"}, headers=PAGE)
    assert (led.status_code, led.headers["location"]) == (303, "/auth/login/step?next=%2Forders")
    token = browser.cookies["dd_step"]
    shown = browser.get(led.headers["location"], headers=PAGE)
    assert (shown.status_code, shown.headers["location"]) == (303, "/terms?next=%2Forders")
    form = {"method": "terms", "next": "/orders"}
    refused = browser.post("/auth/login/step", data={**form, "response": "no"}, headers=PAGE)
    assert refused.headers["location"] == "/terms?next=%2Forders&refused=1"
    onward = browser.post("/auth/login/step", data={**form, "response": "yes"}, headers=PAGE)
    assert onward.headers["location"] == "/auth/login/step?next=%2Forders"
    assert browser.cookies["dd_step"] != token
    assert browser.get(onward.headers["location"], headers=PAGE).headers["location"] == "/tenants?next=%2Forders"
    last = {"method": "tenant", "response": "globex", "next": "/orders"}
    done = browser.post("/auth/login/step", data=last, headers=PAGE)
    assert (done.status_code, done.headers["location"]) == (303, "/orders")
    assert browser.get("/auth/me").status_code == 200 and "dd_step" not in browser.cookies


def test_a_page_knows_whose_sign_in_waits(tmp_path: Path) -> None:
    """The page of a step learns the subject and the step from the cookie of its browser, and None without one."""
    app = Starlette()
    auth = Adapter(
        app,
        "memory:",
        hasher=PasswordHasher(CHEAPEST),
        steps=[SignInStep("terms", page="/terms", asks=lambda _: True, takes=lambda _, __: "")],
    )

    async def terms(request: Any) -> Any:
        waiting = await auth.waiting(request)
        return JSONResponse(None if waiting is None else [waiting.email, waiting.step])

    app.add_route("/terms", terms)
    with TestClient(app, follow_redirects=False) as browser:
        assert browser.post("/auth/register", json=ADA).status_code == 201
        assert browser.get("/terms").json() is None
        browser.post("/auth/login", data=ADA, headers=PAGE)
        assert browser.get("/terms").json() == ["ada@example.com", "terms"]
        browser.cookies.clear()
        browser.cookies.set("dd_step", "ddo1_" + "A" * 48)
        assert browser.get("/terms").json() is None


def test_a_page_of_flask_knows_whose_sign_in_waits(tmp_path: Path) -> None:
    """The same without an event loop: plain functions run inside the application, and the page asks by its environ."""
    app = flask.Flask("shop")
    app.config["VERSION"] = "2026"
    step = SignInStep("terms", page="/terms", asks=lambda _: bool(flask.current_app.config["VERSION"]), takes=accepts)
    auth = flask_adapter.Auth(
        app,
        f"sqlite:///{tmp_path}/app.db",
        master_key=f"{tmp_path}/keys",
        hasher=PasswordHasher(CHEAPEST),
        steps=[step],
    )

    @app.get("/terms")
    def terms() -> Any:
        waiting = auth.waiting(flask.request.environ)
        return flask.jsonify(None if waiting is None else [waiting.email, waiting.step])

    browser = app.test_client()
    page = {name: value.replace("testserver", "localhost") for name, value in PAGE.items()}
    assert browser.post("/auth/register", json=ADA).status_code == 201
    assert browser.get("/terms").json is None
    led = browser.post("/auth/login", data=ADA, headers=page)
    assert (led.status_code, led.headers["location"]) == (303, "/auth/login/step")
    assert browser.get("/terms").json == ["ada@example.com", "terms"]
    done = browser.post("/auth/login/step", data={"method": "terms", "response": "yes"}, headers=page)
    assert done.status_code == 303 and browser.get("/auth/me").status_code == 200
    auth.close()


def test_removing_a_passkey_ends_a_sign_in_that_waits(place: Place) -> None:
    """A sign-in that a stolen passkey began, and that waits for a step, is over once the owner removes the passkey."""
    client, key = place.client, SoftKey("http://testserver")
    begun = place.step(place.begin("jwt")["token"], "terms", "yes").json()
    own = {"authorization": f"Bearer {place.step(begun['token'], 'tenant', 'acme').json()['access_token']}"}
    made = key.create(client.post("/auth/passkeys/register/options", headers=own).json()["publicKey"])
    done = client.post("/auth/passkeys/register", json={"response": made}, headers=own)
    own = {"authorization": f"Bearer {done.json()['access_token']}"}
    signed = key.get(client.post("/auth/passkeys/login/options").json()["publicKey"])
    stolen = client.post("/auth/passkeys/login", json={"response": signed, "mode": "session"}).json()
    assert stolen["step_required"] == "tenant"
    gone = client.post("/auth/factors/remove", json={"method": "passkey", "id": made["id"]}, headers=own)
    assert gone.status_code == 204, gone.text
    assert place.step(stolen["token"], "tenant", "acme").status_code == 401
    assert place.sessions() == 0


def accepts(_: str, response: str) -> str | None:
    return "" if response == "yes" else None


def no(_: str) -> bool:
    return False


@pytest.mark.parametrize(
    "make",
    [
        lambda: SignInStep("Terms of use", page="/terms", asks=no, takes=no),
        lambda: SignInStep("terms", page="https://evil.example/", asks=no, takes=no),
        lambda: SignInStep("terms", page="//evil.example", asks=no, takes=no),
        lambda: SignInStep("terms", page="/terms", asks=None, takes=no),  # type: ignore[arg-type]
        lambda: Auth("memory:", steps=[SignInStep("password", page="/p", asks=no, takes=no)]),
        lambda: Auth("memory:", steps=[SignInStep("a", page="/p", asks=no, takes=no)] * 2),
        lambda: Auth("memory:", steps=["terms"]),  # type: ignore[list-item]
        lambda: Auth("memory:", steps=SignInStep("a", page="/p", asks=no, takes=no)),  # type: ignore[arg-type]
    ],
    ids=["name", "url", "host", "function", "method", "twice", "type", "alone"],
)
def test_what_is_no_step_is_refused(make: Callable[[], object]) -> None:
    """A wrong name, page or function is refused when the application starts, in words that say what is right."""
    with pytest.raises(Misconfigured, match=r"step|Step"):
        make()


def test_a_function_that_answers_nothing_lets_nobody_pass() -> None:
    """A forgotten `return` is a mistake that is logged, and no consent."""
    place = Place(policy=HIGH)
    place.auth.directory.steps.by_name["terms"].asks = lambda _: None
    assert place.client.post("/auth/login", json=ADA).status_code == 500
