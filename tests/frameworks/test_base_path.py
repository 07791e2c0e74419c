"""An API below a path of the application's choice, and at a port that no setting names."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from tests.frameworks.conftest import ASYNC, PASSWORD, SYNC, App, among, serving
from tests.running import running_server

from dutchdoor import Verifier
from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Misconfigured

WHO = {"email": "ada@example.com", "password": PASSWORD}


@pytest.fixture(scope="module", params=among(*ASYNC, *SYNC))
def below(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with serving(request.param, tmp_path_factory.mktemp(request.param), base_path="/a/id") as running:
        yield running


def assert_pages_are_below(client: httpx2.Client) -> None:
    change = client.get("/a/id/.well-known/change-password")
    assert change.headers["location"] == "/a/id/auth/account#password"
    page = client.get("/a/id/auth/reset")
    linked = set(re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text)) - {"/a/id/"}
    assert linked and all(each.startswith("/a/id/") for each in linked)
    for file in linked - {"/a/id/auth/password/reset"}:
        assert client.get(file).status_code in {200, 303}, file


async def test_all_of_it_is_below_the_base_path(below: App) -> None:
    """Log-in, cookie, mail, keys, metadata, pages and their files: everything is below the base path, the issuer ends
    with it, and a verifier follows it there.
    """
    with httpx2.Client(base_url=below.url) as client:
        assert client.post("/a/id/auth/register", json=WHO).status_code == 201
        assert client.post("/a/id/auth/login", json=WHO).status_code == 200
        assert client.get("/hello").json()["email"] == WHO["email"]
        metadata = client.get("/a/id/.well-known/oauth-authorization-server").json()
        assert metadata["issuer"] == f"{below.url}/a/id"
        assert client.get(metadata["jwks_uri"]).json()["keys"]
        if not below.is_django:  # whose passwords are changed on its own pages
            assert_pages_are_below(client)
        tokens = client.post("/a/id/auth/login", json={**WHO, "mode": "hybrid"}, headers={"cookie": ""}).json()
    async with Verifier(metadata["issuer"]) as verifier:
        assert (await verifier.check(tokens["access_token"])).email is None
        until = time.monotonic() + 60
        while verifier.state != "fresh":  # on a busy machine an answer may be late
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "path", ["/auth/me", "/a/auth/me", "/a/idauth/me", "/a/id", "/a/id/", "/.well-known/jwks.json"]
)
def test_what_is_outside_stays_the_applications(below: App, path: str) -> None:
    """Outside the base path, the application answers: here with a 404 of its own."""
    answer = httpx2.get(below.url + path)
    assert answer.status_code == 404
    assert "x-request-id" not in answer.headers


def test_the_port_is_found(tmp_path: Path) -> None:
    """Without a setting, the issuer and the links in mail have the port that the application is at."""
    with serving("fastapi", tmp_path) as app, httpx2.Client(base_url=app.url) as client:
        assert client.post("/auth/register", json=WHO).status_code == 201
        found = client.get("/.well-known/oauth-authorization-server").json()["issuer"]
        assert found == app.url
        client.post("/auth/password/forgot", json={"email": WHO["email"]})
    said = (tmp_path / "server.log").read_text()  # all mail was sent before it ended
    assert f"{app.url}/auth/reset#" in said and ":8000" not in said


@pytest.mark.parametrize("server", ["uvicorn", "mount"])
def test_a_mounted_application_counts_its_mount(server: str) -> None:
    """A base path is what browsers see. It includes what the application is mounted at, whether the server repeats that
    in the path or not.
    """
    auth = Auth("memory:", base_path="/api/id", hasher=PasswordHasher(CHEAPEST))
    if server == "mount":
        client = TestClient(Starlette(routes=[Mount("/api", app=auth.asgi())]))
        asked = "/api/id/livez"
    else:
        client = TestClient(auth.asgi(), root_path="/api")
        asked = "/id/livez"
    with client:
        assert client.get(asked).text == "alive\n"


def test_a_server_has_one_too(tmp_path: Path) -> None:
    """`dutchdoor serve --base-path` serves everything below it, and answers monitoring at the root besides."""
    with running_server(tmp_path, "--base-path", "/id") as port:
        url = f"http://localhost:{port}"
        assert httpx2.get(f"{url}/id/.well-known/oauth-authorization-server").json()["issuer"] == f"{url}/id"
        assert httpx2.get(f"{url}/readyz").status_code == httpx2.get(f"{url}/id/readyz").status_code == 200
        assert httpx2.get(f"{url}/auth/me").status_code == 404


@pytest.mark.parametrize("wrong", ["id", "/a//b", "/../x", "/%2e", "/a?b", "/a b", "https://example.com/id"])
def test_a_wrong_base_path_is_refused(wrong: str) -> None:
    """A base path that could be spelled in two ways is refused, with an example of one that is right."""
    with pytest.raises(Misconfigured, match=r"is not a path\. Use one such as /id"):
        Auth("memory:", base_path=wrong)
