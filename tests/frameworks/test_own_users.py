"""Users of the application's own, in each framework: a route gets the application's object, with its type."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx2
import pytest
from fastapi import Depends, FastAPI
from flask import Flask, current_app
from flask import g as flask_g
from litestar import Litestar, Request, get
from litestar.di import NamedDependency
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tests.frameworks.conftest import serving

import dutchdoor.fastapi
import dutchdoor.flask
import dutchdoor.litestar
import dutchdoor.starlette
from dutchdoor import ExternalUsers


class Member(NamedTuple):
    """A user of the application."""

    id: int
    team: str


ROWS = {7: Member(7, "blue"), 8: Member(8, "red")}


async def authenticate(login: str, password: str) -> int | None:
    return {"ada": 7, "bob": 8}.get(login) if password == "right" else None


async def load(subject: str) -> Member | None:
    return ROWS.get(int(subject))


def roles(member: Member) -> list[str]:
    return ["captain"] if member.team == "blue" else []


def in_fastapi() -> tuple[Any, Any]:
    app = FastAPI()
    auth = dutchdoor.fastapi.Auth(
        app, "memory:", users=ExternalUsers(authenticate=authenticate, load=load, roles=roles)
    )

    @app.get("/team")
    async def team(user: Member = Depends(auth.current_user)) -> dict[str, str]:  # noqa: B008, FAST002
        return {"team": user.team}

    @app.get("/who")
    async def who(user: Member | None = Depends(auth.optional_user)) -> dict[str, str | None]:  # noqa: B008, FAST002
        return {"team": user.team if user else None}

    app.get("/captain", dependencies=[Depends(auth.require(role="captain"))])(lambda: {"captain": True})
    return app, TestClient


def in_starlette() -> tuple[Any, Any]:
    app = Starlette()
    auth = dutchdoor.starlette.Auth(
        app, "memory:", users=ExternalUsers(authenticate=authenticate, load=load, roles=roles)
    )

    @auth.require()
    async def team(request: StarletteRequest) -> JSONResponse:
        user: Member = request.user
        return JSONResponse({"team": user.team})

    @auth.require(role="captain")
    async def captain(request: StarletteRequest) -> JSONResponse:
        return JSONResponse({"captain": True})

    async def who(request: StarletteRequest) -> JSONResponse:
        return JSONResponse({"team": getattr(request.user, "team", None)})

    app.router.routes += [Route("/team", team), Route("/captain", captain), Route("/who", who)]
    return app, TestClient


def in_litestar() -> tuple[Any, Any]:
    auth = dutchdoor.litestar.Auth("memory:", users=ExternalUsers(authenticate=authenticate, load=load, roles=roles))

    @get("/team")
    async def team(current_user: NamedDependency[Member], request: Request[Any, Any, Any]) -> dict[str, str]:
        assert request.user == current_user
        return {"team": current_user.team}

    @get("/who")
    async def who(optional_user: NamedDependency[Member | None]) -> dict[str, str | None]:
        return {"team": optional_user.team if optional_user else None}

    @get("/captain", guards=[auth.require(role="captain")])
    async def captain() -> dict[str, bool]:
        return {"captain": True}

    return Litestar([team, who, captain], plugins=[auth], openapi_config=None), LitestarClient


def in_flask() -> tuple[Any, Any]:
    app = Flask("shop")

    def check(login: str, password: str) -> int | None:
        assert current_app.name == "shop"
        return {"ada": 7, "bob": 8}.get(login) if password == "right" else None

    def find(subject: str) -> Member | None:
        flask_g.asked = flask_g.get("asked", 0) + 1
        return ROWS.get(int(subject))

    auth = dutchdoor.flask.Auth(app, "memory:", users=ExternalUsers(authenticate=check, load=find, roles=roles))
    current_user: Member = auth.current_user

    @app.get("/team")
    @dutchdoor.flask.login_required
    def team() -> dict[str, str]:
        assert current_user.id and current_user.team and flask_g.asked == 1  # in this request's own context, once
        return {"team": current_user.team}

    @app.get("/who")
    def who() -> dict[str, str | None]:
        return {"team": getattr(current_user, "team", None)}

    app.get("/captain")(auth.require(role="captain")(lambda: {"captain": True}))
    return app, _FlaskClient


class _Answer(NamedTuple):
    status_code: int
    body: Any

    def json(self) -> Any:
        return self.body


class _FlaskClient:
    """Flask's test client, with answers like those of the others."""

    def __init__(self, app: Flask) -> None:
        self._client = app.test_client()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, path: str, **named: Any) -> _Answer:
        answer = self._client.get(path, **named)
        return _Answer(answer.status_code, answer.get_json(force=True))

    def post(self, path: str, **named: Any) -> _Answer:
        answer = self._client.post(path, **named)
        return _Answer(answer.status_code, answer.get_json(force=True))


MADE = {"fastapi": in_fastapi, "starlette": in_starlette, "litestar": in_litestar, "flask": in_flask}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[int, Member]:
    """The application's table, as it is before each test."""
    fresh = dict(ROWS)
    monkeypatch.setitem(globals(), "ROWS", fresh)
    return fresh


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("mode", ["session", "jwt"])
def test_a_route_gets_the_applications_own_object(
    make: Callable[[], tuple[Any, Any]], mode: str, rows: dict[int, Member]
) -> None:
    """By cookie and by token: the object that `load` returned, its roles, and nothing without a proof."""
    app, client_of = make()
    with client_of(app) as client:
        assert client.get("/team").status_code == 401
        assert client.get("/who").json() == {"team": None}
        assert client.post("/auth/login", json={"email": "ada", "password": "wrong"}).status_code == 401
        answer = client.post("/auth/login", json={"email": "ada", "password": "right", "mode": mode})
        assert answer.status_code == 200
        body = answer.json()
        proof = {"authorization": f"Bearer {body['access_token']}"} if mode == "jwt" else {}
        assert client.get("/team", headers=proof).json() == {"team": "blue"}
        assert client.get("/who", headers=proof).json() == {"team": "blue"}
        assert client.get("/captain", headers=proof).json() == {"captain": True}
        assert client.post("/auth/register", json={}).status_code == 404


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("mode", ["session", "jwt"])
def test_a_user_who_is_gone_is_refused_at_once(
    make: Callable[[], tuple[Any, Any]], mode: str, rows: dict[int, Member]
) -> None:
    """A route that gets the user refuses one who is gone, at the next request, and ends their sessions and tokens."""
    app, client_of = make()
    with client_of(app) as client:
        body = client.post("/auth/login", json={"email": "ada", "password": "right", "mode": mode}).json()
        proof = {"authorization": f"Bearer {body['access_token']}"} if mode == "jwt" else {}
        assert client.get("/team", headers=proof).status_code == 200
        del rows[7]
        assert client.get("/team", headers=proof).status_code == 401
        assert client.get("/captain", headers=proof).status_code == 401
        assert client.get("/auth/me", headers=proof).status_code == 401


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_other_roles_hold_from_the_next_request(make: Callable[[], tuple[Any, Any]], rows: dict[int, Member]) -> None:
    """A route that gets the user sees that their roles changed."""
    app, client_of = make()
    with client_of(app) as client:
        client.post("/auth/login", json={"email": "ada", "password": "right", "mode": "session"})
        assert client.get("/captain").status_code == 200
        rows[7] = Member(7, "red")
        assert client.get("/team").json() == {"team": "red"}
        assert client.get("/captain").status_code == 403


@pytest.mark.long
def test_processes_that_fork_have_the_same_users(tmp_path: Path) -> None:
    """Under gunicorn, which loads the application before it forks, every process checks and loads the same users."""
    with sqlite3.connect(tmp_path / "members.db") as members:
        members.execute("CREATE TABLE members (id INTEGER PRIMARY KEY, login TEXT, password TEXT)")
        members.execute("INSERT INTO members VALUES (7, 'ada', 'right')")
    with serving("ownusers", tmp_path) as app:
        client = app.browser()
        assert client.post("/auth/login", json={"email": "ada", "password": "wrong"}).status_code == 401
        signed_in = {"email": "ada", "password": "right", "mode": "session"}
        assert client.post("/auth/login", json=signed_in).status_code == 200
        answers = [httpx2.get(f"{app.url}/hello", cookies=dict(client.cookies)).json() for _ in range(40)]
        assert {answer["hello"] for answer in answers} == {"ada"}
        with sqlite3.connect(tmp_path / "members.db") as members:
            members.execute("DELETE FROM members")
        refused = [httpx2.get(f"{app.url}/hello", cookies=dict(client.cookies)).status_code for _ in range(10)]
        assert set(refused) == {401}
        client.close()


def test_a_login_that_is_no_address_can_be_typed_into_the_page() -> None:
    """The sign-in page asks for a login: a browser would refuse `ada` in a field for an address."""
    app, client_of = in_fastapi()
    page = {"Accept": "text/html", "Origin": "http://testserver", "Sec-Fetch-Mode": "navigate"}
    with client_of(app) as client:
        shown = client.get("/auth/login", headers=page).text
        assert 'name="email" type="text"' in shown and "E-mail" not in shown
        wrong = client.post("/auth/login", headers=page, data={"email": "ada", "password": "wrong"})
        assert wrong.status_code == 401 and "The login or the password is not right." in wrong.text
        right = {"email": "ada", "password": "right", "next": "/team"}
        assert client.post("/auth/login", headers=page, data=right, follow_redirects=False).status_code == 303
        assert client.get("/team").json() == {"team": "blue"}
