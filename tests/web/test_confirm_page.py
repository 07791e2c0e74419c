"""The page to prove again who one is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import flask
import pyotp
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tests.services.test_external_users import Members
from tests.web.test_account_page import token
from tests.web.test_form_pages import ADA, FORM, PAGE, PASSWORD

import dutchdoor.flask
import dutchdoor.starlette
from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.testing.clock import Clock

HASHER = PasswordHasher(CHEAPEST)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(clock: Clock) -> Iterator[TestClient]:
    """A browser at an application with a page for which a proof of five minutes is too old."""

    async def secret(request: Any) -> PlainTextResponse:
        return PlainTextResponse("secret")

    app = Starlette()
    auth = dutchdoor.starlette.Auth(app, "memory:", hasher=HASHER, clock=clock)
    app.routes.append(Route("/secret", auth.require(fresh="5m")(secret)))
    app.routes.append(Route("/both", auth.require(factors=2)(secret)))
    with TestClient(app, headers=PAGE, follow_redirects=False) as client:
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303
        yield client


def test_a_fresh_proof_leads_back(site: TestClient, clock: Clock) -> None:
    """A browser whose proof is too old is sent to prove it again, and back to where it was. A wrong password, or
    another person's form, leads nowhere.
    """
    assert site.get("/secret").text == "secret"
    clock.advance(600)
    asked = site.get("/secret").headers["location"]
    assert asked == "/auth/confirm?next=%2Fsecret"
    page = site.get(asked)
    assert page.status_code == 200 and 'name="next" value="/secret"' in page.text and ADA["email"] in page.text
    signed_in = datetime.fromtimestamp(int(clock() - 600), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f'<time datetime="{signed_in}">' in page.text and "needs a newer one" in page.text
    fields = {"csrf_token": token(site, asked), "next": "/secret", "password": PASSWORD}
    wrong = site.post("/auth/reauthenticate", data={**fields, "password": "a wrong one"}, headers=FORM)
    assert wrong.status_code == 401 and 'role="alert"' in wrong.text and "a wrong one" not in wrong.text
    assert 'name="next" value="/secret"' in wrong.text
    assert site.post("/auth/reauthenticate", data={**fields, "csrf_token": "x"}, headers=FORM).status_code == 403
    assert site.get("/secret").status_code == 303
    sent = site.post("/auth/reauthenticate", data=fields, headers=FORM)
    assert (sent.status_code, sent.headers["location"]) == (303, "/secret")
    assert site.get("/secret").text == "secret"


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example", "/\\evil.example", ""])
def test_the_way_back_is_a_path_of_ours(site: TestClient, to: str) -> None:
    """Open redirect: a link with a `next` of another host leads to this one."""
    fields = {"csrf_token": token(site, "/auth/confirm"), "next": to, "password": PASSWORD}
    assert site.post("/auth/reauthenticate", data=fields, headers=FORM).headers["location"] == "/"


def test_no_password_is_asked_for_where_it_is_not_enough(site: TestClient) -> None:
    """Where two kinds of proof are needed, the page says how to give both, and does not send people in a circle."""
    asked = site.get("/both").headers["location"]
    assert asked == "/auth/confirm?next=%2Fboth&factors=2"
    page = site.get(asked).text
    assert 'action="/auth/factors/totp/enrol"' in page and 'type="password"' not in page


def test_without_a_session_it_leads_to_sign_in(site: TestClient) -> None:
    """A person whose session ended meanwhile signs in, which is a fresh proof, and is led on."""
    site.cookies.clear()
    assert site.get("/auth/confirm?next=/secret").headers["location"].startswith("/auth/login?next=%2Fauth%2Fconfirm")


@pytest.mark.parametrize("page", ["", "/login"])
def test_the_way_to_it_is_known_where_it_is_ours(page: str, clock: Clock) -> None:
    """Where people sign in on a page of the application, an old proof is sent to that page, and not to ours."""
    named: dict[str, Any] = {"sign_in_page": page} if page else {}
    wanted = "/login?next=%2Fsecret&again=1" if page else "/auth/confirm?next=%2Fsecret"
    app = flask.Flask(__name__)
    auth = dutchdoor.flask.Auth(app, "memory:", hasher=HASHER, clock=clock, **named)
    app.route("/secret")(auth.require(fresh="5m")(lambda: "secret"))
    with app.test_client() as client:
        client.post("/auth/register", data=ADA, headers={**FORM, "origin": "http://localhost"})
        clock.advance(600)
        assert client.get("/secret", headers=PAGE).headers["location"] == wanted


def test_users_of_the_applications_own_prove_by_login_and_password(clock: Clock) -> None:
    """Where the application has users of its own, the page asks for the login, too."""
    auth = Auth("memory:", users=Members().users(), clock=clock)
    with TestClient(auth.asgi(), headers=PAGE, follow_redirects=False) as client:
        assert client.post("/auth/login", data={"email": "ada", "password": "right"}, headers=FORM).status_code == 303
        fields = {"csrf_token": token(client, "/auth/confirm"), "email": "bob", "password": "right", "next": "/x"}
        refused = client.post("/auth/reauthenticate", data=fields, headers=FORM)
        assert refused.status_code == 401 and 'value="bob"' in refused.text
        sent = client.post("/auth/reauthenticate", data={**fields, "email": "ada"}, headers=FORM)
        assert sent.headers["location"] == "/x"
        programs = {"x-csrf-token": token(client, "/auth/confirm")}
        bare = client.post("/auth/reauthenticate", json={"password": "right"}, headers=programs)
        assert (bare.status_code, bare.json()["field"]) == (422, "email")
        page = client.get("/auth/account").text
        assert 'type="password"' not in page and "belong to the application" in page


def test_users_of_the_applications_own_prove_their_second_factor(clock: Clock) -> None:
    """They, too, prove a second factor again inside a sign-in, by its code alone."""
    auth = Auth("memory:", users=Members().users(), clock=clock)
    with TestClient(auth.asgi(), headers=PAGE, follow_redirects=False) as client:
        old = TestClient(client.app, headers=PAGE, follow_redirects=False)
        for each in (client, old):
            assert each.post("/auth/login", data={"email": "ada", "password": "right"}, headers=FORM).status_code == 303
        csrf = {"x-csrf-token": token(client, "/auth/confirm")}
        given = client.post("/auth/factors/totp/enrol", headers=csrf).json()
        app = pyotp.TOTP(given["secret"])
        shown = {"token": given["token"], "code": app.at(int(clock()))}
        assert client.post("/auth/factors/totp/confirm", json=shown, headers=csrf).status_code == 200
        clock.advance(60)
        fields = {"csrf_token": token(old, "/auth/confirm?factors=2"), "factors": "2", "next": "/x"}
        proved = {"method": "totp", "response": app.at(int(clock()))}
        sent = old.post("/auth/reauthenticate", data={**fields, **proved}, headers=FORM)
        assert (sent.status_code, sent.headers.get("location")) == (303, "/x")
