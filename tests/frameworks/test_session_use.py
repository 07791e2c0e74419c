"""How session data is used: what Flask's own helpers keep, sessions of other packages beside it, and each misuse."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from flask import Flask, flash, get_flashed_messages, session
from flask.sessions import SessionInterface
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar.testing import TestClient as LitestarClient
from markupsafe import Markup
from starlette.middleware.sessions import SessionMiddleware
from werkzeug.test import create_environ

import dutchdoor.fastapi
import dutchdoor.flask
import dutchdoor.litestar
import dutchdoor.wsgi
from dutchdoor import STANDARD, Client, Policy, Verified
from dutchdoor.errors import Misconfigured, TooMuchData
from dutchdoor.fastapi import SessionData
from dutchdoor.testing.clock import Clock

ISSUER = {"issuer": "http://localhost:1", "audience": "shop"}


@pytest.fixture
def flask_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.chdir(tmp_path)
    app = Flask("app")
    auth = dutchdoor.flask.Auth(app, "memory:")
    yield app
    auth.close()


def fast(**settings: Any) -> tuple[FastAPI, dutchdoor.fastapi.Auth]:
    app = FastAPI()
    return app, dutchdoor.fastapi.Auth(app, **(settings or {"database": "memory:"}))


# --- Flask -----------------------------------------------------------------------------------------------------------


def test_flask_keeps_what_its_own_cookie_keeps(flask_app: Flask) -> None:
    """Tuples, dates, markup, UUIDs and bytes come back as they were, and no secret key is needed."""
    values = {
        "when": dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC), "id": UUID(int=7), "pair": (1, "two"),
        "raw": b"\0\xff", "html": Markup("<b>"), "nested": {"deep": [(1,)]},
    }  # fmt: skip

    @flask_app.get("/set")
    def set_all() -> str:
        session.update(values)
        session.permanent = True
        return ""

    @flask_app.get("/get")
    def get_all() -> dict[str, bool]:
        return {"same": dict(session) == values, "markup": isinstance(session["html"], Markup), "new": session.new}

    client = flask_app.test_client()
    client.get("/set")
    assert client.get("/get").json == {"same": True, "markup": True, "new": False}


def test_flask_flashes_messages(flask_app: Flask) -> None:
    """A flashed message is there once, with its category, for a visitor and through a redirect."""

    @flask_app.get("/flash")
    def say() -> str:
        flash("saved", "info")
        return ""

    @flask_app.get("/read")
    def read() -> list[Any]:
        return get_flashed_messages(with_categories=True)  # type: ignore[return-value]

    client = flask_app.test_client()
    client.get("/flash")
    client.get("/flash")
    assert client.get("/read").json == [["info", "saved"], ["info", "saved"]]
    assert client.get("/read").json == []


def test_flasks_test_client_changes_a_session(flask_app: Flask) -> None:
    """`session_transaction` works, for a visitor and for a caller who is signed in."""

    @flask_app.get("/get")
    def get_all() -> dict[str, Any]:
        return dict(session)

    client = flask_app.test_client()
    with client.session_transaction() as changed:
        changed["basket"] = ["tea"]
    assert client.get("/get").json == {"basket": ["tea"]}
    ada = {"email": "ada@example.com", "password": "a door in two halves"}
    client.post("/auth/register", json=ada)
    client.post("/auth/login", json=ada)
    with client.session_transaction() as changed:
        changed["basket"].append("milk")
    assert client.get("/get").json == {"basket": ["tea", "milk"]}
    with client:
        client.get("/get")
        assert session["basket"] == ["tea", "milk"], "a test looks at the session of the last request"


def test_flasks_session_is_stored_also_after_an_error(flask_app: Flask) -> None:
    """Flask stores a session whatever its view did; too late a change, and too much, say so."""

    @flask_app.get("/fail")
    def fail() -> str:
        session["seen"] = True
        raise ZeroDivisionError

    @flask_app.get("/get")
    def get_all() -> dict[str, Any]:
        return dict(session)

    @flask_app.get("/much")
    def much() -> str:
        for n in range(3):
            session[f"key {n}"] = "x" * 40_000
        return ""

    client = flask_app.test_client()
    flask_app.config["PROPAGATE_EXCEPTIONS"] = False
    assert client.get("/fail").status_code == 500
    assert client.get("/get").json == {"seen": True}
    refused = client.get("/much")
    assert (refused.status_code, refused.content_type) == (422, "application/problem+json")
    assert refused.json is not None
    assert refused.json["code"] == "too_much_data"
    with client:
        client.get("/get")
        with pytest.raises(Misconfigured, match="stored when the response starts"):
            session["late"] = 1


def test_flask_keeps_another_session_interface(tmp_path: Path) -> None:
    """An application that has chosen where its sessions are keeps that."""

    class Theirs(SessionInterface): ...

    app = Flask("app")
    app.session_interface = theirs = Theirs()
    dutchdoor.flask.Auth(app, f"sqlite:///{tmp_path}/app.db").close()
    assert app.session_interface is theirs


# --- the frameworks over ASGI ----------------------------------------------------------------------------------------


def test_a_session_that_was_not_loaded_says_how(tmp_path: Path) -> None:
    """`request.session` without a load is an error that says the fix; with it, it is the data."""
    app, auth = fast()

    @app.get("/lazy")
    async def lazy(request: Request) -> dict[str, Any]:
        return dict(request.session)

    @app.get("/loaded", dependencies=[Depends(auth.session)])
    def loaded(request: Request, data: SessionData) -> bool:
        request.session["n"] = 1
        return request.session is data  # type: ignore[comparison-overlap]

    with TestClient(app) as client:
        with pytest.raises(Misconfigured, match=r"session = await auth\.session\(request\)"):
            client.get("/lazy")
        assert client.get("/loaded").json() is True
        for use in (len, list, bool, lambda data: data.get("n"), lambda data: "n" in data, lambda data: data.clear()):
            with pytest.raises(Misconfigured):
                use(auth.gate.unloaded)  # type: ignore[operator]


def test_data_is_not_read_for_a_request_that_does_not_touch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with the cookies of a visitor or of a session costs no look-up of data."""
    app, auth = fast()
    asked: list[type] = []

    @app.get("/touch")
    async def touch(data: SessionData) -> None:
        data["n"] = data.get("n", 0) + 1

    @app.get("/plain")
    async def plain(user: dutchdoor.fastapi.OptionalUser) -> None: ...

    with TestClient(app) as client:
        client.get("/touch")
        store = auth.engine.authority.store
        theirs = store.get

        async def counted(kind: Any, *key: Any) -> Any:
            asked.append(kind)
            return await theirs(kind, *key)

        monkeypatch.setattr(auth.engine.authority.data.store, "get", counted, raising=False)
        client.get("/plain")
        assert asked == []
        client.get("/touch")
        assert [kind.__name__ for kind in asked] == ["StoredData"]


def test_a_change_after_the_response_began_is_refused() -> None:
    """Nothing would store what a stream or a background task changes, also if it loads the data only then."""
    app, auth = fast()
    raised: list[str] = []

    def change(data: Any) -> None:
        try:
            data["late"] = 1
        except Misconfigured as error:
            raised.append(str(error))

    @app.get("/stream")
    async def stream(request: Request, data: SessionData) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            change(data)
            yield "b"

        return StreamingResponse(pieces())

    @app.get("/task")
    async def task(request: Request, tasks: BackgroundTasks) -> None:
        async def later() -> None:
            change(await auth.session(request))

        tasks.add_task(later)

    with TestClient(app) as client:
        client.get("/stream")
        client.get("/task")
    assert len(raised) == 2
    assert all("stored when the response starts" in each for each in raised)


def test_a_visitor_gets_no_cookie_from_an_open_websocket() -> None:
    """A visitor's first data is stored with the answer to the handshake, and not later."""
    app, auth = fast()
    raised: list[str] = []

    @app.websocket("/early")
    async def early(socket: WebSocket, data: SessionData) -> None:
        data["n"] = 1
        await socket.accept()
        data["m"] = 2
        await socket.close()

    @app.websocket("/late")
    async def late(socket: WebSocket) -> None:
        await socket.accept()
        data = await auth.session(socket)
        try:
            data["n"] = 1
        except Misconfigured as error:
            raised.append(str(error))
        await socket.close()

    @app.get("/")
    async def read(data: SessionData) -> dict[str, Any]:
        return dict(data)

    with TestClient(app) as client:
        with client.websocket_connect("/late") as socket:
            assert socket.receive()["type"] == "websocket.close"
        assert "set a cookie" in raised[0]
        with client.websocket_connect("/early") as socket:
            client.cookies.set("dd_visitor", dict(socket.extra_headers)[b"set-cookie"].decode()[11:64])
            assert socket.receive()["type"] == "websocket.close"
        assert client.get("/").json() == {"n": 1, "m": 2}


def test_what_cannot_be_stored_is_an_error_where_it_is_made() -> None:
    """A value that is not JSON, or too large, raises in the handler; nested ones are named when they are stored."""
    app, _ = fast(database="memory:", policy=Policy(session_data_at_most=1024))
    caught: list[str] = []

    @app.get("/set")
    async def set_it(data: SessionData) -> None:
        for value in ({1, 2}, "x" * 2000):
            try:
                data["it"] = value
            except (TypeError, TooMuchData) as error:
                caught.append(type(error).__name__)

    @app.get("/nested")
    async def nested(data: SessionData) -> None:
        data["it"] = []
        data["it"].append({1, 2})

    with TestClient(app) as client:
        client.get("/set")
        assert caught == ["TypeError", "TooMuchData"]
        with pytest.raises(TypeError, match="session data 'it' is not JSON"):
            client.get("/nested")


@pytest.mark.parametrize("is_outside", [True, False])
def test_starlettes_own_sessions_stay_beside_ours(is_outside: bool) -> None:
    """An application with a session middleware of its own keeps its `request.session`, on either side of ours."""
    app = FastAPI()
    if not is_outside:
        app.add_middleware(SessionMiddleware, secret_key="x")
    auth = dutchdoor.fastapi.Auth(app, "memory:")
    if is_outside:
        app.add_middleware(SessionMiddleware, secret_key="x")

    @app.get("/")
    async def both(request: Request, ours: SessionData) -> dict[str, Any]:
        theirs = request.session
        theirs["n"] = theirs.get("n", 0) + 1
        ours["n"] = ours.get("n", 0) + 10
        return {"theirs": dict(theirs), "ours": dict(await auth.session(request))}

    with TestClient(app) as client:
        client.get("/")
        assert client.get("/").json() == {"theirs": {"n": 2}, "ours": {"n": 20}}


def test_litestars_own_verbs_replace_the_data() -> None:
    """`set_session` and `clear_session` of a request replace what it has loaded, and delete the rest."""

    @get("/set")
    async def put(request: LitestarRequest[Any, Any, Any], session_data: dutchdoor.litestar.SessionData) -> None:
        session_data["old"] = 1
        request.set_session({"new": 2})

    @get("/clear")
    async def clear(request: LitestarRequest[Any, Any, Any], session_data: dutchdoor.litestar.SessionData) -> None:
        assert session_data
        request.clear_session()

    @get("/")
    async def read(session_data: dutchdoor.litestar.SessionData) -> dict[str, Any]:
        return dict(session_data)

    auth = dutchdoor.litestar.Auth("memory:")
    with LitestarClient(Litestar([put, clear, read], plugins=[auth], openapi_config=None)) as client:
        client.get("/set")
        assert client.get("/").json() == {"new": 2}
        client.get("/clear")
        assert (client.get("/").json(), "dd_visitor" in client.cookies) == ({}, False)


def test_a_sign_in_of_ones_own_takes_the_visitors_data_along() -> None:
    """A handler that starts a session passes the visitor on; what it changes itself goes to the session, too."""
    app, auth = fast()

    @app.post("/sign-in")
    async def sign_in(request: Request, response: Response, data: SessionData) -> None:
        authority = auth.engine.authority
        account = await authority.provide("ada")
        data["before"] = 1
        proof = Verified(subject="ada", epoch=account.epoch, amr=("pwd",), at=authority.clock())
        signed_in = await authority.start(proof, mode="session", client=Client(), visitor=auth.engine.visitor(request))
        assert signed_in.session is not None
        data.move(signed_in.session)
        data["after"] = 2
        for value in auth.engine.set_cookies(signed_in):
            response.headers.append("set-cookie", value)

    @app.get("/basket/{item}")
    async def add(item: str, data: SessionData) -> dict[str, Any]:
        data.setdefault("basket", []).append(item)
        return dict(data)

    with TestClient(app) as client:
        client.get("/basket/tea")
        client.post("/sign-in")
        assert sorted(client.cookies) == ["dd_session"]
        assert client.get("/basket/milk").json() == {"basket": ["tea", "milk"], "before": 1, "after": 2}


# --- a service that only verifies ------------------------------------------------------------------------------------


def test_a_service_that_only_verifies_keeps_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session is an error that says why; with a secret key, Flask's own cookie works as ever."""
    why = "only verifies tokens, and keeps no session data"
    app, auth = fast(**ISSUER)

    @app.get("/data")
    async def data(data: SessionData) -> None: ...

    @app.get("/session")
    async def in_scope(request: Request) -> None:
        request.session["n"] = 1

    for path in ("/data", "/session"):
        with pytest.raises(Misconfigured, match=why):
            TestClient(app).get(path)
    assert auth.gate.application is None

    @get("/session")
    async def in_litestar(request: LitestarRequest[Any, Any, Any]) -> str:
        try:
            request.session["n"] = 1
        except Misconfigured as error:
            return str(error)
        return ""

    litestar = Litestar([in_litestar], plugins=[dutchdoor.litestar.Auth(**ISSUER)], openapi_config=None)
    assert why in LitestarClient(litestar).get("/session").text

    plain = dutchdoor.wsgi.Auth(**ISSUER)

    def in_wsgi(environ: dict[str, Any], _start: Any) -> list[bytes]:
        dutchdoor.wsgi.session_data(environ)
        return []

    with pytest.raises(Misconfigured, match=why):
        plain.around(in_wsgi)(create_environ(), None)
    plain.close()

    flask_app = Flask("app")
    service = dutchdoor.flask.Auth(flask_app, **ISSUER)

    @flask_app.get("/")
    def count() -> dict[str, int]:
        session["n"] = session.get("n", 0) + 1
        return {"n": session["n"]}

    flask_app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(Misconfigured, match=why):
        flask_app.test_client().get("/")
    flask_app.secret_key = "x"
    client = flask_app.test_client()
    client.get("/")
    assert client.get("/").json == {"n": 2}
    service.close()


def test_a_visitors_data_lives_as_the_policy_says() -> None:
    """The setting is that of `Policy`, for the record and for its cookie."""
    clock = Clock()
    policy: Callable[..., Policy] = Policy
    app, _ = fast(database="memory:", clock=clock, policy=policy(visitor_data_for=3600.0))

    @app.get("/")
    async def count(data: SessionData) -> int:
        data["n"] = data.get("n", 0) + 1
        return int(data["n"])

    with TestClient(app) as client:
        assert "Max-Age=3600" in client.get("/").headers["set-cookie"]
        cookie = {"cookie": f"dd_visitor={client.cookies['dd_visitor']}"}
        client.cookies.clear()
        clock.advance(3599)
        assert client.get("/", headers=cookie).json() == 2
        clock.advance(3601)
        assert client.get("/", headers=cookie).json() == 1
    assert STANDARD.visitor_data_for == STANDARD.idle_for
