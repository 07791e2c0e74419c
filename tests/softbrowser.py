"""A browser in software that has Device Bound Session Credentials (DBSC), as strict as Chromium 156.

It has what decides whether a person is locked out: a cookie jar with SameSite, a key for each bound session, requests
that are held until their cookie is there, and a session that is forgotten at the first answer that Chromium takes for
an end. What it does in each case was seen in a Chromium; `tests/http/test_softbrowser.py` has the cases side by side,
and `tests/pages/test_bound_in_chromium.py` asks a real one where there is one.

    browser = SoftBrowser(send, "https://login.example.com", clock=clock)
    await browser.fetch("POST", "/auth/login", json=...)       # registers a key, if the server offers to
    await browser.open("/auth/account", "cross-site")          # a link on another site

Left out: other origins than one, `include_site`, the time after which Chromium gives up on an endpoint that hangs, and
the pauses that it makes after four failures in a row.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256


class Reply(Protocol):
    """What a server answered: header names are in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    @property
    def body(self) -> bytes: ...


R = TypeVar("R", bound=Reply)
Send = Callable[[str, str, list[tuple[str, str]], bytes], Awaitable[R]]
"""Sends a method, a path with its query, headers and a body. Raises `OSError` where no answer arrives."""

From = Literal["typed", "same-origin", "same-site", "cross-site"]
"""Where a request began: in the address bar, on a page of this origin, of a sibling host, or of another site."""

Mode = Literal["cors", "navigate", "omit", "no-cors"]
"""`omit` is a fetch without credentials, `no-cors` a request of the browser's own."""

QUOTA, QUOTA_FOR = 6, 540.0
"""Chromium signs so often in so many seconds, for one site."""
RUNS_OUT = 120.0
"""Seconds: a cookie with less life than that is renewed beside the request, which waits for nothing."""
CHALLENGES = 5
HOPS = 10
REDIRECTS = {301, 302, 303}


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class Key:
    """The key of one session. It does not leave the device, so nothing here gives it away."""

    def __init__(self, alg: str) -> None:
        self.alg = alg
        if alg == "ES256":
            elliptic = ec.generate_private_key(ec.SECP256R1())
            point = elliptic.public_key().public_numbers()
            self.jwk = {"crv": "P-256", "kty": "EC", "x": b64(point.x.to_bytes(32)), "y": b64(point.y.to_bytes(32))}

            def sign(data: bytes) -> bytes:
                r, s = utils.decode_dss_signature(elliptic.sign(data, ec.ECDSA(SHA256())))
                return r.to_bytes(32) + s.to_bytes(32)

            self.sign = sign
        else:
            long = rsa.generate_private_key(65537, 2048)
            public = long.public_key().public_numbers()
            self.jwk = {"e": b64(public.e.to_bytes(3)), "kty": "RSA", "n": b64(public.n.to_bytes(256))}
            self.sign = lambda data: long.sign(data, PKCS1v15(), SHA256())

    def proof(self, challenge: str, *, first: bool = False, **other: Any) -> str:
        """Write a proof; `first` brings the key along. `other` are parts of the header or claims to be false."""
        header = {"alg": self.alg, "jwk": self.jwk if first else None, "typ": "dbsc+jwt"}
        claims = {"jti": challenge}
        for name, value in other.items():
            (claims if name in {"jti", "aud", "iat"} else header)[name] = value
        parts = ({name: value for name, value in part.items() if value is not None} for part in (header, claims))
        signed = ".".join(b64(jsonlib.dumps(part, separators=(",", ":")).encode()) for part in parts)
        return f"{signed}.{b64(self.sign(signed.encode()))}"


# --- cookies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cookie:
    name: str
    value: str
    path: str
    secure: bool
    http_only: bool
    same_site: str
    """`strict`, `lax`, `none`, or "" where nothing was said."""
    partitioned: bool = False
    until: float | None = None
    """None: until the browser is closed."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What a cookie that instructions describe must have in common with the one in the jar."""
        return self.name, self.path, self.secure, self.http_only, self.same_site, self.partitioned

    @classmethod
    def read(cls, line: str, now: float) -> Cookie:
        """Read a Set-Cookie. Raises `ValueError` for one that Chromium does not keep."""
        pair, *pieces = line.split(";")
        name, _, value = pair.partition("=")
        given = {key.strip().lower(): text.strip() for key, _, text in (piece.partition("=") for piece in pieces)}
        cookie = cls(
            name.strip(), value.strip(), given.get("path") or "/", "secure" in given, "httponly" in given,
            given.get("samesite", "").lower(), "partitioned" in given,
            now + float(given["max-age"]) if "max-age" in given else None,
        )  # fmt: skip
        prefix = cookie.name.lower()
        if prefix.startswith(("__host-http-", "__http-")) and not cookie.http_only:
            raise ValueError(f"{cookie.name} needs HttpOnly")
        if prefix.startswith("__host-") and not (cookie.secure and given.get("path") == "/" and "domain" not in given):
            raise ValueError(f"{cookie.name} needs Secure, Path=/ and no Domain")
        if cookie.partitioned and not cookie.secure:
            raise ValueError(f"{cookie.name} is partitioned, and not Secure")
        return cookie


def described(name: str, attributes: str) -> Cookie:
    """Read the cookie that instructions describe. Raises `ValueError` for one that Chromium refuses."""
    given = [piece.partition("=")[0].strip().lower() for piece in attributes.split(";") if piece.strip()]
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or name.lower().startswith("__host-http-"):
        raise ValueError(f"no name of a cookie: {name!r}")
    if wrong := {"max-age", "expires", "partitioned"}.intersection(given):
        raise ValueError(f"attributes have {sorted(wrong)}")
    if not given:  # they are taken to be what the prefix demands
        attributes = "Path=/; Secure; HttpOnly; SameSite=Lax"
    return Cookie.read(f"{name}=v; {attributes}", 0.0)


# --- bound sessions ---------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    """Instructions that Chromium does not follow."""


class EndedError(Exception):
    """The server has said that the session does not go on."""


@dataclass
class Bound:
    """A session that the browser has a key for."""

    key: Key
    id: str
    refresh_url: str
    cookies: list[Cookie]
    rules: list[tuple[bool, str]]
    """Whether a path is in scope; the last rule that matches counts."""
    initiators: bool = False
    """Whether requests that began on another site are held, too."""
    challenge: str = ""
    proved: tuple[str, str] = ("", "")
    """The last challenge that was signed, and the proof: it is repeated, not signed anew."""

    def covers(self, path: str) -> bool:
        if path == self.refresh_url:
            return False
        for included, prefix in reversed(self.rules):
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return included
        return True


def follow(said: bytes, key: Key, at: str, host: str) -> Bound:
    """Read instructions as Chromium does. Raises `EndedError` or `RefusedError`."""
    try:
        instructions = jsonlib.loads(said)
        identifier = instructions["session_identifier"]
        if instructions.get("continue", True) is False:
            raise EndedError
        if not isinstance(identifier, str) or not identifier:
            raise RefusedError("no session_identifier")
        cookies = [
            described(each["name"], each["attributes"])
            for each in instructions["credentials"]
            if each["type"] == "cookie"
        ]
        scope = instructions.get("scope", {})
        rules = [(each["type"] == "include", each["path"]) for each in scope.get("scope_specification", ())]
        domains = {each["domain"] for each in scope.get("scope_specification", ())}
        refresh_url = instructions.get("refresh_url", at)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(repr(error)) from None
    if not cookies:
        raise RefusedError("no credentials")
    if scope.get("include_site"):
        raise RefusedError("include_site, from a host that is no site")
    if not domains <= {"*", host} or any(not path.startswith("/") for _, path in rules):
        raise RefusedError("a rule for another host, or a path that does not begin with /")
    if "://" in refresh_url or not refresh_url.startswith("/"):
        raise RefusedError(f"refresh_url {refresh_url!r}")
    return Bound(key, identifier, refresh_url, cookies, rules, bool(instructions.get("allowed_refresh_initiators")))


def values(reply: Reply, name: str) -> list[str]:
    return [value for key, value in reply.headers if key == name]


_OFFER = re.compile(r'\((?P<algs>[^)]*)\)(?P<parameters>(?:;\s*[a-z]+="[^"]*")*)$')
_CHALLENGE = re.compile(r'"(?P<challenge>[^"]*)"\s*;\s*id="(?P<id>[^"]*)"$')


class SoftBrowser(Generic[R]):
    """One profile of a browser, at one origin."""

    def __init__(
        self,
        send: Send[R],
        origin: str,
        *,
        clock: Callable[[], float],
        algs: tuple[str, ...] = ("ES256", "RS256"),
        quota: bool = False,
        binds: bool = True,
        agent: str = "",
    ) -> None:
        """`algs` are what the device can sign with, `quota` whether Chromium's limit on signatures applies, and `binds`
        whether the browser has DBSC at all.
        """
        self._send, self.origin, self.clock = send, origin, clock
        self.host = str(urlsplit(origin).hostname)
        self.algs, self.quota, self.binds, self.agent = algs, quota, binds, agent
        self.jar: dict[str, Cookie] = {}
        self.registered: dict[str, Bound] = {}
        self.events: list[str] = []
        """What DevTools would say of bound sessions."""
        self.sent: list[tuple[str, str, int]] = []
        """Method, path and status of each request, those of the browser itself among them."""
        self.csrf = ""
        """What pages send in X-CSRF-Token."""
        self._signed: list[float] = []
        self._refreshing: dict[str, asyncio.Task[str]] = {}
        self._beside: set[asyncio.Task[Any]] = set()

    # What a person and a page do

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Iterable[tuple[str, str]] = (),
        began: From = "same-origin",
        mode: Mode = "cors",
    ) -> R:
        """Send a request as a page's script does, and wait for what the browser does beside it."""
        content, typed = b"", []
        if json is not None:
            content, typed = jsonlib.dumps(json).encode(), [("content-type", "application/json")]
        elif form is not None:
            content = urlencode(form).encode()
            typed = [("content-type", "application/x-www-form-urlencoded")]
        own = [*typed, *headers]
        if method != "GET" and began != "typed":
            own.append(("origin", self.origin if began == "same-origin" else "https://elsewhere.example"))
        if self.csrf and method != "GET" and mode == "cors":
            own.append(("x-csrf-token", self.csrf))
        reply = await self._ask(method, path, own, content, began, mode)
        await self.settle()
        return reply

    async def open(self, path: str, began: From = "typed", **more: Any) -> R:
        """Show a page: by an address, a link or a form (`form=`). Follows redirects, and a page that reloads itself."""
        method = "POST" if "form" in more else "GET"
        accept = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        for _ in range(HOPS):
            reply = await self.fetch(method, path, headers=[accept], began=began, mode="navigate", **more)
            method, more = "GET", {}
            if reply.status in REDIRECTS:
                # A chain of redirects has begun where its first request has.
                path = values(reply, "location")[0].removeprefix(self.origin)
                if "://" in path:
                    return reply
            elif (again := _reloads(reply)) is not None:
                path, began = again or path, "same-origin"
            else:
                return reply
        raise AssertionError(f"{path} leads on and on")

    async def settle(self) -> None:
        """Wait for what runs beside requests."""
        while self._beside:
            await asyncio.gather(*self._beside)

    def restart(self) -> None:
        """Close the browser and open it again: cookies without an end are gone, keys are not."""
        self.jar = {name: cookie for name, cookie in self.jar.items() if cookie.until is not None}

    def cookies(self) -> dict[str, str]:
        """The cookies that are there now, as a thief would copy them."""
        now = self.clock()
        self.jar = {name: each for name, each in self.jar.items() if each.until is None or each.until > now}
        return {name: each.value for name, each in self.jar.items()}

    # What the browser does

    async def _ask(self, method: str, path: str, own: list[tuple[str, str]], body: bytes, began: From, mode: Mode) -> R:
        """Send a request of a page once the cookies of every bound session are there, or cannot be had."""
        skipped: list[tuple[str, str]] = []
        if mode != "omit":
            for session in sorted(self._in_scope(path, began), key=lambda each: each.id):
                left = self._life(session)
                if left <= 0 and (failure := await self._refresh(session, began)):
                    skipped.append(("secure-session-skipped", f'{failure};session_identifier="{session.id}"'))
                elif 0 < left < RUNS_OUT:
                    self._run(self._refresh(session, began))
        reply = await self._transfer(method, path, [*own, *skipped], body, began, mode)
        if self.binds:
            self._heed(reply, began)
        return reply

    def _in_scope(self, path: str, began: From) -> Iterator[Bound]:
        for session in list(self.registered.values()):
            allowed = began in {"typed", "same-origin"} or session.initiators
            if allowed and session.covers(urlsplit(path).path):
                yield session

    def _life(self, session: Bound) -> float:
        """Seconds until the first of its cookies is missing."""
        self.cookies()
        lives = []
        for wanted in session.cookies:
            there = self.jar.get(wanted.name)
            if there is None or there.identity != wanted.identity:
                return 0.0
            lives.append(float("inf") if there.until is None else there.until - self.clock())
        return min(lives)

    async def _refresh(self, session: Bound, began: From) -> str:
        """Get its cookie anew, once for all who wait; give why it could not be had, where the browser says so."""
        task = self._refreshing.get(session.id)
        if task is None:
            task = asyncio.ensure_future(self._refresh_once(session, began))
            self._refreshing[session.id] = task
            task.add_done_callback(lambda _: self._refreshing.pop(session.id, None))
        return await task

    async def _refresh_once(self, session: Bound, began: From) -> str:
        for _ in range(CHALLENGES):
            headers = [("sec-secure-session-id", session.id)]
            if session.challenge:
                if session.proved[0] != session.challenge:
                    if not self._may_sign():
                        return "quota_exceeded"
                    session.proved = session.challenge, session.key.proof(session.challenge)
                headers.append(("secure-session-response", session.proved[1]))
            try:
                reply = await self._by_itself(session.refresh_url, headers, began)
            except OSError:
                return self._event("unreachable")
            if reply.status == 403 and values(reply, "secure-session-challenge"):
                continue  # `_learn` has kept it
            return self._judge(session, reply)
        return self._forget(session, "too many challenges")

    def _judge(self, session: Bound, reply: R) -> str:
        if reply.status >= 500:
            return self._event("server_error")
        if reply.status >= 300:
            return self._forget(session, f"status {reply.status}")
        if not reply.body:
            self._event(f"refreshed {session.id}")
            return ""
        try:
            renewed = follow(reply.body, session.key, session.refresh_url, self.host)
        except EndedError:
            return self._forget(session, "the server ended it")
        except RefusedError as error:
            return self._forget(session, str(error))
        if renewed.id != session.id:
            return self._forget(session, "another id")
        renewed.proved, self.registered[session.id] = session.proved, renewed  # without the old challenge
        self._learn(reply)
        self._event(f"refreshed {session.id}")
        return ""

    async def _register(self, offer: str, began: From) -> None:
        found = _OFFER.match(offer.strip())
        parameters = dict(re.findall(r';\s*([a-z]+)="([^"]*)"', found["parameters"])) if found else {}
        alg = next((each for each in found["algs"].split() if each in self.algs), None) if found else None
        if alg is None or not parameters.get("path", "").startswith("/") or not self.origin.startswith("https:"):
            self._event(f"passed over {offer}")
            return
        key, challenge = Key(alg), parameters.get("challenge", "")
        for _ in range(CHALLENGES):
            if not self._may_sign():
                return
            headers = [("secure-session-response", key.proof(challenge, first=True))]
            try:
                reply = await self._by_itself(parameters["path"], headers, began)
            except OSError:
                self._event("registration: unreachable")
                return
            again = [found for each in values(reply, "secure-session-challenge") if (found := _CHALLENGE.match(each))]
            if reply.status != 403 or not again:
                break
            challenge = again[0]["challenge"]
        if reply.status >= 300:
            self._event(f"registration: status {reply.status}")
            return
        try:
            session = follow(reply.body, key, parameters["path"], self.host)
        except (RefusedError, EndedError) as error:
            self._event(f"registration refused: {error}")
            return
        self.registered[session.id] = session
        self._event(f"registered {session.id}")

    async def _by_itself(self, path: str, headers: list[tuple[str, str]], began: From) -> R:
        """Send a request of the browser's own, and up to three times where no answer arrives. It says that it is of the
        same origin, and yet has no Lax cookie where the request that caused it began on another site.
        """
        own = [("origin", self.origin), ("content-length", "0"), *headers]
        for last in (False, False, True):
            try:
                reply = await self._transfer("POST", path, own, b"", began, "no-cors")
                break
            except OSError:
                if last:
                    raise
        for _ in range(HOPS):
            if reply.status not in REDIRECTS:
                break
            path = values(reply, "location")[0].removeprefix(self.origin)
            reply = await self._transfer("GET", path, headers, b"", began, "no-cors")
        return reply

    async def _transfer(
        self, method: str, path: str, own: list[tuple[str, str]], body: bytes, began: From, mode: Mode
    ) -> R:
        """Send it with its cookies and Fetch Metadata, and keep the cookies and challenges of the answer."""
        by_itself = mode == "no-cors"
        site = "same-origin" if by_itself else "none" if began == "typed" else began
        headers = [
            ("user-agent", self.agent),
            ("sec-fetch-site", site),
            ("sec-fetch-mode", mode),
            ("sec-fetch-dest", "document" if mode == "navigate" else "empty"),
            *own,
        ]
        follows_a_link = mode == "navigate" and method == "GET"
        goes = {"strict": began != "cross-site", "lax": began != "cross-site" or follows_a_link}
        if mode != "omit":
            now = self.cookies()
            held = [
                f"{name}={value}" for name, value in now.items() if goes.get(self.jar[name].same_site or "lax", True)
            ]
            if held:
                headers.append(("cookie", "; ".join(held)))
        reply = await self._send(method, path, headers, body)
        self.sent.append((method, path, reply.status))
        self.keep(reply)
        return reply

    def keep(self, reply: R) -> None:
        """Keep the cookies and challenges in the headers of an answer, whose body may be lost."""
        for line in values(reply, "set-cookie"):
            with suppress(ValueError):
                cookie = Cookie.read(line, self.clock())
                self.jar[cookie.name] = cookie
        self._learn(reply)

    def _learn(self, reply: R) -> None:
        for line in values(reply, "secure-session-challenge"):
            if (found := _CHALLENGE.match(line)) and found["id"] in self.registered:
                self.registered[found["id"]].challenge = found["challenge"]

    def _heed(self, reply: R, began: From) -> None:
        """Do what the headers of an answer to a page say."""
        cleared = {each.strip() for line in values(reply, "clear-site-data") for each in line.split(",")}
        if cleared & {'"cookies"', '"*"'}:
            self.jar.clear()
        if cleared & {'"storage"', '"*"'}:
            self.registered.clear()
        for offer in values(reply, "secure-session-registration"):
            self._run(self._register(offer, began))

    def _may_sign(self) -> bool:
        now = self.clock()
        self._signed = [at for at in self._signed if at > now - QUOTA_FOR]
        if self.quota and len(self._signed) >= QUOTA:
            return False
        self._signed.append(now)
        return True

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _forget(self, session: Bound, why: str) -> str:
        self.registered.pop(session.id, None)
        return self._event(f"forgot {session.id}: {why}", "")

    def _event(self, said: str, gives: str | None = None) -> str:
        self.events.append(said)
        return said if gives is None else gives


_REFRESH = re.compile(rb'<meta http-equiv="?refresh"? content="0(?:;\s*url=([^"]*))?"', re.IGNORECASE)


def _reloads(reply: Reply) -> str | None:
    """Give where a page sends the browser by itself; "" for the page itself, None for nowhere."""
    for value in values(reply, "refresh"):
        return value.partition("url=")[2]
    found = _REFRESH.search(reply.body)
    return None if found is None else (found[1] or b"").decode()
