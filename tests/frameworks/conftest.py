"""Each framework's application in a real server process: uvicorn, or gunicorn with threads that has loaded the
application before it forks.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.ports import free_port
from tests.running import running_server

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client

APPS = Path(__file__).parent / "apps"
ASYNC = ("fastapi", "starlette", "litestar", "asgi", "djangoasync")
SYNC = ("flask", "wsgi", "django")
OF_DJANGO = ("django", "djangoasync")
STARTS_WITHIN = 60.0
PASSWORD = "a door in two halves"


class App:
    """A running application, and its database."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name, self.url, self.folder = name, url, folder
        self.numbers = iter(range(1, 1000))
        self.clients: list[httpx2.Client] = []

    @property
    def streams(self) -> bool:
        """Whether it serves WebSockets."""
        return self.name in ASYNC and not self.is_django

    @property
    def is_django(self) -> bool:
        """Whether users are Django's own, and views have Django's check for other sites."""
        return self.name in OF_DJANGO

    def browser(self) -> httpx2.Client:
        """A client with cookies of its own, closed after the test."""
        client = httpx2.Client(base_url=self.url, headers={"user-agent": "Firefox"}, timeout=60)
        self.clients.append(client)
        return client

    def someone(self) -> dict[str, str]:
        """An account of its own, registered."""
        who = {"email": f"someone{next(self.numbers)}@example.com", "password": PASSWORD}
        assert self.browser().post("/auth/register", json=who).status_code == 201
        return who

    def engine(self) -> Auth:
        """The same database, from outside."""
        return Auth(
            f"sqlite:///{self.folder}/app.db",
            master_key=self.folder / "dutchdoor.keys",
            hasher=PasswordHasher(CHEAPEST),
        )

    async def make_admin(self, subject: str) -> None:
        """Give an account the role `admin`."""
        if self.is_django:  # whose groups are the roles
            assert self.browser().get("/promote", params={"id": subject, "role": "admin"}).status_code == 200
            return
        async with self.engine() as engine:
            await engine.directory.admin.set_roles(subject, ["admin"], client=Client(), actor="a test")


@contextlib.contextmanager
def serving(name: str, folder: Path, *, issuer: str = "", base_path: str = "") -> Iterator[App]:
    """Serve one of the applications until the block ends. With an `issuer` it only verifies."""
    port = free_port()
    target = f"{name}_app:app"
    settings = {"ISSUER": issuer} if issuer else {"DATABASE": f"sqlite:///{folder}/app.db", "BASE_PATH": base_path}
    if name in ASYNC:
        program = ["uvicorn", target, "--port", str(port), "--timeout-graceful-shutdown", "2"]
    else:
        program = ["gunicorn", target, "--bind", f"127.0.0.1:{port}", "--threads", "4", "--workers", "2", "--preload"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *program],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(APPS), **settings},
            stdout=log,
            stderr=log,
        )
    app = App(name, f"http://localhost:{port}", folder)
    try:
        until = time.monotonic() + STARTS_WITHIN
        while True:
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(app.url)
                break
            assert process.poll() is None and time.monotonic() < until, (folder / "server.log").read_text()
            time.sleep(0.05)
        yield app
    finally:
        process.terminate()
        process.wait(60)
    said = (folder / "server.log").read_text()
    assert not re.search(r"Traceback|Exception|never awaited", said), said


LONG = {"starlette", "litestar", "asgi", "wsgi", "djangoasync"}
"""What a short run leaves out: it has an asynchronous framework, and both of threads."""


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], App]]:
    """Applications by their names. Each is started when a test asks for it first, and serves all files that take it as
    it is: a start costs a second of a processor.
    """
    with contextlib.ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(serving(name, tmp_path_factory.mktemp(name))))


def among(*names: str) -> Any:
    """The parameters of a fixture that is one application after the other."""
    return [pytest.param(name, marks=pytest.mark.long if name in LONG else []) for name in names]


@pytest.fixture(scope="module", params=among(*ASYNC, *SYNC))
def served(request: pytest.FixtureRequest, running: Callable[[str], App]) -> App:
    return running(request.param)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server that signs the tokens for services that only verify."""
    with running_server(tmp_path_factory.mktemp("server"), "--audience", "api") as port:
        yield f"http://localhost:{port}"


@pytest.fixture(scope="session")
def verifying(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], App]]:
    """Services of that server by their names, likewise started when a test asks for them first. None ends before the
    others: a log-out would wait until the lease of one that is gone has run out.
    """
    with contextlib.ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(serving(name, tmp_path_factory.mktemp(name), issuer=server)))


@pytest.fixture(scope="module", params=among(*ASYNC, *SYNC))
def service(request: pytest.FixtureRequest, verifying: Callable[[str], App]) -> App:
    return verifying(request.param)


@pytest.fixture
def app(served: App) -> Iterator[App]:
    yield served
    while served.clients:
        served.clients.pop().close()


def signed_in(app: App, who: dict[str, str], **body: Any) -> tuple[httpx2.Client, dict[str, Any]]:
    """A client that signed in, and what the answer said."""
    client = app.browser()
    answer = client.post("/auth/login", json={**who, "mode": "session", **body})
    assert answer.status_code == 200, answer.text
    return client, answer.json()
