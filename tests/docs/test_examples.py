"""Every example runs as it stands."""

from __future__ import annotations

import contextlib
import os
import runpy
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from litestar.testing import TestClient as LitestarClient
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
ADA = {"email": "ada@example.com", "password": "a door in two halves"}


def test_the_index_has_every_example() -> None:
    """Who looks for an example finds it in `examples/README.md`."""
    index = (EXAMPLES / "README.md").read_text()
    found = {path.name for path in (*EXAMPLES.iterdir(), *(EXAMPLES / "browser").iterdir())}
    assert (
        sorted(
            name
            for name in found - {"README.md", "browser", "__pycache__"}
            if f"{name}`]" not in index.replace("/`", "`")
        )
        == []
    )


@pytest.mark.parametrize(
    ("name", "serve"), [("fastapi", TestClient), ("starlette", TestClient), ("litestar", LitestarClient)]
)
def test_an_asgi_example_signs_in_and_refuses(
    name: str, serve: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application signs people in, greets them, and refuses who may not order, with the framework's own client."""
    monkeypatch.chdir(tmp_path)
    app = runpy.run_path(str(EXAMPLES / f"{name}_app.py"))["app"]
    with serve(app) as client:
        assert client.get("/").json() == {"hello": "stranger"}
        assert client.get("/hello").status_code == 401
        assert client.post("/auth/register", json=ADA).status_code == 201
        csrf = client.post("/auth/login", json={**ADA, "mode": "session"}).json()["csrf_token"]
        assert client.get("/").json() == {"hello": "ada@example.com"}
        assert client.get("/hello").json() == {"hello": "ada@example.com"}
        assert client.post("/orders").json()["code"] == "csrf_token"
        assert client.post("/orders", headers={"X-CSRF-Token": csrf}).json()["code"] == "forbidden"
        assert client.post("/auth/logout", headers={"X-CSRF-Token": csrf}).status_code == 200
        assert client.get("/hello").status_code == 401


def test_the_flask_example_signs_in_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application signs people in, greets them, and refuses who may not order, with Flask's own client."""
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(EXAMPLES / "flask_app.py"))
    client = found["app"].test_client()
    assert client.get("/").json == {"hello": "stranger"}
    assert client.get("/hello").status_code == 401
    assert client.post("/auth/register", json=ADA).status_code == 201
    csrf = client.post("/auth/login", json={**ADA, "mode": "session"}).json["csrf_token"]
    assert client.get("/hello").json == {"hello": "ada@example.com"}
    assert client.post("/orders").get_json(force=True)["code"] == "csrf_token"
    assert client.post("/orders", headers={"X-CSRF-Token": csrf}).get_json(force=True)["code"] == "forbidden"
    assert client.post("/auth/logout", headers={"X-CSRF-Token": csrf}).status_code == 200
    assert client.get("/hello").status_code == 401
    found["auth"].close()


@pytest.mark.long
def test_the_django_example_signs_in_and_refuses(tmp_path: Path) -> None:
    """The commands of its text create a user, who signs in over HTTP, is greeted, and may not order."""
    program, port = [sys.executable, str(EXAMPLES / "django_app.py")], free_port()
    variables = {**os.environ, "DJANGO_SUPERUSER_PASSWORD": ADA["password"]}
    user = ["createsuperuser", "--noinput", "--username", "ada", "--email", ADA["email"]]
    for arguments in (["migrate"], user):
        subprocess.run([*program, *arguments], cwd=tmp_path, env=variables, check=True, capture_output=True)
    serve = [*program, "runserver", str(port), "--noreload"]
    server = subprocess.Popen(serve, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx2.Client(base_url=f"http://localhost:{port}") as client:
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    assert client.get("/hello").status_code == 401
                    break
                assert server.poll() is None and time.monotonic() < until
                time.sleep(0.05)
            ada = {"email": "ada", "password": ADA["password"], "mode": "session"}
            csrf = client.post("/auth/login", json=ada).json()["csrf_token"]
            assert client.get("/hello").json() == {"hello": "ada"}
            assert client.post("/orders").status_code == 403
            assert client.post("/orders", headers={"X-CSRF-Token": csrf}).json()["code"] == "forbidden"
            assert client.post("/auth/logout", headers={"X-CSRF-Token": csrf}).status_code == 200
            assert client.get("/hello").status_code == 401
    finally:
        server.terminate()
        server.wait(20)


def test_the_example_with_terms_of_use_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser is led to the terms after the password, is signed in once it accepted them, and is not asked again."""
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(EXAMPLES / "terms_app.py"))
    browser = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    with TestClient(found["app"], headers=browser) as client:
        assert client.post("/auth/register", data={**ADA, "next": "/hello"}).url.path == "/terms"
        page = client.post("/auth/login", data={**ADA, "next": "/hello"})
        assert page.url.path == "/terms" and "Hello ada@example.com" in page.text
        assert client.get("/hello").status_code == 401 or client.get("/hello").url.path == "/auth/login"
        terms = {"method": "terms", "next": "/hello", "response": "an older version"}
        assert client.post("/auth/login/step", data=terms).url.query == b"next=%2Fhello&refused=1"
        done = client.post("/auth/login/step", data={**terms, "response": found["VERSION"]})
        assert done.json() == {"hello": "ada@example.com"}
        client.cookies.clear()
        assert client.post("/auth/login", data={**ADA, "next": "/hello"}).json() == {"hello": "ada@example.com"}


def test_an_application_with_passkeys_and_google_has_15_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sign-in page offers both, beside the password, and both begin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOOGLE_ID", "ours")
    monkeypatch.setenv("GOOGLE_SECRET", "a secret of ours")
    example = EXAMPLES / "passkeys_app.py"
    assert 5 < code_lines(example) <= 15
    with TestClient(runpy.run_path(str(example))["app"]) as client:
        page = client.get("/auth/login", headers={"accept": "text/html"}).text
        assert "Google" in page and "passkey" in page and 'type="password"' in page
        assert client.get("/auth/issuers").json()["issuers"][0]["name"] == "google"
        options = client.post("/auth/passkeys/login/options").json()["publicKey"]
        assert options["challenge"] and options["userVerification"] == "required"


def test_the_example_with_users_of_its_own_signs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of the application's own table signs in, and the route gets the member."""
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(EXAMPLES / "own_users_app.py"))
    hashed = found["hasher"].hash("a door in two halves")
    found["row"]("INSERT INTO members (login, hash) VALUES (?, ?)", "ada", hashed)
    with TestClient(found["app"]) as client:
        assert client.get("/hello").status_code == 401
        assert client.post("/auth/login", json={"email": "bob", "password": "wrong"}).status_code == 401
        ada = {"email": "ada", "password": "a door in two halves", "mode": "session"}
        assert client.post("/auth/login", json=ada).json()["user"]["id"] == "1"
        assert client.get("/hello").json() == {"hello": "ada"}
        assert client.post("/auth/register", json=ADA).status_code == 404


def test_the_example_with_a_table_of_its_own_has_a_route_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user registers in the application's table, and has the role of the row; the socket knows who talks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "own_table", found := types.ModuleType("own_table"))  # where SQLAlchemy looks
    exec(compile((EXAMPLES / "fastapi_own_table.py").read_text(), "fastapi_own_table.py", "exec"), found.__dict__)
    page = {"Origin": "http://testserver"}  # the handshake of a browser
    with TestClient(found.app) as client:
        assert client.get("/").json() == {"hello": "stranger"}
        assert client.get("/drafts").status_code == 401
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/echo", headers=page):
            pass
        assert refused.value.code == 4401
        assert client.post("/users", json=ADA).status_code == 201
        assert client.post("/users", json=ADA).status_code == 409
        assert client.post("/users", json={**ADA, "password": "x" * 1025}).json()["code"] == "invalid_input"
        assert client.post("/auth/login", json=ADA).status_code == 200
        assert client.get("/").json() == client.get("/hello").json() == {"hello": "ada@example.com"}
        assert client.get("/drafts").status_code == 403
        with found.session.begin() as database:
            database.get(found.User, 1).is_editor = True
        assert client.get("/hello").status_code == 200  # reads the row, and with it the role
        assert client.get("/drafts").json() == {"drafts_of": "ada@example.com"}
        with client.websocket_connect("/echo", headers=page) as socket:
            socket.send_text("hi")
            assert socket.receive_text() == "ada@example.com: hi"
    found.engine.dispose()


def code_lines(example: Path) -> int:
    """Count the lines of an example that are not empty, its text of instructions aside."""
    code = example.read_text().partition('"""\n\nfrom')[2]
    return len([line for line in code.splitlines() if line.strip()])


def test_the_example_with_a_table_of_its_own_is_short() -> None:
    """Its own table, registration, open, signed-in and role routes and a WebSocket are under 60 lines."""
    assert 30 < code_lines(EXAMPLES / "fastapi_own_table.py") < 60


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*_app.py")), ids=lambda path: path.stem)
def test_an_example_is_short(example: Path) -> None:
    """An application with accounts, a guard and a role is under 40 lines, its text of instructions aside."""
    assert 0 < code_lines(example) < 40
