"""Each way to use an adapter wrong gets an error that says what to do."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from django.views import View
from fastapi import APIRouter, Depends, FastAPI, WebSocket, WebSocketDisconnect
from flask import Flask
from litestar import Litestar, get
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

import dutchdoor
import dutchdoor.asgi
import dutchdoor.fastapi
import dutchdoor.flask
import dutchdoor.litestar
import dutchdoor.starlette
import dutchdoor.wsgi
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.django.requiring import Attached
from dutchdoor.django.rest_framework import require as django_require
from dutchdoor.errors import Forbidden, Misconfigured, StepUpRequired
from dutchdoor.guard.attached import make_gate
from dutchdoor.guard.requirement import Requirement, factors_of
from dutchdoor.guard.threads import SyncGate

MODULES = (dutchdoor.fastapi, dutchdoor.flask, dutchdoor.litestar, dutchdoor.starlette)
ADAPTERS: dict[str, Callable[..., Any]] = {
    "fastapi": lambda **named: dutchdoor.fastapi.Auth(FastAPI(), **named),
    "starlette": lambda **named: dutchdoor.starlette.Auth(Starlette(), **named),
    "litestar": dutchdoor.litestar.Auth,
    "flask": lambda **named: dutchdoor.flask.Auth(Flask("app"), **named),
}


@pytest.mark.parametrize("make", ADAPTERS.values(), ids=ADAPTERS)
def test_an_unknown_setting_is_named_with_the_nearest(make: Callable[..., Any]) -> None:
    """A misspelled setting is refused when it is given, with the right spelling."""
    with pytest.raises(Misconfigured, match=r"Auth\(polcy=...\): no such setting. Did you mean policy\?"):
        make(database="memory:", polcy=dutchdoor.STANDARD)
    with pytest.raises(Misconfigured, match=r"Verifier\(stail=...\): no such setting. Did you mean stale\?"):
        make(issuer="http://localhost:1", stail="refuse")
    with pytest.raises(Misconfigured, match=r"Auth\(policy=Policy\(access_for=...\)\)"):
        make(database="memory:", access_for="5m")
    with pytest.raises(Misconfigured, match=r"only verifies: Auth\(issuer=..., reports=...\)"):
        make(database="memory:", reports=True)


@pytest.mark.parametrize("make", ADAPTERS.values(), ids=ADAPTERS)
def test_a_database_and_an_issuer_contradict_each_other(make: Callable[..., Any]) -> None:
    """A service keeps the accounts or verifies for a server that does."""
    with pytest.raises(Misconfigured, match="a database or an issuer"):
        make(database="memory:", issuer="http://localhost:1")


@pytest.mark.parametrize("make", ADAPTERS.values(), ids=ADAPTERS)
def test_settings_beside_a_made_engine_are_refused(make: Callable[..., Any]) -> None:
    """What `dutchdoor.Auth` was made with cannot be changed by the adapter."""
    with pytest.raises(Misconfigured, match=r"Give them to dutchdoor\.Auth"):
        make(database=dutchdoor.Auth("memory:"), product="The shop")


def test_two_auths_are_refused() -> None:
    """One application has one `Auth`: a second would answer the same paths with other accounts."""
    fastapi, flask, starlette = FastAPI(), Flask("app"), Starlette()
    for make in (
        functools.partial(dutchdoor.fastapi.Auth, fastapi),
        functools.partial(dutchdoor.flask.Auth, flask),
        functools.partial(dutchdoor.starlette.Auth, starlette),
    ):
        make("memory:")
        with pytest.raises(Misconfigured, match="has an Auth already"):
            make("memory:")
    both = [dutchdoor.litestar.Auth("memory:"), dutchdoor.litestar.Auth("memory:")]
    with pytest.raises(Misconfigured, match="two Auths"):
        Litestar([], plugins=both)


def test_an_adapter_takes_its_own_framework_only() -> None:
    """An application of another framework is refused by name."""
    with pytest.raises(Misconfigured, match="not an application of Starlette or FastAPI"):
        dutchdoor.fastapi.Auth(Flask("app"), "memory:")  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match="not an application of Flask"):
        dutchdoor.flask.Auth(FastAPI(), "memory:")  # type: ignore[arg-type]


def test_a_guard_without_an_auth_says_so() -> None:
    """A guard in an application without `Auth` refuses every request, with the line that is missing."""
    fastapi = FastAPI()

    @fastapi.get("/")
    async def index(user: dutchdoor.fastapi.CurrentUser) -> None: ...

    with pytest.raises(Misconfigured, match=r"auth = Auth\(app\)"):
        TestClient(fastapi).get("/")
    flask = Flask("app")
    flask.testing = True
    flask.get("/")(dutchdoor.flask.login_required(lambda: ""))
    with pytest.raises(Misconfigured, match=r"auth = Auth\(app\)"):
        flask.test_client().get("/")

    @get("/", guards=[dutchdoor.litestar.Auth("memory:").require()])
    async def guarded() -> None: ...

    with LitestarClient(Litestar([guarded], debug=False)) as client:
        assert client.get("/").status_code == 500

    @dutchdoor.starlette.Auth(None, "memory:").require()
    async def endpoint(request: Any) -> None: ...

    with pytest.raises(Misconfigured, match=r"auth = Auth\(app\)"):
        TestClient(Starlette(routes=[Route("/", endpoint)])).get("/")


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"factors": 3}, "use 1 or 2"),
        ({"factors": True}, "use 1 or 2"),
        ({"rol": "admin"}, r"require\(rol=...\): no such setting. Did you mean role\?"),
        ({"permission": "x"}, "It takes factors, fresh, role, scope."),
        ({"fresh": "five minutes"}, "fresh must be a duration"),
        ({"fresh": -1}, "fresh must be a duration"),
        ({"role": ["admin", "owner"]}, "role is text"),
        ({"role": "admin owner"}, "one role"),
        ({"scope": ["a"]}, "scope is text"),
    ],
)
def test_a_wrong_requirement_is_refused_when_it_is_written(named: dict[str, Any], says: str) -> None:
    """`require` refuses what it does not understand. It must never become "anyone who is signed in"."""
    for make in ADAPTERS.values():
        with pytest.raises(Misconfigured, match=says):
            make(database="memory:").require(**named)


REQUIRES: dict[str, Callable[..., Any]] = {
    **{name: make(database="memory:").require for name, make in ADAPTERS.items()},
    "asgi": dutchdoor.asgi.Auth("memory:").require,
    "wsgi": dutchdoor.wsgi.Auth("memory:").require,
    "django": Attached().require,
    "rest_framework": django_require,
}


@pytest.mark.parametrize("require", REQUIRES.values(), ids=REQUIRES)
def test_g37_a_requirement_in_a_wrong_form_says_how_to_write_it(require: Callable[..., Any]) -> None:
    """A value without its name, or `require` without brackets above a view."""
    with pytest.raises(Misconfigured, match=r"Write the name of each setting, as in require\(role=...\)\."):
        require("admin")
    with pytest.raises(Misconfigured, match=r"require needs brackets: require\(\), or require\(role=...\)\."):
        require(lambda: None)


def test_g37_a_requirement_without_brackets_opens_no_route_of_fastapi() -> None:
    """`Depends(auth.require)` would be a dependency that FastAPI calls with the query, and that lets everyone in. It is
    refused when the route is written.
    """
    app = FastAPI()
    auth = dutchdoor.fastapi.Auth(app, "memory:")
    with pytest.raises(Misconfigured, match=r"Write Depends\(auth\.require\(\)\), with brackets\."):
        app.get("/", dependencies=[Depends(auth.require)])(lambda: None)
    with pytest.raises(Misconfigured, match="guards nothing"):
        APIRouter(dependencies=[Depends(auth.require)]).get("/")(lambda: None)
    app.get("/guarded", dependencies=[Depends(auth.require())])(lambda: None)
    with TestClient(app) as client:
        assert client.get("/guarded").status_code == 401


def test_g37_a_requirement_as_a_decorator_opens_no_route_of_fastapi() -> None:
    """In the other frameworks it is a decorator. In FastAPI that would guard nothing, and is refused."""
    app = FastAPI()
    auth = dutchdoor.fastapi.Auth(app, "memory:")
    for decorate in (
        lambda view: auth.require(role="admin")(app.get("/")(view)),
        lambda view: app.get("/")(auth.require(role="admin")(view)),
    ):
        with pytest.raises(TypeError, match=r"is no decorator: write Depends\(auth\.require\(\.\.\.\)\)"):
            decorate(lambda: None)


DEFAULTS: dict[str, tuple[Callable[[dutchdoor.fastapi.Auth], Any], str]] = {
    "require": (lambda auth: auth.require(role="admin"), r"Write Depends\(auth\.require\(\.\.\.\)\)\."),
    "require without a call": (lambda auth: auth.require, r"Write Depends\(auth\.require\(\)\)\."),
    "annotation": (lambda _: dutchdoor.fastapi.CurrentUser, "Write user: CurrentUser"),
    "current_user": (lambda auth: auth.current_user, "Write user: CurrentUser"),
    "own annotation": (lambda auth: Annotated[Any, Depends(auth.current_user)], "Write user: CurrentUser"),
}


@pytest.mark.parametrize(("default", "says"), DEFAULTS.values(), ids=DEFAULTS)
@pytest.mark.parametrize("included", [False, True])
def test_g37_a_default_that_is_no_depends_opens_no_route_of_fastapi(
    default: Callable[[dutchdoor.fastapi.Auth], Any], says: str, *, included: bool
) -> None:
    """`user=auth.require()` would be the default of a value of the query, and guard nothing. The application does not
    start, wherever the route is.
    """
    app, router = FastAPI(), APIRouter()
    made = default(dutchdoor.fastapi.Auth(app, "memory:"))

    async def hello(user=made) -> str:  # type: ignore[no-untyped-def] # as a person writes it
        return "open"

    (router if included else app).get("/hello")(hello)
    app.include_router(router)
    for path in ("/hello", "/hello?user=x"):
        with pytest.raises(Misconfigured, match=f"/hello: the default of user is a dependency, and guards.*{says}"):
            TestClient(app).get(path)


DEPENDS: dict[str, tuple[Any, str]] = {
    "annotation": (dutchdoor.fastapi.CurrentUser, "Write user: CurrentUser"),
    "optional": (dutchdoor.fastapi.OptionalPrincipal, "Write principal: OptionalPrincipal"),
    "session": (dutchdoor.fastapi.SessionData, "Write session: SessionData"),
    "User": (dutchdoor.fastapi.User, "Write user: CurrentUser, or principal: CurrentPrincipal"),
    "Principal": (dutchdoor.Principal, "each caller could write one into the query"),
}


@pytest.mark.parametrize(("dependency", "says"), DEPENDS.values(), ids=DEPENDS)
def test_g37_a_user_in_depends_opens_no_route_of_fastapi(dependency: Any, says: str) -> None:
    """`Depends(User)` would be a user whom the caller writes into the query. It is refused with the route."""
    app = FastAPI()
    dutchdoor.fastapi.Auth(app, "memory:")
    with pytest.raises(Misconfigured, match=says):
        app.get("/", dependencies=[Depends(dependency)])(lambda: None)


def test_g37_a_dependency_that_is_no_type_and_no_depends_is_named() -> None:
    """As an annotation, or in `dependencies=[...]` without `Depends`."""
    app = FastAPI()
    auth = dutchdoor.fastapi.Auth(app, "memory:")

    async def hello(user: Any) -> None: ...

    hello.__annotations__["user"] = auth.current_user
    with pytest.raises(Misconfigured, match=r"is no type\. Write user: CurrentUser"):
        app.get("/")(hello)
    with pytest.raises(Misconfigured, match=r"without Depends\. Write Depends\(auth\.require\(\.\.\.\)\)"):
        app.get("/", dependencies=[auth.require()])(lambda: None)  # type: ignore[list-item]


def test_a_token_without_the_word_bearer_is_named_by_a_guard() -> None:
    """The guard of a route answers the most usual slip of a program as the server does."""
    app = Flask("app")
    auth = dutchdoor.flask.Auth(app, "memory:")
    app.get("/")(auth.require()(lambda: "open"))
    answer = app.test_client().get("/", headers={"Authorization": "Token abc"})
    assert (answer.status_code, "after the word Bearer" in answer.text) == (401, True)


class Page(View):
    """A class of views, as Django has them and Flask nearly so."""


VIEWS: dict[str, tuple[Callable[[], Any], str]] = {
    "brackets": (dutchdoor.flask.login_required, "Write @login_required above one"),
    "a role": (lambda: dutchdoor.flask.login_required(role="a"), r"Write auth\.require\(role="),  # type: ignore[call-arg]
    "a text": (lambda: dutchdoor.flask.login_required("admin"), "not above an object: str"),  # type: ignore[arg-type]
    "a class in Flask": (lambda: dutchdoor.flask.login_required(Page), r"decorators = \[login_required\]"),
    "a role for a class in Flask": (lambda: REQUIRES["flask"](role="a")(Page), r"decorators = \[auth\.require"),
    "twice": (REQUIRES["flask"](), r"Write @auth\.require\(\.\.\.\) above one, without more brackets"),
    "a class in Starlette": (lambda: REQUIRES["starlette"]()(Page), "above the methods of the class"),
    "a route in Starlette": (lambda: REQUIRES["starlette"]()(Route("/", print)), "Route must be an `async def`"),
    "a class in Django": (lambda: REQUIRES["django"]()(Page), r"@method_decorator\(auth\.require"),
    "a method in Django": (
        lambda: REQUIRES["django"]()(print)(Page()),
        r"a method of Page\. Write above the class: @me",
    ),
}


@pytest.mark.parametrize(("write", "says"), VIEWS.values(), ids=VIEWS)
def test_g37_a_decorator_in_a_wrong_place_says_where_it_belongs(write: Callable[[], Any], says: str) -> None:
    """Brackets without a view, a class, a text, or a route instead of the view: never a bare `TypeError`."""
    with pytest.raises(Misconfigured, match=says):
        write()


def test_g37_a_requirement_as_a_decorator_opens_no_handler_of_litestar() -> None:
    """Litestar has guards in a list. A decorator above a handler is refused with how to write one."""
    with pytest.raises(TypeError, match=r"is no decorator: write guards=\[auth\.require\(\.\.\.\)\]"):
        REQUIRES["litestar"]()(lambda: None)


def test_g37_a_requirement_without_brackets_opens_no_view_of_rest_framework() -> None:
    """REST framework calls each permission class, and asks what it returns: here, the class that `require` returns."""
    made: Any = django_require()
    with pytest.raises(Misconfigured, match=r"permission_classes = \[require\(\)\]"):
        made.has_permission(object(), object())


def test_a_starlette_endpoint_must_be_a_coroutine_with_a_request() -> None:
    """`require` finds the request by its name, and awaits the endpoint."""
    auth = dutchdoor.starlette.Auth(None, "memory:")
    with pytest.raises(Misconfigured, match="must be an `async def`"):
        auth.require()(lambda request: None)

    async def nameless(req: Any) -> None: ...

    with pytest.raises(Misconfigured, match="no parameter `request`"):
        auth.require()(nameless)


def test_the_engines_thread_does_not_wait_for_itself() -> None:
    """A hook that calls the adapter's own helpers gets an error at once, and not after half a minute."""
    gate = SyncGate(lambda: make_gate("memory:", None, None, {}))

    async def hook() -> None:
        gate.run(gate.gate.open())

    try:
        with pytest.raises(Misconfigured, match="engine's thread"):
            gate.run(hook())
    finally:
        gate.close()


async def test_flask_works_where_an_event_loop_runs() -> None:
    """A view may be an `async def`, and a test may run in an event loop: the engine has a thread of its own."""
    app = Flask(__name__)
    auth = dutchdoor.flask.Auth(app, "memory:")
    app.get("/")(lambda: {"who": dutchdoor.flask.current_user.email})
    client = app.test_client()
    client.set_cookie("dd_session", "dds1_" + "A" * 48)
    assert client.get("/").json == {"who": None}
    auth.close()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_missing_framework_is_named(module: Any) -> None:
    """An adapter whose framework is not installed fails with the extra to install."""
    name = module.__name__.rpartition(".")[2]
    code = f"import sys; sys.modules[{name!r}] = None; import dutchdoor.{name}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'dutchdoor[{name}]'" in ran.stderr.splitlines()[-1]


def test_factors_are_kinds_of_proof() -> None:
    """Two passwords are one factor; a password and a device are two; `mfa` counts as two by itself."""
    assert [factors_of(amr) for amr in ((), ("pwd",), ("pwd", "pin"), ("pwd", "otp"), ("hwk", "fpt"), ("mfa",))] == [
        0, 1, 1, 2, 2, 2,
    ]  # fmt: skip


def test_g39_a_refusal_names_the_role_or_the_scope() -> None:
    """The person who reads it has to know what to ask for."""
    principal = dutchdoor.Principal(
        subject="s", method="session", session_id="i", client_id="app", roles=(), scope="", auth_time=100.0,
        amr=("pwd",), expires_at=1e9,
    )  # fmt: skip
    for requirement, words in (
        (Requirement.of(role="editor"), "This needs the role editor, which your account does not have."),
        (Requirement.of(scope="read"), "This needs the scope read, which this sign-in does not have."),
    ):
        with pytest.raises(Forbidden) as refused:
            requirement.check(principal, 100.0)
        assert refused.value.message == words


def test_a_step_up_names_what_is_missing() -> None:
    """A requirement of two factors says so, without an age that nothing asks for."""
    principal = dutchdoor.Principal(
        subject="s", method="session", session_id="i", client_id="app", roles=(), scope="", auth_time=100.0,
        amr=("pwd",), expires_at=1e9,
    )  # fmt: skip
    with pytest.raises(StepUpRequired) as two:
        Requirement.of(factors=2).check(principal, 100.0)
    assert (two.value.factors, two.value.max_age) == (2, None)
    Requirement.of(fresh="5m").check(principal, 400.0)
    with pytest.raises(StepUpRequired) as old:
        Requirement.of(fresh="5m").check(principal, 400.1)
    assert (old.value.factors, old.value.max_age) == (1, 300.0)


def test_a_test_client_works_as_it_comes() -> None:
    """Starlette's TestClient needs no address, no host and no `with`, which has a loop for each request."""
    app = FastAPI()
    dutchdoor.fastapi.Auth(app, "memory:", hasher=PasswordHasher(CHEAPEST))

    @app.get("/hello")
    async def hello(user: dutchdoor.fastapi.CurrentUser) -> dict[str, str | None]:
        return {"hello": user.email}

    @app.websocket("/ws")
    async def echo(socket: WebSocket, user: dutchdoor.fastapi.CurrentUser) -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.send_text(await socket.receive_text())

    client = TestClient(app)
    ada = {"email": "ada@example.com", "password": "a door in two halves"}
    assert client.post("/auth/register", json=ada).status_code == 201
    for _ in range(2):
        csrf = client.post("/auth/login", json={**ada, "mode": "session"}).json()["csrf_token"]
        assert [client.get("/hello").json() for _ in range(3)] == [{"hello": "ada@example.com"}] * 3
        with client.websocket_connect("/ws", headers={"origin": "http://testserver"}) as socket:
            socket.send_text("one")
            assert socket.receive_text() == "one"
            assert client.post("/auth/logout", headers={"x-csrf-token": csrf}).json()["fenced"]
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text()
            assert closed.value.code == 4401
        assert client.get("/hello").status_code == 401


def test_a_start_that_fails_says_why_to_a_test_client(tmp_path: Path) -> None:
    """Where the database cannot be opened, a TestClient raises the reason. It does not wait."""
    app = FastAPI()
    dutchdoor.fastapi.Auth(app, f"sqlite:///{tmp_path}/missing/app.db", master_key=str(tmp_path / "keys"))
    with pytest.raises(Misconfigured, match="There is no directory"), TestClient(app):
        pass


def test_a_guard_above_a_route_of_flask_opens_nothing() -> None:
    """Flask calls the view that its route got. A guard that stands above the route would not be asked."""
    app = Flask("app")
    auth = dutchdoor.flask.Auth(app, "memory:")

    @auth.require(role="admin")
    @app.get("/role")
    def role() -> str:
        return "secret"

    @dutchdoor.flask.login_required
    @app.get("/any")
    def anyone() -> str:
        return "secret"

    def logged(view: Callable[[], str]) -> Callable[[], str]:
        @functools.wraps(view)
        def around() -> str:
            return view()

        return around

    @dutchdoor.flask.login_required
    @logged
    @app.get("/wrapped")
    def wrapped() -> str:
        return "secret"

    for path in ("/role", "/any", "/wrapped"):
        answer = app.test_client().get(path)
        assert answer.status_code == 500 and "secret" not in answer.text
    auth.close()
