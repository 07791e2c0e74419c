"""Against a server of its own process, as people run it: signing in over HTTP, checking here; and the examples."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from wsgiref.util import setup_testing_defaults

import pytest
from starlette.testclient import TestClient
from tests.ports import free_port
from tests.running import Run
from tests.server.running import clean_environment, command, running
from tests.verifier.standin import until

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, StaleClaims, Unavailable
from dutchdoor.model.ids import new_id
from dutchdoor.model.service_credentials import VerifierSecret

EXAMPLES = Path(__file__).parents[2] / "examples"
ADA = {"email": "ada@example.com", "password": "a door in two halves"}


def post(url: str, body: object = None, token: str = "", *, wait: int = 20) -> dict[str, Any]:
    content = json.dumps(body if body is not None else {}).encode()
    headers = {"Content-Type": "application/json", "Prefer": f"wait={wait}"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(url, content, headers), timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else {}


def signed_in(url: str, mode: str = "hybrid") -> dict[str, Any]:
    transport = {"transport": "body"} if mode == "hybrid" else {}
    return post(f"{url}/auth/login", {**ADA, "mode": mode, **transport})


LEASE = "3s"
"""What a command waits for when no verifier listens to it is a lease, and a test waits with it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server and its folder. Its issuer is its address on this machine."""
    folder = tmp_path_factory.mktemp("server")
    with running(folder, environment={"DUTCHDOOR_LEASE": LEASE}) as server:
        yield f"http://localhost:{server.port}", folder


@pytest.fixture
def url(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The server with an account that is new."""
    monkeypatch.setitem(ADA, "email", f"{new_id()}@example.com")
    post(f"{server[0]}/auth/register", ADA)
    return server[0]


@pytest.fixture
def shell(server: tuple[str, Path], run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command line in the server's folder."""
    monkeypatch.chdir(server[1])
    monkeypatch.setenv("DUTCHDOOR_LEASE", LEASE)

    def said(*arguments: str) -> str:
        done = run(*arguments)
        assert done.code == 0, done.err
        return done.out

    return said


def test_log_out_over_http_is_log_out_here(url: str) -> None:
    """When log-out answers that it is fenced, the access token is dead here, a session's and a stateless one."""
    with Verifier(url) as verifier:
        for mode in ("hybrid", "jwt", "hybrid"):
            token = signed_in(url, mode)["access_token"]
            assert verifier(token).roles == ()
            answer = post(f"{url}/auth/logout", token=token)
            assert answer["fenced"] is True
            with pytest.raises(InvalidToken):
                verifier(token)


def test_new_roles_are_a_refresh_away(url: str, shell: Callable[..., str]) -> None:
    """An administrator changes roles: the old token is stale, the session lives, and a refresh brings the new roles."""
    with Verifier(url) as verifier:
        tokens = signed_in(url)
        assert verifier(tokens["access_token"]).roles == ()
        shell("user", "role", ADA["email"], "editor")
        until(lambda: is_stale(verifier, tokens["access_token"]))
        fresh = post(f"{url}/auth/refresh", {"refresh_token": tokens["refresh_token"]})
        assert verifier(fresh["access_token"]).roles == ("editor",)


def is_stale(verifier: Verifier, token: str) -> bool:
    try:
        verifier(token)
    except StaleClaims:
        return True
    return False


def test_a_key_killed_on_the_command_line(url: str, shell: Callable[..., str]) -> None:
    """`dutchdoor key revoke`: what the key signed is refused, and what its successor signs is good."""
    with Verifier(url) as verifier:
        token = signed_in(url)["access_token"]
        assert verifier(token)
        keys = json.loads(shell("key", "list", "--json"))
        listed = keys["keys"] if isinstance(keys, dict) else keys
        (kid,) = [key["kid"] for key in listed if key["state"] == "signing"]
        shell("key", "revoke", kid, "--yes")
        with pytest.raises(InvalidToken):
            verifier(token)
        assert verifier(signed_in(url)["access_token"])


@contextmanager
def serving(folder: Path, port: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("serve", "--port", str(port)), cwd=folder, env=clean_environment(environment),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert str(port) in process.stdout.readline()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def test_a_server_killed_and_started_again(tmp_path: Path) -> None:
    """Killed with -9 while it is followed: what it ended stays ended, checks go on under the lease, and the next life
    is followed from where the last one was.
    """
    port = free_port()
    at = f"http://localhost:{port}"
    with Verifier(at, stale="refuse") as verifier:
        with serving(tmp_path, port, DUTCHDOOR_LEASE="60s") as process:
            post(f"{at}/auth/register", ADA)
            dead, token = signed_in(at)["access_token"], signed_in(at)["access_token"]
            until(lambda: accepted(verifier, dead))
            assert post(f"{at}/auth/logout", token=dead)["fenced"]
            process.kill()
            process.wait()
        assert verifier(token)
        with pytest.raises(InvalidToken):
            verifier(dead)
        with serving(tmp_path, port, DUTCHDOOR_LEASE="60s"):
            post(f"{at}/auth/logout", token=token, wait=0)  # the life before is waited for
            until(lambda: not accepted(verifier, token))
            until(lambda: accepted(verifier, signed_in(at)["access_token"]))
            with pytest.raises(InvalidToken):
                verifier(token)


def accepted(verifier: Verifier, token: str) -> bool:
    try:
        return bool(verifier(token))
    except (InvalidToken, Unavailable):
        return False


def test_a_verifier_with_a_key(url: str, shell: Callable[..., str]) -> None:
    """With a wrong key there is no lease and no answer about a token; with the right one there is; and none when it was
    removed.
    """
    token = signed_in(url)["access_token"]
    with Verifier(url, key=VerifierSecret.mint(new_id()).text()) as wrong, pytest.raises(Unavailable):
        wrong(token)
    key = next(word for word in shell("verifier", "add", "orders").split() if word.startswith("ddv1_"))
    with Verifier(url, key=key, stale="refuse") as verifier:
        assert verifier(token)
        assert verifier.state == "fresh"
        listed = shell("verifier", "list")
        assert "orders" in listed
        assert key not in listed
        shell("verifier", "remove", "orders", "--no-wait")
        until(lambda: not accepted(verifier, token))


# --- the examples -----------------------------------------------------------------------------------------------------


def test_the_fastapi_example(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service of its own follows the server, and refuses who has signed out."""
    monkeypatch.setenv("AUTHORITY", url)
    source = runpy.run_path(str(EXAMPLES / "verifier_fastapi.py"))
    with TestClient(source["app"]) as client:
        assert client.get("/hello").status_code == 401
        # Its audience is "api", and this server's is its own URL.
        token = signed_in(url)["access_token"]
        refused = client.get("/hello", headers={"Authorization": f"Bearer {token}"})
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


def test_both_examples_follow_a_log_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as they say: a server with `--audience api`, a token, hello, log-out, 401."""
    with running(tmp_path, "--audience", "api") as server:
        at = f"http://localhost:{server.port}"
        post(f"{at}/auth/register", ADA)
        monkeypatch.setenv("AUTHORITY", at)
        plain = runpy.run_path(str(EXAMPLES / "verifier_wsgi.py"))
        with TestClient(runpy.run_path(str(EXAMPLES / "verifier_fastapi.py"))["app"]) as client:
            signed = signed_in(at)
            token, subject = signed["access_token"], signed["user"]["id"]
            headers = {"Authorization": f"Bearer {token}"}
            assert client.get("/hello", headers=headers).json() == {"hello": subject, "roles": []}
            assert said_by(plain["app"], token)[0] == "200 OK"
            post(f"{at}/auth/logout", token=token)
            assert client.get("/hello", headers=headers).status_code == 401
            until(lambda: said_by(plain["app"], token)[0] == "401 Unauthorized")
            other = signed_in(at)["access_token"]
        plain["auth"].close()
        assert said_by(plain["app"], other)[0] == "503 Service Unavailable"
        assert said_by(plain["app"], "")[0] == "401 Unauthorized"


def said_by(app: Any, token: str) -> tuple[str, bytes]:
    environ: dict[str, Any] = {"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = b"".join(app(environ, lambda said, headers: status.append(said)))
    return status[0], body
