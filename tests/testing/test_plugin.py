"""The pytest plugin, used by small projects as a person writes them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Imported here, once: pytester forgets what a project imports, and babel keeps objects of what is forgotten.
import babel.dates
import babel.numbers
import babel.units  # noqa: F401
import pytest

import dutchdoor.asgi
import dutchdoor.fastapi
import dutchdoor.flask
import dutchdoor.litestar
import dutchdoor.starlette
import dutchdoor.testing.application
import dutchdoor.testing.server
import dutchdoor.wsgi  # noqa: F401

pytest_plugins = "pytester"

ROOT = Path(__file__).parents[2]
CONFIGURATION = (
    '[tool.pytest.ini_options]\ndutchdoor_app = "shop:app"\npythonpath = ["."]\nfilterwarnings = ["error"]\n'
)

AUTH = """Auth(
    {app}"sqlite:///shop.db", master_key="shop.keys", public_url="https://shop.example.com", proxies=["10.0.0.7"],
    hosts=["www.shop.example.com"], redis="redis://localhost:1",
    mail="smtp://localhost:1", mail_from="shop@example.com",
)"""
SHOPS = {
    "fastapi": f"""
from fastapi import Depends, FastAPI
from dutchdoor.fastapi import Auth, CurrentUser
app = FastAPI()
auth = {AUTH.format(app="app, ")}
@app.get("/hello")
async def hello(user: CurrentUser): return {{"hello": user.id}}
@app.get("/admin", dependencies=[Depends(auth.require(role="admin"))])
async def admin(): ...
@app.post("/orders", dependencies=[Depends(auth.require(fresh="10m", factors=2))])
async def orders(): ...
""",
    "starlette": f"""
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from dutchdoor.starlette import Auth
auth = {AUTH.format(app="None, ")}
@auth.require()
async def hello(request): return JSONResponse({{"hello": request.user.id}})
@auth.require(role="admin")
async def admin(request): return JSONResponse(None)
@auth.require(fresh="10m", factors=2)
async def orders(request): return JSONResponse(None)
app = Starlette(routes=[Route("/hello", hello), Route("/admin", admin), Route("/orders", orders, methods=["POST"])])
auth.attach(app)
""",
    "litestar": f"""
from litestar import Litestar, get, post
from dutchdoor.litestar import Auth, CurrentUser
auth = {AUTH.format(app="")}
@get("/hello")
async def hello(current_user: CurrentUser) -> dict[str, str]: return {{"hello": current_user.id}}
@get("/admin", guards=[auth.require(role="admin")])
async def admin() -> None: ...
@post("/orders", guards=[auth.require(fresh="10m", factors=2)], status_code=200)
async def orders() -> None: ...
app = Litestar([hello, admin, orders], plugins=[auth], logging_config=None)
""",
    "flask": f"""
from flask import Flask
from dutchdoor.flask import Auth, current_user, login_required
app = Flask(__name__)
auth = {AUTH.format(app="app, ")}
@app.get("/hello")
@login_required
def hello(): return {{"hello": current_user.id}}
@app.get("/admin")
@auth.require(role="admin")
def admin(): return ""
@app.post("/orders")
@auth.require(fresh="10m", factors=2)
def orders(): return ""
""",
}

TESTS = """
import os
import pytest
from dutchdoor.credentials.password import PasswordHasher

def test_admin_page(auth_client, sign_in, monkeypatch):
    monkeypatch.delattr(PasswordHasher, "_hash")  # no hash is computed
    assert auth_client.get("/admin").status_code == 401
    assert sign_in("ada@example.com", roles=["admin"]).get("/admin").status_code == 200
    assert sign_in("ada@example.com", mode="jwt").get("/admin").status_code == 200
    assert sign_in("bob@example.com", roles=["editor"]).get("/admin").status_code == 403
    assert auth_client.get("/admin").status_code == 401
    assert sign_in("user-42").get("/hello").status_code == 200

def test_time_and_factors(sign_in, clock):
    two = sign_in("ada@example.com", amr=("pwd", "otp"))
    assert two.post("/orders").status_code == 200
    assert sign_in("ada@example.com").post("/orders").status_code == 401
    clock.advance("11m")
    assert two.get("/hello").status_code == 200
    assert two.post("/orders").status_code == 401
    clock.advance("90d")
    assert two.get("/hello").status_code == 401

def test_log_out(sign_in):
    ada = sign_in("ada@example.com")
    assert ada.post("/auth/logout").status_code == 200
    assert ada.get("/hello").status_code == 401

def test_the_whole_way(auth_client, make_account, outbox):
    make_account("ada@example.com", password="old")
    for _ in range(2):
        assert auth_client.post("/auth/password/forgot", json={"email": "ada@example.com"}).status_code == 202
    assert [mail.to for mail in outbox] == ["ada@example.com"] * 2 and outbox.to("bob@example.com") == []
    token = outbox[-1].token
    assert outbox[-1].links == [outbox[-1].link] and outbox[-1].link.endswith("#" + token)
    who = {"email": "ada@example.com", "password": "a door in two halves"}
    answer = auth_client.post("/auth/password/reset", json={"token": token, "new_password": who["password"]})
    assert answer.status_code == 200
    assert len(outbox) == 3
    assert auth_client.post("/auth/login", json={**who, "mode": "session"}).status_code == 200
    assert auth_client.get("/hello").status_code == 200

@pytest.mark.parametrize("kind", ["expired", "forged", "foreign", "revoked", "stale"])
def test_a_bad_token(auth_client, tokens, kind):
    def status(token):
        return auth_client.get("/admin", headers={"Authorization": "Bearer " + token}).status_code
    assert status(tokens.valid(roles=["admin"])) == 200
    assert status(getattr(tokens, kind)(roles=["admin"])) == 401

def test_each_test_begins_with_nothing(auth_engine, outbox, anyio_backend):
    assert not outbox
    assert not os.path.exists("shop.db")
    assert auth_engine.directory.hasher.profile.name == "cheapest"

@pytest.fixture
def anyio_backend(): return "asyncio"

@pytest.mark.anyio
async def test_in_a_loop(auth_engine, sign_in, anyio_backend):
    started = sign_in.start("ada@example.com")
    assert [one.id for one in await auth_engine.authority.sessions(started.account.subject)] == [started.session.id]

def test_the_application_has_its_own_engine_afterwards():
    import shop
    assert shop.auth.engine.site.edge.public_origin == "https://shop.example.com"
    assert not shop.auth.engine._open
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyprojecttoml(CONFIGURATION)
    return pytester


@pytest.mark.parametrize(
    "framework",
    ["fastapi", "flask", *(pytest.param(each, marks=pytest.mark.long) for each in ("starlette", "litestar"))],
)
def test_a_project_of_each_framework_has_the_fixtures(project: pytest.Pytester, framework: str) -> None:
    """In each framework the fixtures sign in, move time, read mail and make bad tokens, and leave nothing behind."""
    project.makepyfile(shop=SHOPS[framework], test_shop=TESTS)
    project.runpytest_inprocess("-q").assert_outcomes(passed=12)


VERIFYING = {
    "fastapi": """
from fastapi import FastAPI
from dutchdoor.fastapi import Auth, CurrentPrincipal
app = FastAPI()
auth = Auth(app, issuer="https://auth.example.com", audience="orders")
@app.get("/hello")
async def hello(principal: CurrentPrincipal): return {"roles": principal.roles}
""",
    "flask": """
from flask import Flask
from dutchdoor.flask import Auth, current_principal, login_required
app = Flask(__name__)
auth = Auth(app, issuer="https://auth.example.com", audience="orders")
@app.get("/hello")
@login_required
def hello(): return {"roles": list(current_principal.roles)}
""",
}


@pytest.mark.parametrize("framework", sorted(VERIFYING))
def test_a_service_that_only_verifies_is_tested_without_its_server(project: pytest.Pytester, framework: str) -> None:
    """In a service that only verifies, sign-ins are by token, and the same bad tokens are refused."""
    project.makepyfile(
        shop=VERIFYING[framework],
        test_shop="""
        import pytest
        def test_it(auth_client, sign_in, tokens, clock):
            assert auth_client.get("/hello").status_code == 401
            ada = sign_in("ada@example.com", roles=["customer"])
            answer = ada.get("/hello")
            assert (answer.status_code, "customer" in answer.text) == (200, True)
            for kind in ("expired", "forged", "foreign", "revoked", "stale"):
                token = getattr(tokens, kind)("bob@example.com")
                assert auth_client.get("/hello", headers={"Authorization": "Bearer " + token}).status_code == 401, kind
            clock.advance("1h")
            assert ada.get("/hello").status_code == 401
            with pytest.raises(Exception, match='Use mode="hybrid"'):
                sign_in("ada@example.com", mode="session")
        """,
    )
    project.runpytest_inprocess("-q").assert_outcomes(passed=1)


def test_the_guide_is_a_project(project: pytest.Pytester) -> None:
    """The page about testing is typed word for word: its configuration, its application, its tests."""
    page = (ROOT / "docs" / "guides" / "testing.md").read_text()
    (configuration,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shop, tests, own_client = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    project.makepyprojecttoml(configuration)
    project.makepyfile(shop=shop, test_shop=f"{tests}\n\n{own_client}")
    project.makeconftest('import pytest\n@pytest.fixture\ndef anyio_backend(): return "asyncio"\n')
    project.runpytest_inprocess("-q").assert_outcomes(passed=9)


def test_a_fixture_of_the_project_takes_the_place_of_ours(project: pytest.Pytester) -> None:
    """A project's own `clock`, `outbox` or `tokens` is what its tests get, and breaks no other fixture;
    and a client of its own that stops the application does not stop the test's engine.
    """
    project.makepyfile(
        shop=SHOPS["fastapi"],
        test_shop="""
        import pytest
        from starlette.testclient import TestClient
        @pytest.fixture
        def clock(): return "mine"
        @pytest.fixture
        def outbox(): return []
        @pytest.fixture
        def tokens(): return None
        def test_it(clock, outbox, tokens, sign_in):
            assert (clock, outbox, tokens) == ("mine", [], None)
            assert sign_in("ada@example.com").get("/hello").status_code == 200
        def test_a_client_that_stops_the_application(auth_app, auth_engine, sign_in):
            with TestClient(auth_app) as client:
                sign_in("ada@example.com", client=client)
                assert client.get("/hello").status_code == 200
            assert auth_engine._open
        """,
    )
    project.runpytest_inprocess("-q").assert_outcomes(passed=2)


PAIR = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from dutchdoor import Auth
auth = Auth("sqlite:///shop.db", master_key="shop.keys")
sent = []
auth.authority.hooks.mailed.append(sent.append)
created = []
@auth.on("account_created")
def welcome(event): created.append(event.subject)
@auth.on("session_started")
async def started(event): created.append(await auth.store.session(event.session_id) is not None)
authority = auth.authority
async def hello(request):
    principal = await auth.principal(request)
    return JSONResponse(principal and principal.subject)
async def count(request):
    return JSONResponse(len(await authority.sessions((await auth.principal(request)).subject)))
app = Starlette(routes=[Route("/hello", hello), Route("/count", count), Mount("/", auth.asgi())])
"""


def test_an_application_without_an_adapter_is_a_pair(project: pytest.Pytester) -> None:
    """`auth_app` may return the application and its `Auth`. What the application holds of it has the test's state, and
    its listeners are called.
    """
    project.makepyfile(
        shop=PAIR,
        test_shop="""
        import pytest, shop
        @pytest.fixture
        def auth_app(): return shop.app, shop.auth
        def test_it(auth_client, sign_in, outbox):
            ada = sign_in("ada@example.com")
            assert shop.created == [ada.get("/hello").json(), True]
            assert ada.get("/count").json() == 1
            assert ada.get("/auth/me").json()["user"]["email"] == "ada@example.com"
            auth_client.post("/auth/password/forgot", json={"email": "ada@example.com"})
            assert len(outbox) == 1 and shop.sent == [True]
        def test_nothing_is_left(auth_client):
            assert auth_client.get("/hello").json() is None
        """,
    )
    project.runpytest_inprocess("-q").assert_outcomes(passed=2)


BARE = {
    "asgi": """
from dutchdoor.asgi import Auth, current_principal
auth = Auth("sqlite:///shop.db")
async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    principal = await current_principal(scope)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": principal.subject.encode()})
app = auth.around(hello)
""",
    "wsgi": """
from dutchdoor.wsgi import Auth, current_principal
auth = Auth("sqlite:///shop.db")
def hello(environ, start_response):
    subject = current_principal(environ).subject
    start_response("200 OK", [])
    return [subject.encode()]
app = auth.around(hello)
""",
}


@pytest.mark.parametrize("kind", sorted(BARE))
def test_an_application_without_a_framework_has_a_client_too(project: pytest.Pytester, kind: str) -> None:
    """`auth.around(app)` is found, over ASGI by itself and over WSGI beside its `Auth`."""
    project.makepyfile(
        shop=BARE[kind],
        test_shop="""
        import pytest, shop
        @pytest.fixture
        def auth_app(): return (shop.app, shop.auth) if "wsgi" in shop.auth.__module__ else shop.app
        def test_it(auth_client, sign_in):
            assert auth_client.get("/").status_code == 401
            for mode in ("session", "hybrid"):
                assert sign_in("ada@example.com", mode=mode).get("/").status_code == 200
        """,
    )
    project.runpytest_inprocess("-q").assert_outcomes(passed=1)


OWN_USERS = """
from fastapi import Depends, FastAPI
from dutchdoor import ExternalUsers
from dutchdoor.fastapi import Auth
MEMBERS = {"7": ("ada", ("editor",))}
def authenticate(login, password): return "7" if (login, password) == ("ada", "right") else None
app = FastAPI()
users = ExternalUsers(authenticate=authenticate, load=MEMBERS.get, roles=lambda member: member[1])
auth = Auth(app, "sqlite:///shop.db", users=users)
@app.get("/hello", dependencies=[Depends(auth.require(role="editor"))])
async def hello(user = Depends(auth.current_user)): return {"hello": user[0]}
"""


def test_users_of_the_application_sign_in_by_their_id(project: pytest.Pytester) -> None:
    """With users of the application's own, `sign_in` takes an id of them, and says what is missing for any other."""
    project.makepyfile(
        shop=OWN_USERS,
        test_shop="""
        import pytest
        def test_it(auth_client, sign_in, make_account):
            assert sign_in("7").get("/hello").json() == {"hello": "ada"}
            answer = auth_client.post("/auth/login", json={"email": "ada", "password": "right", "mode": "session"})
            assert answer.status_code == 200 and auth_client.get("/hello").status_code == 200
            with pytest.raises(Exception, match="load` returned no user for 'ada@example.com'.*own table"):
                sign_in("ada@example.com")
            with pytest.raises(Exception, match="give the user the roles in your own table"):
                sign_in("7", roles=["admin"])
            with pytest.raises(Exception, match="Create the user there, and give the id"):
                make_account("7", password="x")
        """,
    )
    project.runpytest_inprocess("-q").assert_outcomes(passed=1)


DJANGO = """
import django
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import JsonResponse
from django.urls import include, path
settings.configure(
    SECRET_KEY="s" * 50, ROOT_URLCONF="shop", USE_TZ=True, ALLOWED_HOSTS=["testserver"],
    INSTALLED_APPS=[
        "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "dutchdoor.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware", "dutchdoor.django.middleware.DutchdoorMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DUTCHDOOR={"database": "sqlite:///shop.db"},
)
django.setup()
from django.core.wsgi import get_wsgi_application
from dutchdoor.django import auth
@login_required(login_url="/sign-in")
def hello(request): return JsonResponse({"hello": request.user.get_username()})
@auth.require(role="admin")
def admin(request): return JsonResponse({"staff": request.user.is_staff})
@auth.require(role="editor", fresh="10m")
def edit(request): return JsonResponse({})
ours = path("", include("dutchdoor.django.urls"))
urlpatterns = [ours, path("hello", hello), path("admin", admin), path("edit", edit)]
app = get_wsgi_application()
"""


@pytest.mark.long
def test_a_project_of_django_signs_in_its_own_users(project: pytest.Pytester) -> None:
    """In Django the accounts are Django's users, roles are groups, and the client is Django's test client."""
    project.makepyfile(
        shop=DJANGO,
        test_shop="""
        import os, pytest, shop
        from django.contrib.auth.models import User
        from django.core.management import call_command
        from django.test import Client
        @pytest.fixture(scope="module", autouse=True)
        def tables(): call_command("migrate", verbosity=0)
        def test_admin_page(auth_client, sign_in):
            assert auth_client.get("/admin").status_code == 401
            assert auth_client.get("/hello").status_code == 302
            assert sign_in("ada", roles=["admin"]).get("/admin").json() == {"staff": True}
            assert sign_in("bob@example.com", roles=["editor"]).get("/admin").status_code == 403
            assert User.objects.get(username="bob@example.com").email == "bob@example.com"
        def test_time_and_tokens(sign_in, clock, auth_client, tokens):
            bob = sign_in("bob", roles=["editor"], client=Client(enforce_csrf_checks=True))
            assert [bob.get("/hello").status_code, bob.post("/edit").status_code] == [200, 200]
            clock.advance("11m")
            assert [bob.get("/hello").status_code, bob.post("/edit").status_code] == [200, 401]
            assert sign_in("bob", mode="hybrid").get("/edit").status_code == 200
            for kind in ("expired", "forged", "foreign", "revoked", "stale"):
                token = getattr(tokens, kind)("bob")
                assert auth_client.get("/edit", headers={"authorization": f"Bearer {token}"}).status_code == 401, kind
        def test_nothing_is_left(auth_client):
            assert not os.path.exists("shop.db")
        """,
    )
    project.runpytest_subprocess("-q").assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("configuration", "shop", "says"),
    [
        ("", "", r'dutchdoor_app = "package.module:app", or write the fixture auth_app'),
        ("shop", "", r'names no application\. Write "package.module:app"'),
        ("shopp:app", "", r"there is no module shopp\. .*pythonpath"),
        ("shop:ap", "app = 1", r"the module shop has no ap\."),
        ("shop:make", "def make(): ...", r"make is a function and no application\. Write the fixture auth_app"),
        ("shop:app", "from fastapi import FastAPI\napp = FastAPI()", r"No Auth is attached .*auth = Auth\(app\)"),
        ("shop:app", "import no_such_package", r"ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_an_application_that_is_not_found_says_the_fix(
    pytester: pytest.Pytester, configuration: str, shop: str, says: str
) -> None:
    """Each way to name no application gets an error that says what to write."""
    pytester.makepyprojecttoml(f'[tool.pytest.ini_options]\ndutchdoor_app = "{configuration}"\npythonpath = ["."]\n')
    pytester.makepyfile(shop=shop, test_shop="def test_it(sign_in): ...")
    done = pytester.runpytest_inprocess("-q")
    done.assert_outcomes(errors=1)
    said = done.stdout.str()
    assert re.search(says, said, re.DOTALL), said
    assert "During handling" not in said
    assert "plugin.py" not in said or "no_such_package" in said  # no traceback through the package


def test_a_wrong_argument_says_the_fix(project: pytest.Pytester) -> None:
    """Roles as one word, an unknown mode, a client of an unknown kind and a wrong duration are refused by name."""
    project.makepyfile(
        shop=SHOPS["fastapi"],
        test_shop="""
        import pytest
        @pytest.mark.parametrize(("named", "says"), [
            ({"roles": "admin"}, r'roles=\\["admin"\\]'),
            ({"mode": "cookie"}, "none of session, hybrid, jwt"),
            ({"client": 5}, "clients of the type int.*sign_in.headers"),
        ])
        def test_sign_in(sign_in, named, says):
            with pytest.raises(Exception, match=says):
                sign_in("ada@example.com", **named)
        def test_others(clock, make_account):
            with pytest.raises(Exception, match="clock.advance must be a duration such as 90s"):
                clock.advance("soon")
            make_account("ada@example.com")
            with pytest.raises(Exception, match="has an account already"):
                make_account("ada@example.com", password="x")
        """,
    )
    project.runpytest_inprocess("-q").assert_outcomes(passed=4)


def test_the_server_of_a_run_is_real(pytester: pytest.Pytester) -> None:
    """`dutchdoor_server` is a process whose tokens a `Verifier` accepts. With a wrong option it says why it failed."""
    pytester.makepyfile(
        test_it="""
        import pytest
        from dutchdoor import Verifier
        @pytest.fixture(scope="session")
        def dutchdoor_server_options(): return ["--audience", "orders"]
        def test_it(dutchdoor_server):
            verify = Verifier(dutchdoor_server.url, audience="orders")
            try:
                assert verify(dutchdoor_server.token("ada@example.com", roles=["customer"])).roles == ("customer",)
            finally:
                verify.close()
        """,
        test_wrong="""
        import pytest
        @pytest.fixture(scope="session")
        def dutchdoor_server_options(): return ["--audiense", "orders"]
        def test_it(dutchdoor_server): ...
        """,
    )
    pytester.runpytest_inprocess("-q", "test_it.py").assert_outcomes(passed=1)
    wrong = pytester.runpytest_inprocess("-q", "test_wrong.py")
    wrong.assert_outcomes(errors=1)
    wrong.stdout.fnmatch_lines(["dutchdoor_server did not start: *", "*No such option*--audiense*"])


def test_a_run_without_the_fixtures_loads_nothing() -> None:
    """Every pytest run on the machine loads the plugin: it imports our errors and what names texts, no more."""
    code = (
        "import pytest, sys; before = set(sys.modules); import dutchdoor.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = ["dutchdoor", "dutchdoor.errors", "dutchdoor.testing", "dutchdoor.testing.plugin", "dutchdoor.texts"]
    assert loaded == ours
