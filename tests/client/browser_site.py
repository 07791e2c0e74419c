"""A real server for the browser client, with a clock of ours, and pages of other origins beside it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import httpx2
import pyotp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from tests.standins import Clock

from dutchdoor import Auth, DutchdoorError
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import Policy
from dutchdoor.web.problems import problem

PASSWORD = "a door in two halves"
ADA = {"email": "ada@example.com", "password": PASSWORD}

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


@contextlib.contextmanager
def serving(application: Any, *, port: int = 0, **tls: Any) -> Iterator[int]:
    """Serve an application of this process over HTTP, and give its port."""
    server = uvicorn.Server(
        uvicorn.Config(application, interface="asgi3", port=port, log_level="error", timeout_graceful_shutdown=1, **tls)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


class Elsewhere:
    """A page of another origin, and an API there that any page may call. It keeps the headers that it was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, str]] = []

        async def api(request: Request) -> Response:
            if request.method != "OPTIONS":
                self.sent.append(dict(request.headers))
            allowed = {
                "access-control-allow-origin": "*",
                "access-control-allow-headers": "authorization, x-csrf-token",
            }
            return JSONResponse({"there": True}, headers=allowed)

        self.application = Starlette(
            routes=[Route("/", page), Route("/api", api, methods=["GET", "POST", "OPTIONS"])],
        )


async def page(_request: Request) -> Response:
    return HTMLResponse("<!doctype html><title>A page</title><link rel=icon href=data:,>")


class Site:
    """An application with its server. `counted` counts requests by method and path, and `broken` answers 503."""

    def __init__(self, *, origins: list[str]) -> None:
        self.clock = Clock(time.time())
        self.codes: list[str] = []
        self.auth = Auth(
            "memory:",
            clock=self.clock,
            origins=origins,
            hasher=PasswordHasher(CHEAPEST),
            product="The shop",
            policy=Policy(sign_in_by_mail=True),
            deliver_code=lambda _account, code: self.codes.append(code),
        )
        self.counted: Counter[str] = Counter()
        self.broken = False
        self.url = ""

        async def api(request: Request) -> Response:
            try:
                principal = await self.auth.principal(request)
            except DutchdoorError as error:
                refused = problem(error)
                headers = {name.decode(): value.decode() for name, value in refused.headers}
                return Response(refused.body, refused.status, headers)
            if principal is None:
                return JSONResponse({"code": "not_authenticated"}, 401)
            proof = "bearer" if "authorization" in request.headers else "cookie"
            said = {"subject": principal.subject, "roles": principal.roles, "by": proof}
            return JSONResponse({**said, "body": (await request.body()).decode()})

        async def roles(request: Request) -> Response:
            given = await request.json()
            change = self.auth.directory.admin.set_roles
            await change(given["subject"], given["roles"], actor="system", client=Client())
            return JSONResponse({})

        routes = [
            Route("/page", page),
            Route("/api", api, methods=["GET", "POST"]),
            Route("/roles", roles, methods=["POST"]),
            Mount("/", self.auth.asgi()),
        ]
        self.inner = Starlette(routes=routes)

    async def application(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.counted[f"{scope['method']} {scope['path']}"] += 1
            if self.broken and scope["path"].startswith("/auth/") and "client" not in scope["path"]:
                await JSONResponse({"code": "unavailable", "detail": "Try later."}, 503)(scope, receive, send)
                return
        await self.inner(scope, receive, send)

    def protect(self, person: dict[str, str]) -> list[str]:
        """Register a person who has an authenticator app, and return the recovery codes."""
        with httpx2.Client(base_url=self.url) as client:
            assert client.post("/auth/register", json=person).status_code == 201
            tokens = client.post("/auth/login", json={**person, "mode": "hybrid", "transport": "body"}).json()
            client.headers["authorization"] = f"Bearer {tokens['access_token']}"
            given = client.post("/auth/factors/totp/enrol").json()
            shown = {"token": given["token"], "code": pyotp.TOTP(given["secret"]).at(int(self.clock()))}
            return list(client.post("/auth/factors/totp/confirm", json=shown).json()["recovery_codes"])

    def register(self) -> None:
        answer = httpx2.post(f"{self.url}/auth/register", json=ADA)
        assert answer.status_code == 201, answer.text
