"""A server in this process with a clock of ours, a raw wire to it, browsers and programs on that wire, and one
recorder that judges every answer.

The recorder's rules hold for every answer of every test, whatever the test is about: each cookie that is set, each
security header, each problem document. It raises where the answer arrives, so the test that provoked it is the one that
fails.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json as jsonlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple

from tests.standins import MASTER, Clock, Mailbox, endless

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.rate_limits import Limits
from dutchdoor.model.service_credentials import ClientSecret, RegisteredClient, VerifierKey, VerifierSecret
from dutchdoor.model.sessions import Session
from dutchdoor.services.accounts import Directory
from dutchdoor.services.fencing import elapsed
from dutchdoor.stores.base import Add, Store
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.web.asgi import AsgiApplication
from dutchdoor.web.user_agent import UserAgentReader

HOST = "login.example.com"
OWN = f"https://{HOST}"
LISTED = "https://app.example.org"
PASSWORD = "correct horse battery staple 7"
OTHER_PASSWORD = "an altogether different phrase 9"
HOME = "192.0.2.7"
AWAY = "198.51.100.9"
PROXY = "10.0.0.5"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

_DEVICES = UserAgentReader()


class Answer(NamedTuple):
    """One answer as it came over the wire, header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return jsonlib.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json.get("code") or self.json.get("error"))

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    def set_cookies(self) -> list[str]:
        return [value for key, value in self.headers if key == "set-cookie"]

    def cookie(self, name: str) -> str | None:
        """The value that is set for a cookie; None: it is not set."""
        found = [line.partition(";")[0].partition("=")[2] for line in self.set_cookies() if line.startswith(name + "=")]
        assert len(found) < 2, f"{name} was set twice"
        return found[0] if found else None

    def sees(self) -> tuple[int, bytes, list[tuple[str, str]]]:
        """All that a client can tell two answers apart by, but for what is new in every answer."""
        return self.status, self.body, [header for header in self.headers if header[0] != "x-request-id"]


# --- the recorder ----------------------------------------------------------------------------------------------------

SESSION, REFRESH, MARK, REGISTRANT = "dd_session", "dd_refresh", "dd_mark", "dd_registrant"
_SAME_SITE = {SESSION: "Lax", "dd_bound": "Lax"}
_SAME_SITE |= dict.fromkeys(
    (REFRESH, MARK, REGISTRANT, "dd_browser", "dd_issuer", "dd_key", "dd_remembered", "dd_step"), "Strict"
)
_SAME_SITE |= {name.replace("dd_", "shop_"): same_site for name, same_site in _SAME_SITE.items()}  # with another prefix
_TOKEN = re.compile(rb"dd[sriocv]1_[\w-]{20}|eyJ[\w-]{10,}\.[\w-]+\.")
_INNARDS = re.compile(
    rb"Traceback|File \"|\.py\b|sqlite|SELECT |INSERT |UPDATE |/usr/|/home/|site-packages|"
    rb"dutchdoor\.[a-z]+\.[A-Z]|Exception",
    re.IGNORECASE,
)
_PUBLIC = re.compile(r"/\.well-known/|/openapi\.json|/assets/|/auth/client\.")
_OPEN = re.compile(r"/\.well-known/(jwks\.json|oauth-authorization-server)")


class Recorder:
    """Judges every answer (S11, S14, S21, P04), and counts what it saw, so that a test can tell it saw something."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def judge(
        self,
        answer: Answer,
        path: str,
        *,
        secure: bool,
        listed: Iterable[str],
        breaks: bool = False,
        binds: bool | None = False,
    ) -> None:
        """Judge an answer. `breaks` says that a 500 is expected, and `binds` whether sessions of browsers can be bound;
        None: by another key of the client, perhaps.
        """
        self.seen["answers"] += 1
        self.seen[f"status {answer.status}"] += 1
        assert breaks or answer.status != 500, f"{path}: {answer.body!r}"
        once = [name for name, _ in answer.headers if name != "set-cookie"]
        assert len(set(once)) == len(once), f"a header is there twice: {sorted(once)}"
        for line in answer.set_cookies():
            self._cookie(line, secure=secure)
        self._security(answer, path, secure=secure, listed=listed)
        self._offer(answer, path, binds=binds)
        if answer.status >= 400:
            self._refusal(answer, path)

    def _cookie(self, line: str, *, secure: bool) -> None:
        self.seen["cookies"] += 1
        assert len(line) <= 4096, "longer than browsers promise to keep"
        assert line.isascii() and line.isprintable()
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        bare = name.removeprefix("__Host-")
        assert bare in _SAME_SITE, f"a cookie nobody knows: {name}"
        assert (name != bare) == secure, "over TLS, and only there, the name begins with __Host-"
        assert re.fullmatch(r"[A-Za-z0-9_.-]*", value)
        assert bare.endswith(("mark", "remembered")) or len(value) < 100, "our tokens stay below 100 bytes"
        given = dict(attribute.partition("=")[::2] for attribute in attributes)
        assert len(given) == len(attributes), "an attribute is there twice"
        cleared = value == ""
        expected = {"Path": "/", "HttpOnly": "", "SameSite": _SAME_SITE[bare], "Max-Age": given.get("Max-Age", "")}
        if secure:
            expected["Secure"] = ""
        if cleared:
            expected |= {"Max-Age": "0", "Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}
            self.seen["cookies cleared"] += 1
        if bare == "dd_key":  # a script sets it, and the server only clears it
            assert cleared
            del expected["HttpOnly"]
        if bare.endswith("bound") and given["SameSite"] == "Strict":  # beside a refresh cookie
            expected["SameSite"] = "Strict"
        assert given == expected, line
        assert cleared or int(given["Max-Age"]) >= 1

    def _offer(self, answer: Answer, path: str, *, binds: bool | None) -> None:
        """Whatever the way to sign in: an answer that starts a session in a browser asks it to bind that (K08)."""
        begins = any(re.match(r"(__Host-)?\w+_(session|refresh)=dd", line) for line in answer.set_cookies())
        offered = answer.header("secure-session-registration") is not None
        if begins and offered:
            self.seen["offers"] += 1
        goes_on = path in GOES_ON or b'"bound":true' in answer.body
        if begins and binds and not goes_on:
            assert offered, f"{path} sets the cookie of a session, and does not offer to bind it"
        assert binds is not False or not offered, "nothing is offered where nothing can be bound"

    def _security(self, answer: Answer, path: str, *, secure: bool, listed: Iterable[str]) -> None:
        cache = answer.header("cache-control")
        if answer.status < 400 and _PUBLIC.match(path):
            assert not answer.set_cookies() and not _TOKEN.search(answer.body), "a token in something public"
        else:
            assert cache == "no-store", f"{path} may be stored: {cache}"
        assert answer.header("x-content-type-options") == "nosniff"
        hsts = answer.header("strict-transport-security")
        assert (hsts is not None) == secure
        assert hsts is None or int(re.findall(r"max-age=(\d+)", hsts)[0]) >= 31_536_000
        policy = answer.header("content-security-policy") or ""
        for directive in ("frame-ancestors", "base-uri", "object-src"):
            assert f"{directive} 'none'" in policy, f"{path}: {directive} is missing"
        assert answer.header("referrer-policy") in {"no-referrer", "same-origin"}
        allowed = answer.header("access-control-allow-origin")
        if allowed == "*":
            assert _OPEN.fullmatch(path) and answer.header("access-control-allow-credentials") is None
        else:
            assert allowed is None or allowed in set(listed), "CORS for somebody who is not listed"
        # S13: the only place a token may be besides bodies and cookies is what /auth/check hands to a proxy.
        for name, value in answer.headers:
            if name not in {"set-cookie", "x-auth-token"}:
                assert not _TOKEN.search(value.encode()), f"a token in the header {name}"

    def _refusal(self, answer: Answer, path: str) -> None:
        assert not _INNARDS.search(answer.body), f"innards in {answer.body!r}"
        unfinished = (
            path in {"/auth/login", "/auth/login/code", "/auth/login/step"} and b'"sign_in_unfinished"' in answer.body
        )  # gives out a token of its own
        assert unfinished or not _TOKEN.search(answer.body), "a refusal repeats a token"
        kept = [line for line in answer.set_cookies() if answer.code != "device_proof_required"]
        assert not any(line.split(";")[0].endswith("=") for line in kept), "a refusal clears a cookie"
        if not answer.body:
            return  # HEAD, or a refused preflight
        said = answer.json
        if path.startswith("/oauth2/"):
            assert answer.header("content-type") == "application/json"
            assert set(said) == {"error", "error_description"}
        else:
            assert answer.header("content-type") == "application/problem+json"
            assert said["status"] == answer.status
            assert re.fullmatch(r"[a-z0-9_]+", said["code"])
        if answer.status == 401:
            assert answer.header("www-authenticate")
        if answer.status in {429, 503}:
            assert int(answer.header("retry-after") or "") >= 1


GOES_ON = {"/auth/refresh", "/auth/password", "/auth/account", "/auth/account/name", "/auth/account/passkey"}
"""Where a session goes on that may be bound already."""
RECORDER = Recorder()


class Elapsed:
    """Elapsed time, which goes on by itself and can be helped."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return elapsed() + self.ahead


# --- the wire --------------------------------------------------------------------------------------------------------


def body_of(json: Any, form: Mapping[str, str] | str | None, body: bytes | None) -> tuple[bytes, list[tuple[str, str]]]:
    if json is not None:
        return jsonlib.dumps(json).encode(), [("content-type", "application/json")]
    if form is not None:
        text = form if isinstance(form, str) else "&".join(f"{k}={quoted(v)}" for k, v in form.items())
        return text.encode(), [("content-type", "application/x-www-form-urlencoded")]
    return body or b"", []


def quoted(text: str) -> str:
    return "".join(chr(b) if b < 128 and (chr(b).isalnum() or chr(b) in "-._~") else f"%{b:02X}" for b in text.encode())


def basic(service: tuple[str, str]) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(":".join(service).encode()).decode()


class World:
    """One server, its clock and its mailbox."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        policy: Policy = STANDARD,
        limits: Limits | None = None,
        public_url: str | None = OWN,
        origins: Iterable[str] = (),
        hasher: PasswordHasher | None = None,
        clock: Clock | None = None,
        **more: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.mailbox = Mailbox()
        self.listed = tuple(origins)
        self.breaks = False
        """Whether a 500 is what the test is about."""
        self.auth = Auth(
            store if store is not None else MemoryStore(),
            master_key=MASTER,
            public_url=public_url,
            policy=policy,
            limits=limits or endless(Limits()),
            origins=self.listed,
            mail=self.mailbox,
            hasher=hasher or PasswordHasher(CHEAPEST),
            devices=_DEVICES,
            clock=self.clock,
            **more,
        )
        self.auth._user_agents = _DEVICES
        self.elapsed = Elapsed()
        self.auth.authority.fencing.now = self.elapsed
        self.app: AsgiApplication = self.auth.asgi()
        self.secure = self.auth.site.cookies.secure
        self.host = HOST if self.secure else "localhost:8000"
        self.origin = f"{'https' if self.secure else 'http'}://{self.host}"
        self.prefix = "__Host-" if self.secure else ""
        self.peer = HOME if self.secure else "127.0.0.1"

    @property
    def directory(self) -> Directory:
        return self.auth.directory

    @property
    def store(self) -> Store:
        return self.auth.store

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | str | None = None,
        body: bytes | None = None,
        headers: Iterable[tuple[str, str]] = (),
        cookie: str | None = None,
        bearer: str | None = None,
        peer: str | None = None,
        host: str | None = None,
        gone: asyncio.Event | None = None,
    ) -> Answer:
        """Send one request exactly as it is written here, and judge the answer. `gone` is set when the client hangs
        up.
        """
        content, typed = body_of(json, form, body)
        path, _, query = path.partition("?")
        sent = [("host", self.host if host is None else host), *typed, *headers]
        if content:
            sent.append(("content-length", str(len(content))))
        if cookie is not None:
            sent.append(("cookie", cookie))
        if bearer is not None:
            sent.append(("authorization", f"Bearer {bearer}"))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "headers": [(name.lower().encode(), value.encode("utf-8")) for name, value in sent],
            "client": (peer or self.peer, 50000),
            "server": ("127.0.0.1", 8000),
        }
        messages: list[dict[str, Any]] = []
        waiting = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Any:
            if waiting:
                return waiting.pop()
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        received = [(name.decode(), value.decode("latin-1")) for name, value in messages[0]["headers"]]
        answer = Answer(messages[0]["status"], received, b"".join(part.get("body", b"") for part in messages[1:]))
        can_bind = self.secure and self.auth.authority.policy.device_binding != "off"
        binds = None if any(name == "dpop" for name, _ in sent) else can_bind
        RECORDER.judge(answer, path, secure=self.secure, listed=self.listed, breaks=self.breaks, binds=binds)
        return answer

    async def check(self, method: str = "GET", *headers: tuple[str, str], **more: Any) -> Answer:
        """Ask `/auth/check` as a proxy does that was asked for something by this method."""
        forwarded = [("x-forwarded-method", method), ("x-forwarded-for", AWAY), ("x-forwarded-proto", "https")]
        return await self.call("GET", "/auth/check", headers=[*forwarded, *headers], peer=PROXY, **more)

    async def register(self, email: str = "ada@example.com", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/auth/register", json={"email": email, "password": password, **more})
        assert answer.status == 201, answer
        await self.posted()
        user: dict[str, Any] = answer.json["user"]
        return user

    async def make_admin(self, email: str = "root@example.com") -> dict[str, Any]:
        user = await self.register(email)
        await self.directory.admin.set_roles(user["id"], ["admin"], client=Client(), actor="cli")
        return user

    async def add_client(self, *, public: bool = False) -> tuple[str, str]:
        secret = ClientSecret.mint(new_id())
        row = RegisteredClient(
            id=secret.id, name="orders", secret_hash=b"" if public else secret.hash(), created_at=self.clock()
        )
        await self.store.commit(Add(row))
        return row.id, secret.text()

    async def add_verifier(self, name: str = "orders") -> str:
        """Make a verifier key."""
        secret = VerifierSecret.mint(new_id())
        row = VerifierKey(id=secret.id, name=name, secret_hash=secret.hash(), created_at=self.clock())
        await self.store.commit(Add(row))
        return secret.text()

    def api_client(self) -> Client:
        return Client(address=HOME)

    async def posted(self) -> None:
        """Wait for the mail that is on its way: what comes later takes the place of the latest."""
        while self.directory.post._posting:
            await asyncio.wait(set(self.directory.post._posting), timeout=5)
            await asyncio.sleep(0)

    def browser(self, **more: Any) -> Browser:
        return Browser(self, **more)

    def program(self, **more: Any) -> Program:
        return Program(self, **more)

    async def events(self) -> list[Any]:
        return await self.store.events(limit=500)

    async def row(self, browser: Browser) -> Session:
        """The session that a browser holds, as it is stored."""
        found = await self.store.session(browser.session_id)
        assert found is not None
        return found[0]


@contextlib.asynccontextmanager
async def a_world(**options: Any) -> AsyncIterator[World]:
    world = World(**options)
    async with world.auth:
        # For the maximum wait, a store that remembers nothing cannot know who held leases before it.
        world.elapsed.ahead += 60
        yield world


class Person:
    """What browsers and programs have in common: they sign in, and remember what proves them."""

    def __init__(self, world: World, *, peer: str | None = None, agent: str = "") -> None:
        self.world, self.peer, self.agent = world, peer, agent
        self.access = self.refresh = self.csrf = ""
        self.session_id = ""

    async def call(self, method: str, path: str, **more: Any) -> Answer:
        raise NotImplementedError

    def learn(self, answer: Answer) -> None:
        if answer.status != 200 or not answer.body.startswith(b"{"):
            return
        said = answer.json
        self.access = said.get("access_token", self.access)
        self.refresh = said.get("refresh_token", self.refresh)
        self.csrf = said.get("csrf_token", self.csrf)
        if isinstance(said.get("session"), dict):
            self.session_id = said["session"]["id"]

    async def login(self, email: str = "ada@example.com", password: str = PASSWORD, **more: Any) -> Answer:
        answer = await self.call("POST", "/auth/login", json={"email": email, "password": password, **more})
        assert answer.status == 200, answer
        return answer

    async def me(self) -> Answer:
        return await self.call("GET", "/auth/me")


class Browser(Person):
    """Our own page in a browser: a jar, an Origin, Fetch Metadata, and the CSRF token of its session."""

    def __init__(self, world: World, *, peer: str | None = None, agent: str = FIREFOX) -> None:
        super().__init__(world, peer=peer, agent=agent)
        self.jar: dict[str, str] = {}

    def cookie(self) -> str | None:
        return "; ".join(f"{name}={value}" for name, value in self.jar.items()) or None

    async def call(
        self, method: str, path: str, *, csrf: bool | str = True, by_token: bool = False, **more: Any
    ) -> Answer:
        headers = [("user-agent", self.agent), ("sec-fetch-site", "same-origin")]
        if method != "GET":
            headers.append(("origin", self.world.origin))
        if csrf and self.csrf:
            headers.append(("x-csrf-token", self.csrf if csrf is True else csrf))
        headers += more.pop("headers", ())
        if by_token:
            more["bearer"] = self.access
        answer = await self.world.call(method, path, headers=headers, cookie=self.cookie(), peer=self.peer, **more)
        for line in answer.set_cookies():
            name, _, value = line.partition(";")[0].partition("=")
            self.jar[name] = value
            if not value:
                del self.jar[name]
        self.learn(answer)
        return answer


class Program(Person):
    """A command-line or mobile client: no cookies, tokens in hand."""

    async def call(self, method: str, path: str, **more: Any) -> Answer:
        headers = [("user-agent", self.agent), *more.pop("headers", ())]
        if self.access and "bearer" not in more:
            more["bearer"] = self.access
        if more.get("bearer") == "":
            del more["bearer"]
        answer = await self.world.call(method, path, headers=headers, peer=self.peer, **more)
        self.learn(answer)
        return answer


# --- a server of its own process -------------------------------------------------------------------------------------


class Wire:
    """A raw wire to a server on this machine: a connection a request, so every worker gets its share."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.connect()
        return connection

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Iterable[tuple[str, str]] = (),
        cookie: str | None = None,
        bearer: str | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        over = connection or self.connect()
        try:
            self.send(over, method, path, json=json, form=form, headers=headers, cookie=cookie, bearer=bearer)
            return self.read(over, path)
        finally:
            if connection is None:
                over.close()

    def send(self, over: http.client.HTTPConnection, method: str, path: str, **more: Any) -> None:
        content, typed = body_of(more.get("json"), more.get("form"), None)
        over.putrequest(method, path, skip_accept_encoding=True, skip_host=True)
        over.putheader("host", f"localhost:{self.port}")
        for name, value in (*typed, *more.get("headers", ())):
            over.putheader(name, value)
        if content or method in {"POST", "DELETE"}:
            over.putheader("content-length", str(len(content)))
        if more.get("cookie") is not None:
            over.putheader("cookie", more["cookie"])
        if more.get("bearer") is not None:
            over.putheader("authorization", f"Bearer {more['bearer']}")
        over.endheaders(content or None)

    def read(self, over: http.client.HTTPConnection, path: str) -> Answer:
        response = over.getresponse()
        headers = [(name.lower(), value) for name, value in response.getheaders()]
        answer = Answer(response.status, [h for h in headers if h[0] not in {"date", "connection"}], response.read())
        RECORDER.judge(answer, path.partition("?")[0], secure=False, listed=())
        return answer

    def everywhere(self, method: str, path: str, *, at_once: int = 12, **more: Any) -> set[int]:
        """Ask over many connections that are open at once, so that every worker is asked. Gives the statuses."""
        open_now = [self.connect() for _ in range(at_once)]
        try:
            for connection in open_now:
                self.send(connection, method, path, **more)
            return {self.read(connection, path).status for connection in open_now}
        finally:
            for connection in open_now:
                connection.close()
