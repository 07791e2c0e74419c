"""An application over TLS whose sign-ins are bound to the device, and a Chromium that binds them.

Chromium binds over a connection without certificate errors alone, localhost included. So the certificate is made for
the run, and the browser is set to take its key. The key of the device is one in software, behind two flags.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse, StreamingResponse
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page
from starlette.responses import Response
from tests.client.browser_site import serving
from tests.pages.house import PASSWORD, Outage
from tests.ports import free_port
from tests.standins import MASTER, Clock, Mailbox, endless

from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.fastapi import Auth, CurrentPrincipal, CurrentUser
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.rate_limits import Limits
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.web.device_binding import OFFER

HOST, SIBLING, STRANGER = "auth.example.test", "blog.example.test", "evil.test"
ADA = {"email": "ada@example.com", "password": PASSWORD}
REGISTER, REFRESH = "/auth/device-binding", "/auth/device-binding/refresh"
LONG, BOUND, RENEWS = "__Host-dd_session", "__Host-dd_bound", "__Host-dd_refresh"
SOFTWARE_KEYS = "EnableBoundSessionCredentialsSoftwareKeysForManualTesting"
WAITS = 60.0


def flags(certificate: Path, *, quota: bool = False) -> list[str]:
    """What a Chromium is started with. `quota`: whether it signs six times in nine minutes at most, as people's do."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    key_info = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(key_info).digest()).decode()
    return [
        *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        "--host-resolver-rules=MAP *.test 127.0.0.1",
        f"--ignore-certificate-errors-spki-list={pin}",
        f"--enable-features=DeviceBoundSessions{'' if quota else ':RefreshQuota/false'},{SOFTWARE_KEYS}",
    ]


def needs_bound_sessions(browser: Browser, folder: Path) -> None:
    """Skip where the browser binds nothing: a plain server, on which nothing of ours runs, offers to in vain."""
    came = threading.Event()

    class Offers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("secure-session-registration", '(ES256);path="/register";challenge="x"')
            self.send_header("content-length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            came.set()
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Offers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    try:
        page.goto(f"https://probe.test:{server.server_address[1]}/")
        if not came.wait(30):
            pytest.skip(f"Chromium {browser.version} binds no sessions: Debian's package has it, a headless shell not")
    finally:
        page.close()
        server.shutdown()
        server.server_close()


class Seen(NamedTuple):
    """A request as it reached the server, and the answer."""

    method: str
    path: str
    cookies: frozenset[str]
    proved: bool
    site: str
    skipped: str
    status: int
    binds: bool
    """Whether the answer sets a bound cookie."""
    offers: bool
    """Whether the answer asks the browser to register a key."""


class BoundSite:
    """An application that embeds the engine, with a clock of ours. It says what reached it, and fails when asked to."""

    def __init__(self, folder: Path, *, policy: Policy = STANDARD, base: str = "", **more: Any) -> None:
        self.folder, self.base, self.port = folder, base, free_port()
        self.url = f"https://{HOST}:{self.port}"
        self.clock, self.mailbox = Clock(time.time()), Mailbox()
        self.store = Outage(SqliteStore(folder / "bound.db"))
        self.seen: list[Seen] = []
        self.loses: dict[str, Literal["all", "body"]] = {}
        """What is lost of the answer of a path, after the server has done its work."""
        self.loop: asyncio.AbstractEventLoop | None = None
        app = FastAPI()
        self.auth = Auth(
            app,
            self.store,  # type: ignore[arg-type]
            master_key=MASTER,
            public_url=self.url,
            base_path=base,
            policy=policy,
            limits=endless(Limits()),
            hasher=PasswordHasher(CHEAPEST),
            mail=self.mailbox,
            clock=self.clock,
            **more,
        )
        self._routes(app)
        self._app = app

    def _routes(self, app: FastAPI) -> None:
        icon = '<link rel=icon href="data:,"><meta charset=utf-8>'

        @app.get("/plain")
        async def plain() -> HTMLResponse:
            return HTMLResponse(f"{icon}<title>plain</title>")

        @app.get("/orders")
        async def orders(user: CurrentUser) -> dict[str, str]:
            return {"of": user.email}

        @app.get("/whole")
        async def whole(principal: CurrentPrincipal) -> HTMLResponse:
            return HTMLResponse(f"{icon}<title>whole</title><p>{principal.subject}")

        @app.get("/stream")
        async def stream(principal: CurrentPrincipal) -> StreamingResponse:
            return StreamingResponse(iter([f"data: {principal.subject}\n\n"]), media_type="text/event-stream")

        @app.get("/worker.js")
        async def worker() -> Response:
            passes_on = """addEventListener("install", () => skipWaiting())
addEventListener("activate", event => event.waitUntil(clients.claim()))
addEventListener("fetch", event => event.respondWith(fetch(event.request)))"""
            return Response(passes_on, media_type="text/javascript")

        @app.websocket("/talk")
        async def talk(socket: WebSocket, principal: CurrentPrincipal) -> None:
            await socket.accept()
            await socket.send_text(principal.subject)
            await socket.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self.loop = asyncio.get_running_loop()
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        names = frozenset(each.partition("=")[0].strip() for each in headers.get("cookie", "").split(";") if each)

        seen = self.seen  # of the test that the request belongs to, even if that ends before the answer

        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.append(
                    Seen(
                        scope["method"], scope["path"], names, "secure-session-response" in headers,
                        headers.get("sec-fetch-site", ""), headers.get("secure-session-skipped", "").partition(";")[0],
                        message["status"],
                        any(name == b"set-cookie" and value.startswith(BOUND.encode() + b"=")
                            for name, value in message["headers"]),
                        OFFER in dict(message["headers"]),
                    )
                )  # fmt: skip
            lost = self.loses.get(scope["path"])
            if lost == "all" or (lost and message["type"] != "http.response.start"):
                raise ConnectionError("the answer is lost")
            await send(message)

        await self._app(scope, receive, noted)

    def http(self) -> httpx2.Client:
        """A program without DBSC, such as a thief's."""
        headers = {"host": f"{HOST}:{self.port}"}
        return httpx2.Client(base_url=f"https://127.0.0.1:{self.port}", headers=headers, verify=False, timeout=60)

    def thief(self, path: str, cookies: dict[str, str], method: str = "GET", **headers: str) -> int | str:
        """Send a request with copied cookies from another machine. Gives its status, or the code of its refusal."""
        line = "; ".join(f"{name}={value}" for name, value in cookies.items())
        with self.http() as client:
            answer = client.request(method, path, headers={"cookie": line, "origin": self.url, **headers})
        return answer.status_code if answer.is_success else str(answer.json()["code"])

    def register(self, email: str = ADA["email"]) -> None:
        with self.http() as client:
            answer = client.post(f"{self.base}/auth/register", json={"email": email, "password": PASSWORD})
            assert answer.status_code == 201, answer.text

    def count(self, path: str, status: int, *, since: int = 0) -> int:
        return sum(each.path == path and each.status == status for each in self.seen[since:])

    def wait_for(self, path: str, status: int, times: int = 1, *, since: int = 0) -> None:
        """Wait for an answer to what the browser does beside the page."""
        until = time.monotonic() + WAITS
        while self.count(path, status, since=since) < times:
            assert time.monotonic() < until, f"no {status} for {path}: {self.shown(since)}"
            time.sleep(0.01)

    def shown(self, since: int = 0) -> list[str]:
        return [
            f"{each.method} {each.path} {each.status}{' proved' if each.proved else ''}" for each in self.seen[since:]
        ]

    def do(self, work: Any) -> Any:
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def events(self) -> Counter[str]:
        return Counter(event.name for event in self.do(self.store.events(limit=500)))


@contextlib.contextmanager
def bound_site(folder: Path, **more: Any) -> Iterator[BoundSite]:
    """Serve it over TLS, with the certificate in the folder."""
    site = BoundSite(folder, **more)
    with serving(site, port=site.port, ssl_certfile=folder / "cert.pem", ssl_keyfile=str(folder / "key.pem")):
        yield site


class Person:
    """A person at a browser of their own, on a page of the site."""

    def __init__(self, site: BoundSite, context: BrowserContext) -> None:
        self.site, self.context = site, context
        context.set_default_timeout(WAITS * 1000)
        self.page: Page = context.pages[0] if context.pages else context.new_page()
        self.devtools: CDPSession = context.new_cdp_session(self.page)
        self.said: list[dict[str, Any]] = []
        self.began = len(site.seen)
        self.devtools.on("Network.deviceBoundSessionEventOccurred", self._hear)
        self.devtools.send("Network.enable")
        with contextlib.suppress(Exception):  # an older one does not say what it does
            self.devtools.send("Network.enableDeviceBoundSessions", {"enable": True})

    def _hear(self, event: dict[str, Any]) -> None:
        self.said.append(event)

    def opens(self, path: str = "/plain") -> None:
        self.page.goto(self.site.url + path)

    def fetch(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any]:
        got = self.page.evaluate(
            """async ([path, method, body, headers]) => {
                if (body !== null) headers["content-type"] = "application/json";
                const sent = { method, headers, body: body === null ? undefined : JSON.stringify(body) };
                const answer = await fetch(path, sent), text = await answer.text();
                let said = text; try { said = JSON.parse(text) } catch {}
                return [answer.status, said];
            }""",
            [path, method, body, headers],
        )
        return got[0], got[1]

    def at_once(self, path: str, times: int) -> list[int]:
        """Fetch a path many times at once."""
        return list(
            self.page.evaluate(
                "([path, n]) => Promise.all([...Array(n)].map(() => fetch(path).then(answer => answer.status)))",
                [path, times],
            )
        )

    def signs_in(self, *, registers: bool = True, **more: Any) -> dict[str, Any]:
        """Sign in by a script of the page, and wait until the browser has registered its key."""
        before = self.asked()
        status, said = self.fetch(f"{self.site.base}/auth/login", "POST", {**ADA, "mode": "session", **more})
        assert status == 200, said
        assert self.asked() == before + 1
        if registers:
            self.wait_until_bound()
        return dict(said)

    def wait_until_bound(self) -> None:
        """Wait until the browser has registered a key wherever it was asked to, and holds the bound cookie."""
        self.has_registered()
        assert BOUND in self.cookies(), f"no bound cookie: {self.site.shown()} {self.said}"

    def has_registered(self) -> None:
        """Wait until the browser has tried to register a key for each answer that asked for one. It keeps the cookie
        before it knows the session: a request in between would prove no key.
        """
        until = time.monotonic() + WAITS
        while sum("creationEventDetails" in each for each in self.said) < self.asked():
            assert time.monotonic() < until, f"no end of a registration: {self.site.shown()} {self.said}"
            self.page.wait_for_timeout(20)

    def asked(self) -> int:
        """How often the browser was asked to register a key."""
        return sum(each.offers for each in self.site.seen[self.began :])

    def confirms(self, path: str = "/orders") -> None:
        """Send a request, beside which the browser proves its new key, and wait until it has its cookie. A page that it
        opened meanwhile may have been that request.
        """
        self.fetch(path)
        until = time.monotonic() + WAITS
        while not self.refreshed(since=self.registered()):
            assert time.monotonic() < until, f"no refresh: {self.site.shown()} {self.said}"
            self.page.wait_for_timeout(20)

    def begins_anew(self) -> None:
        """Count from here on, when another person has been at the site. Neither has anything on its way."""
        self.began = len(self.site.seen)
        self.said.clear()

    def settles(self) -> None:
        """Wait until the browser has kept the cookies of all refreshes that were answered."""
        until = time.monotonic() + WAITS
        answered = [each for each in self.site.seen[self.began :] if each.path.endswith(REFRESH) and each.binds]
        while self.refreshed() < len(answered):
            assert time.monotonic() < until, f"a refresh is lost: {self.site.shown()} {self.said}"
            self.page.wait_for_timeout(20)

    def refreshed(self, *, since: int = 0) -> int:
        """How often the browser has renewed a bound cookie, among all that it said or from there on."""
        ends = [each.get("refreshEventDetails", {}).get("refreshResult") for each in self.said[since:]]
        return ends.count("Refreshed")

    def registered(self) -> int:
        """Where among what the browser said it began its last bound session."""
        return max((at for at, each in enumerate(self.said) if "creationEventDetails" in each), default=0)

    def cookies(self) -> dict[str, str]:
        found = self.devtools.send("Network.getCookies", {"urls": [self.site.url + "/"]})["cookies"]
        return {each["name"]: each["value"] for each in found}

    def outlive_the_cookie(self, seconds: float = 700) -> None:
        """Let the time pass that a bound cookie lives, at the server and in the browser."""
        self.settles()
        self.site.clock.forward(seconds)
        self.devtools.send("Network.deleteCookies", {"name": BOUND, "url": self.site.url})

    def is_bound(self) -> bool:
        status, said = self.fetch(f"{self.site.base}/auth/me")
        assert status == 200, said
        return bool(said["session"]["bound"])
