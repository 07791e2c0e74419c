"""The way every request goes, whatever framework it came through.

    admit      is the host ours, are the forwarded headers from a proxy we know
    preflight  a browser asks on behalf of another origin
    origin     was it caused by another site (unsafe methods)
    caller     who sent it, by cookie or bearer token, and what the route demands of them
    csrf       where a cookie speaks for the caller, does our own page, too
    body       bounded, of the right type, decoded strictly
    handler    the one thing that differs
    finish     problems, CORS and security headers

A handler cannot forget a phase, because it is not the one who does it.
"""

from __future__ import annotations

from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import pybase64
from msgspec import Struct

from dutchdoor.errors import DutchdoorError, Forbidden, InvalidToken, NotAuthenticated, StepUpRequired, Unavailable
from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client, CountryReader, DeviceReader, observe
from dutchdoor.model.oauth_clients import ClientSecret, RegisteredClient
from dutchdoor.model.principal import Principal
from dutchdoor.model.sessions import Session, check_live
from dutchdoor.model.verifier_keys import VerifierKey
from dutchdoor.services.accounts import Directory
from dutchdoor.services.sessions import Authority
from dutchdoor.web import origin as origins
from dutchdoor.web.body import BODY_AT_MOST, Body, JsonBody, read_form, read_query
from dutchdoor.web.cookies import Cookies, Presented
from dutchdoor.web.cors import Cors
from dutchdoor.web.forwarded import Edge
from dutchdoor.web.headers import SecurityHeaders
from dutchdoor.web.health import Outages, Readiness
from dutchdoor.web.http import AmbiguousCookie, BadRequest, Header, Request, Response, UnknownVerifier
from dutchdoor.web.problems import problem
from dutchdoor.web.rate import LocalBuckets
from dutchdoor.web.verifiers import Verifiers

__all__ = ["ADMIN", "Api", "Call", "Caller", "Route", "Site"]

Demand = Literal["anyone", "caller", "admin", "client", "verifier", "asker"]
"""Whom a route serves: anyone; a signed-in caller; one with the role `admin`; a registered client with its secret; a
verifier with its key; either of the last two."""

ADMIN = "admin"


class Site(Struct, frozen=True, kw_only=True):
    """What the operator settled about where this runs, resolved and checked."""

    edge: Edge
    cors: Cors
    cookies: Cookies
    csrf_key: bytes
    devices: DeviceReader
    countries: CountryReader
    product: str = "dutchdoor"
    security_contact: str = ""
    """`mailto:` or `https:` address for security.txt; empty: there is none."""
    metrics_token: str = ""
    clear_site_data: bool = False
    """Whether a log-out by cookie has the browser clear its cache and storage of our origin."""

    def __repr__(self) -> str:
        return f"Site(product={self.product!r}, secure={self.cookies.secure})"


class Caller(Struct, frozen=True, kw_only=True):
    """Who sent a request, and how they proved it."""

    principal: Principal
    account: Account | None
    """None for a bearer token: nothing was looked up."""
    session: Session | None
    by_cookie: bool


Handler = Callable[["Call"], Awaitable[Response]]


class Route(Struct, frozen=True, kw_only=True):
    """One endpoint: what it demands, what it reads, what it gives, and the sentence the documentation says about it."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    """With `{name}` for one segment."""
    handler: Handler
    summary: str
    demands: Demand = "anyone"
    body: type[Body] | None = None
    """The type its JSON body is decoded into; None: it reads none."""
    body_at_most: int = BODY_AT_MOST
    """Bytes."""
    form: tuple[str, ...] = ()
    """The parameters it reads from a form instead (under /oauth2/)."""
    optional_body: bool = False
    gives: Any = None
    status: int = 200
    also: tuple[int, ...] = ()
    """Statuses it may answer with besides, for the documentation."""
    query: tuple[str, ...] = ()
    """The query parameters it reads; any other is refused."""
    probe: bool = False
    """Answers whoever reaches it, under whatever host: those who watch a server name it by its address."""
    own_origin: bool = True
    """Judged by Fetch Metadata and Origin. Off where a registered client, not a browser, speaks."""
    fences: bool = False
    """Ends something, and answers 202 until that is fenced; `Prefer: wait=N` waits."""
    hangs: bool = False
    """Waits for something to happen, and is given up when its client hangs up. Never what changes anything."""


class Call:
    """One request at one route: everything a handler may ask."""

    __slots__ = (
        "_presented",
        "api",
        "body",
        "caller",
        "client",
        "cookies",
        "form",
        "params",
        "query",
        "request",
        "service",
        "verifier",
    )

    def __init__(self, api: Api, request: Request, params: Mapping[str, str]) -> None:
        self.api, self.request, self.params = api, request, params
        self.cookies = api.cookies
        self._presented: Presented | None = None
        self.caller: Caller | None = None
        self.service: RegisteredClient | None = None
        self.verifier: VerifierKey | None = None
        """On a route that demands one, None is a verifier on this machine in the development setting."""
        self.client: Client = _NOBODY
        self.body: Any = None
        self.form: dict[str, str] = {}
        self.query: dict[str, str] = {}

    @property
    def presented(self) -> Presented:
        """Our cookies in this request. Read only where a handler asks, so public documents stay public."""
        if self._presented is None:
            self._presented = self.cookies.present(self.request.cookie())
        return self._presented

    def unproven(self) -> NotAuthenticated:
        """The refusal of a request that proves nobody. It says so if a cookie of ours is in doubt."""
        return self.presented.doubt or NotAuthenticated("no proof was sent")

    def clearing(self, response: Response) -> Response:
        """Let the browser forget our cookies that are in doubt, once a request got in without them."""
        if self._presented is None or not self._presented.clearing:
            return response
        anew = {value.partition(b"=")[0] for name, value in response.headers if name == b"set-cookie"}
        cleared = [each for each in self._presented.clearing if each[1].partition(b"=")[0] not in anew]
        return Response(response.status, [*response.headers, *cleared], response.body, kind=response.kind)

    @property
    def authority(self) -> Authority:
        return self.api.authority

    @property
    def directory(self) -> Directory:
        return self.api.directory

    @property
    def required(self) -> Caller:
        """The caller, on a route that demands one."""
        if self.caller is None:
            raise NotAuthenticated("no proof was sent")
        return self.caller

    @property
    def from_browser(self) -> bool:
        """Whether a browser's page sent this. What is missing here proves nothing; it only chooses a default."""
        return self.request.header(b"origin") is not None or self.request.header(b"sec-fetch-site") is not None

    def observed(self) -> Client:
        """Describe the client at the other end; done once, and only where it is written down."""
        if self.client is _NOBODY:
            site = self.api.site
            agent = self.request.header(b"user-agent") or ""
            self.client = observe(self.request.client, agent, devices=site.devices, countries=site.countries)
        return self.client

    def bearer(self) -> str | None:
        """The token of an Authorization header (RFC 6750), or None. Raises `InvalidToken` for one it cannot be."""
        scheme, token = self.request.credentials()
        if scheme != "bearer":
            return None
        if not token or " " in token:
            raise InvalidToken("malformed Authorization header")
        return token

    def csrf_token(self, session_id: str) -> str:
        return origins.csrf_token(self.api.site.csrf_key, session_id)

    def check_csrf(self, *session_ids: str) -> None:
        """Raises `CsrfRefused` unless the page that sent this knows the token of one of these sessions."""
        origins.check_csrf(self.api.site.csrf_key, self.request.header(b"x-csrf-token"), *session_ids)

    def judge(self, method: str, *, by_cookie: bool, handshake: bool) -> None:
        """Judge a request to the application behind or around this API as its own would be. Raises `CrossSite`."""
        origin, listed = self.request.header(b"origin"), self.api.site.cors.origins
        if handshake:
            origins.judge_handshake(by_cookie=by_cookie, origin=origin, host_origin=self.request.origin, listed=listed)
        origins.judge(
            method,
            sec_fetch_site=self.request.header(b"sec-fetch-site"),
            origin=origin,
            host_origin=self.request.origin,
            listed=listed,
        )

    async def identify(self) -> Caller | None:
        """Find out who sent this, by the session cookie or a bearer token.

        Raises:
            InvalidToken, NotAuthenticated: something was sent that does not hold.
            BadRequest: two proofs that name different sign-ins.
            Unavailable: the store is out of reach.
        """
        token, line = self.bearer(), self.request.cookie()
        try:
            cookie = self.cookies.session(line)
        except AmbiguousCookie:
            if token is None:
                raise
            cookie, self._presented = None, self.cookies.present(line)
        by_token = by_cookie = None
        if token is not None:
            principal = await self.authority.verify(token)
            by_token = Caller(principal=principal, account=None, session=None, by_cookie=False)
        if cookie is not None:
            held = await self.authority.resume(cookie)
            by_cookie = Caller(principal=held.principal, account=held.account, session=held.session, by_cookie=True)
        if by_token is None or by_cookie is None:
            return by_token or by_cookie
        a, b = by_token.principal, by_cookie.principal
        # Whichever we picked, someone could make the other one count: a planted cookie beside an honest token.
        if a.subject != b.subject or a.session_id not in {None, b.session_id}:
            raise BadRequest("The cookie and the bearer token name different sign-ins. Send one.", code="two_callers")
        return by_cookie

    async def holding(self) -> tuple[Account, Session | None]:
        """The caller's account and session, looked up if the proof was a token; no session for a stateless one.

        Raises `NotAuthenticated` when one of them has ended.
        """
        caller = self.required
        if caller.account is not None:
            return caller.account, caller.session
        principal = caller.principal
        if principal.session_id is None:
            account = await self.authority.store.account(principal.subject)
            if account is None or not account.active:
                raise NotAuthenticated("the account ended")
            return account, None
        held = await self.authority.recall(principal.session_id)
        # Whose token it is and whose session it names are one fact from two places: an answer never mixes two people.
        if held is None or held.session.subject != principal.subject:
            raise InvalidToken("the token names no session of its subject")
        # A verifier's leeway lets a token live a moment longer than its session may.
        check_live(held.session, held.account, self.authority.clock())
        return held.account, held.session


class Api:
    """Every route, over one authority and one directory."""

    def __init__(self, authority: Authority, directory: Directory, site: Site, routes: Sequence[Route]) -> None:
        self.authority, self.directory, self.site, self.routes = authority, directory, site, tuple(routes)
        self.cookies = site.cookies
        self.refresh_rate = LocalBuckets()
        self.verifiers = Verifiers(authority, directory.limits)
        self.waiting_for_fences = 0
        self.outages, self.readiness = Outages(authority.fencing.now, authority.hooks.unavailable), Readiness(authority)
        self._readers = {
            route.body: JsonBody(route.body, at_most=route.body_at_most)
            for route in self.routes
            if route.body is not None
        }
        self._security = SecurityHeaders(hsts=site.cookies.secure)

    def admit(self, request: Request) -> Response | None:
        """The phases before a route is known. Gives a preflight's answer, if it is one; raises what refuses the
        request.
        """
        self.site.edge.admit(request)
        cors = self.site.cors
        # The proxy first: what `passes` refuses is for a configured one to read.
        if self.site.edge.came_through_proxy(request) and cors.passes(request):
            return Response(204)
        return cors.preflight(request)

    async def answer(self, route: Route, request: Request, params: Mapping[str, str]) -> Response:
        """Take an admitted request through the phases of its route. Raises what refuses it."""
        unsafe = request.method not in origins.SAFE_METHODS
        call = Call(self, request, params)
        if unsafe and route.own_origin:
            call.judge(request.method, by_cookie=False, handshake=False)
        if request.query and not route.form:
            call.query = read_query(request, known=route.query)
        if route.demands == "client" or (route.demands == "asker" and not self._is_verifiers(call)):
            call.service = await self.service(call)
        elif route.demands in {"verifier", "asker"}:
            call.verifier = await self.verifier(call)
        elif route.demands != "anyone":
            call.caller = await call.identify()
            caller = call.required
            if route.demands == ADMIN and not caller.principal.has_role(ADMIN):
                raise Forbidden("the role admin is needed")
            if route.demands == ADMIN and unsafe:
                self._check_fresh(caller.principal)
            if unsafe and caller.by_cookie and caller.session is not None:
                call.check_csrf(caller.session.id)
        if route.form:
            call.form = read_form(request)
        elif route.body is not None:
            reader = self._readers[route.body]
            call.body = reader.read_if_sent(request) if route.optional_body else reader.read(request)
        return call.clearing(await route.handler(call))

    def refusal(self, request: Request, error: Exception) -> Response:
        if isinstance(error, Unavailable):
            self.outages.note(error)
        return problem(error, path=request.path)

    def finish(self, request: Request, response: Response) -> list[Header]:
        """All headers of the answer. After a refusal by `admit` too, so it decides by nothing that was not checked."""
        headers = self._security.finish(response)
        with suppress(DutchdoorError):  # an Origin sent twice gets no CORS headers
            more = self.site.cors.headers(request)
            if not more or more[0] not in headers:  # a preflight's answer has them: allowed twice, browsers refuse it
                headers.extend(more)
        return headers

    def _check_fresh(self, principal: Principal) -> None:
        """Raises `StepUpRequired` unless the password was proved a moment ago: an administrator's browser that was left
        open, or a session that was stolen long after its log-in, changes nothing.
        """
        policy = self.authority.policy
        if self.authority.clock() - principal.auth_time > policy.step_up_for:
            raise StepUpRequired("an administrator's proof is too old", max_age=policy.step_up_for)

    def _is_verifiers(self, call: Call) -> bool:
        """Whether a verifier asks, and not a registered client: with a key, or without where none is needed."""
        scheme, _ = call.request.credentials()
        return scheme == "bearer" or (not scheme and self.site.edge.development)

    async def verifier(self, call: Call) -> VerifierKey | None:
        """Authenticate a verifier by its key as a bearer token, never by a cookie. On this machine alone, without a
        public URL, none is needed, and whoever sends none gives None.

        Raises `NotAuthenticated`, `UnknownVerifier`, `Unavailable`.
        """
        text = call.bearer()
        if text is not None:
            try:
                return await self.verifiers.recognise(text)
            except InvalidToken as error:
                raise UnknownVerifier(error.reason) from None
        if self.site.edge.development and call.request.header(b"authorization") is None:
            return None
        message = "Send a verifier key as a bearer token. `dutchdoor verifier add` makes one."
        raise NotAuthenticated("no verifier key", message=message)

    async def service(self, call: Call) -> RegisteredClient:
        """Authenticate a confidential client by HTTP Basic (RFC 6749, section 2.3.1). Raises `NotAuthenticated`."""
        name, text = _basic(*call.request.credentials())
        try:
            secret = ClientSecret.parse(text)
        except InvalidToken:
            raise NotAuthenticated("malformed client secret") from None
        found = await self.authority.store.get(RegisteredClient, name)
        # The same comparison for an unknown client: its name would otherwise show in the time.
        if not secret.matches(found.secret_hash if found else b"\0" * 32) or found is None:
            raise NotAuthenticated("unknown client or wrong secret")
        return found


def _basic(scheme: str, encoded: str) -> tuple[str, str]:
    """Read HTTP Basic credentials (RFC 7617). Raises `NotAuthenticated` for none, and for what is none."""
    if scheme != "basic" or len(encoded) > 512:  # noqa: PLR2004 - ours have 120
        raise NotAuthenticated("no client credentials")
    try:
        name, colon, secret = pybase64.b64decode(encoded, validate=True).decode("ascii").partition(":")
    except (NotBase64, ValueError):
        raise NotAuthenticated("malformed client credentials") from None
    if not colon:
        raise NotAuthenticated("malformed client credentials")
    return name, secret


_NOBODY = Client()
