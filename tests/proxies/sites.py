"""A whole site on this machine: a proxy with TLS, a node of dutchdoor behind it, and an application that says what it
was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from tests.ports import free_port
from tests.proxies.programs import HOST, Place, proxy
from tests.server.certificates import write_certificate
from tests.server.running import eventually, running

ADA = {"email": "ada@example.com", "password": "a quiet heron at dusk"}
NAMES = ("x-auth-subject", "x-auth-session", "x-auth-roles", "x-auth-token")


class Seen(NamedTuple):
    """A request as it reached the application."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: int

    def said(self, name: str) -> list[str]:
        """Every value of a header, in each spelling that a program might read as this one."""
        return [value for key, value in self.headers if key.lower().replace("_", "-").strip() == name]


class Browser(httpx2.Client):
    """A client with cookies of its own. It comes again after a 503, as clients do: on a busy machine a database may
    take more than the second that it has, and Traefik sends no one to a node that was late once.
    """

    comes_again = True

    def request(self, *args: Any, **more: Any) -> httpx2.Response:
        until = time.monotonic() + 60
        while (answer := super().request(*args, **more)).status_code == 503 and self.comes_again:
            assert time.monotonic() < until, answer.text
            time.sleep(0.2)
        return answer


class Site:
    """A site that runs."""

    def __init__(self, place: Place, seen: list[Seen], environment: dict[str, str]) -> None:
        self.place, self.seen, self.environment = place, seen, environment
        self.origin = f"https://{HOST}:{place.tls}"
        self.issuer = self.origin + place.base
        self.app = "/" if place.base else "/app/"
        self.tls = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
        self.clients: list[Browser] = []

    def browser(self) -> Browser:
        """A browser that is closed with the site. It follows no redirect by itself."""
        client = Browser(base_url=self.origin, verify=self.tls, timeout=60)
        self.clients.append(client)
        return client

    def signed_in(self, mode: str = "session") -> tuple[Browser, dict[str, Any]]:
        """A browser that is signed in, by cookie or with a bearer token; and what the log-in answered."""
        client = self.browser()
        return client, self.sign_in(client, mode)

    def sign_in(self, client: httpx2.Client, mode: str = "session") -> dict[str, Any]:
        body = {**ADA, "mode": mode, **({"transport": "body"} if mode == "hybrid" else {})}
        answer = client.post(f"{self.place.base}/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        if mode != "session":
            client.headers["authorization"] = f"Bearer {said['access_token']}"
        return said

    def log_out(self, client: httpx2.Client, said: dict[str, Any], wait: int) -> dict[str, Any]:
        headers = {"x-csrf-token": said.get("csrf_token") or "", "prefer": f"wait={wait}"}
        answer = client.post(f"{self.place.base}/auth/logout", headers=headers)
        assert answer.status_code in {200, 202}, answer.text
        answered: dict[str, Any] = answer.json()
        return answered

    def raw(self, request: bytes) -> list[tuple[int, bytes]]:
        """Send bytes as they are, and give every answer that comes back until the proxy hangs up, or says no more."""
        with (
            socket.create_connection(("127.0.0.1", self.place.tls), 60) as plain,
            self.tls.wrap_socket(plain, server_hostname=HOST) as connection,
        ):
            connection.sendall(request)
            answers: list[tuple[int, bytes]] = []
            stream = connection.makefile("rb")
            with contextlib.suppress(OSError, http.client.HTTPException):
                while True:
                    answer = http.client.HTTPResponse(_Stream(stream))  # type: ignore[arg-type]
                    answer.begin()
                    answers.append((answer.status, answer.read()))
                    connection.settimeout(3)  # a proxy may wait for the rest of what is no whole request
            return answers


class _Stream:
    """What http.client takes for a socket. Its file stays open from one answer to the next."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def makefile(self, *_: object) -> Any:
        return _Unclosed(self._file)


class _Unclosed:
    def __init__(self, file: Any) -> None:
        self.read, self.readline, self.readinto, self.flush = file.read, file.readline, file.readinto, lambda: None

    def close(self) -> None: ...


def make_application(seen: list[Seen]) -> Starlette:
    """An application that says what it was sent, has a page to sign in, and echoes over WebSockets."""

    async def page(request: Request) -> Response:
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw]
        seen.append(Seen(request.method, request.url.path, headers, len(await request.body())))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"access-control-allow-origin": "*"})
        named = {name: request.headers.get(name) for name in NAMES}
        return JSONResponse({"page": request.url.path, "query": request.url.query, **named})

    async def talk(websocket: WebSocket) -> None:
        headers = [(name.decode(), value.decode("latin-1")) for name, value in websocket.headers.raw]
        seen.append(Seen("GET", websocket.url.path, headers, 0))
        await websocket.accept()
        await websocket.send_text(websocket.headers["x-auth-subject"])
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
    return Starlette(routes=[WebSocketRoute("/{path:path}", talk), Route("/{path:path}", page, methods=methods)])


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[int]:
    """Serve an application in a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield port
    finally:
        server.should_exit = True
        thread.join(20)


def _answers(client: httpx2.Client, path: str) -> bool:
    """Whether the proxy that listens knows its routes and its certificate."""
    try:
        return client.get(path).status_code == 401
    except httpx2.HTTPError:
        return False


@contextlib.contextmanager
def a_site(name: str, source: str, base: str = "", **settings: str) -> Iterator[Site]:
    """Run a site with one of the proxies until the block ends."""
    with tempfile.TemporaryDirectory(prefix="dutchdoor-") as folder:
        Path(folder).chmod(0o755)  # nginx started by root works as another user
        with _a_site(Path(folder), name, source, base, settings) as site:
            yield site


@contextlib.contextmanager
def _a_site(folder: Path, name: str, source: str, base: str, settings: dict[str, str]) -> Iterator[Site]:
    write_certificate(folder, HOST)
    (folder / "key.pem").chmod(0o600)
    with contextlib.ExitStack() as stack:
        seen: list[Seen] = []
        application = stack.enter_context(serving(make_application(seen)))
        tls, plain = free_port(), free_port()
        environment = {
            "DUTCHDOOR_PUBLIC_URL": f"https://{HOST}:{tls}",
            "DUTCHDOOR_PROXY": "127.0.0.1",
            "DUTCHDOOR_DATABASE": f"sqlite:///{folder}/door.db",
            "DUTCHDOOR_MASTER_KEY_FILE": str(folder / "keys"),
            "DUTCHDOOR_SIGN_IN_PAGE": "/login",
            **({"DUTCHDOOR_BASE_PATH": base} if base else {}),
            **settings,
        }
        node = stack.enter_context(running(folder, environment=environment))
        place = Place(folder, tls, plain, node.port, application, base)
        stack.enter_context(proxy(name, source, place))
        site = Site(place, seen, environment)
        client = site.browser()
        try:
            eventually(lambda: _answers(client, f"{base}/auth/me"))
            assert client.post(f"{base}/auth/register", json=ADA).status_code == 201
            yield site
        finally:
            for each in site.clients:
                each.close()
