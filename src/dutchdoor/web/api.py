"""What every handler has: the API, and one request at one route, with the client that sent it.

`phases.py` says what a request passes before its handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import (
    DeviceProofRequired,
    DutchdoorError,
    InvalidToken,
    NotAuthenticated,
    NotFound,
    RateLimited,
    SessionInDoubt,
    StepUpRequired,
    Unavailable,
)
from dutchdoor.jose.dpop import DpopProof
from dutchdoor.model.accounts import ADMIN, Account
from dutchdoor.model.acting import Acting
from dutchdoor.model.base_path import whole_path
from dutchdoor.model.bindings import ProvedKey
from dutchdoor.model.http_client import Client, CountryReader, DeviceReader, observe
from dutchdoor.model.principal import Principal
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.model.sessions import Session, check_live
from dutchdoor.services.accounts import Directory
from dutchdoor.services.device_binding import ONE_OFFER, DeviceBindings
from dutchdoor.services.hooks import notify
from dutchdoor.services.seen_lately import Carried
from dutchdoor.services.session_cache import Remembered
from dutchdoor.services.sessions import Authority
from dutchdoor.services.watching import Use
from dutchdoor.services.webhooks import Webhooks
from dutchdoor.texts import mark
from dutchdoor.web import origin as origins
from dutchdoor.web.body import BODY_AT_MOST, Body
from dutchdoor.web.browser import wants_a_page
from dutchdoor.web.cookies import Cookies, Presented
from dutchdoor.web.cors import CHECK_PATH, Cors
from dutchdoor.web.device_binding import OFFER, UNANSWERED, offers, why_unproved
from dutchdoor.web.dpop import proof_about_another, proof_in
from dutchdoor.web.forwarded import Edge
from dutchdoor.web.headers import Hsts
from dutchdoor.web.health import Outages, Readiness
from dutchdoor.web.http import AmbiguousCookie, BadRequest, Header, Request, Response
from dutchdoor.web.problems import problem
from dutchdoor.web.rate import LocalBuckets
from dutchdoor.web.settings_report import Report
from dutchdoor.web.tally import Tally
from dutchdoor.web.verifiers import Verifiers

__all__ = ["ADMIN", "Api", "Call", "Caller", "Route", "Site", "carried_by"]

Demand = Literal["anyone", "caller", "admin", "client", "verifier", "introspection"]
"""Who may use a route: anyone; a signed-in caller; a caller with the role `admin`; a client with its secret;
a verifier with its key; or an introspection client, which is a client or a verifier."""


class Site(Struct, frozen=True, kw_only=True):
    """The configuration of the web API, resolved and checked."""

    edge: Edge
    cors: Cors
    cookies: Cookies
    csrf_key: bytes
    devices: DeviceReader
    countries: CountryReader
    base_path: str = ""
    """What stands before every path, such as `/id`."""
    sign_in_page: str = ""
    """The path of the application's sign-in page; "" for none."""
    confirm_page: str = ""
    """The path of our page to prove again who one is; "" where people sign in on a page of the application."""
    product: str = "dutchdoor"
    security_contact: str = ""
    """`mailto:` or `https:` address for security.txt; "" for none."""
    error_page: Callable[[Request, Exception, Response], Response] | None = None
    """Returns the page for a browser to which a problem document would mean nothing."""
    hsts: Hsts = "host"
    clear_site_data: bool = False
    """Whether a log-out by cookie makes the browser clear its cache and storage of this origin."""

    def __repr__(self) -> str:
        return f"Site(product={self.product!r}, secure={self.cookies.secure})"


class Caller(Struct, frozen=True, kw_only=True):
    """Who sent a request, and with which proof."""

    principal: Principal
    account: Account | None
    """None for a bearer token, which needs no look-up."""
    session: Session | None
    by_cookie: bool


Handler = Callable[["Call"], Awaitable[Response]]


class Route(Struct, frozen=True, kw_only=True):
    """One endpoint: who may use it, what it reads, what it returns, and its sentence in the documentation."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    """The path, with `{name}` for a parameter of one segment."""
    handler: Handler
    summary: str
    demands: Demand = "anyone"
    body: type[Body] | None = None
    """The type of the JSON body; None if the endpoint reads no JSON."""
    body_at_most: int = BODY_AT_MOST
    """Limit for the body, in bytes."""
    form: tuple[str, ...] = ()
    """The parameters that the endpoint reads from a form instead (under /oauth2/)."""
    optional_body: bool = False
    gives: Any = None
    status: int = 200
    also: tuple[int, ...] = ()
    """Further statuses of a response, for the documentation."""
    query: tuple[str, ...] = ()
    """The query parameters that the endpoint reads. Others are refused."""
    query_of_another: bool = False
    """Whether the query belongs to another request than this one, and is not read."""
    probe: bool = False
    """Whether the endpoint answers every client under every host name: monitoring uses the address of the server."""
    fresh: bool = False
    """Whether the caller must have proved who they are not longer ago than `step_up_for`."""
    in_doubt: bool = False
    """Whether a sign-in that its owner must prove again may use the endpoint, to do so."""
    by_refresh_cookie: bool = False
    """Whether a refresh cookie proves the caller, too: on the pages of one's own account, and for what they send."""
    own_origin: bool = True
    """Whether Fetch Metadata and Origin are checked. False for endpoints of registered clients, not browsers."""
    fences: bool = False
    """Whether the endpoint revokes something, and answers 202 until that is fenced. `Prefer: wait=N` waits."""
    bundled: bool = False
    """Whether the endpoint needs the bundled accounts: it is absent where the application has users of its own."""
    unproven: Callable[[Call, DutchdoorError], Response] | None = None
    """Answers a request without a valid proof. None: the 401 of every endpoint."""
    page: Page | None = None
    """What reads and answers the form of a page, if a browser sends one in place of JSON."""
    hangs: bool = False
    """Whether the endpoint is a long poll, which is cancelled when the client hangs up. It must not change data."""


class Page(Protocol):
    """The form of a page: a second way into an endpoint, for a browser without a script."""

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        """Return the fields of the body that a program would have sent."""
        ...

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        """Return where the browser goes after the endpoint has done its work."""
        ...

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        """Return the page once more, with what was wrong. Only harmless fields keep their value."""
        ...


class Call:
    """One request at one route, with everything that a handler needs."""

    __slots__ = (
        "_presented",
        "api",
        "body",
        "caller",
        "client",
        "cookies",
        "csrf_field",
        "form",
        "params",
        "proved",
        "query",
        "request",
        "service",
        "verifier",
    )

    def __init__(self, api: Api, request: Request, params: Mapping[str, str]) -> None:
        self.api, self.request, self.params = api, request, params
        self.proved: ProvedKey | None = None
        """The key that the client has proved to hold, with its access token or by itself."""
        self.cookies = api.cookies
        self._presented: Presented | None = None
        self.caller: Caller | None = None
        self.service: RegisteredClient | None = None
        self.verifier: VerifierKey | None = None
        """On a route that demands a verifier, None is a verifier on this machine without a key, in development."""
        self.client: Client = _NOT_OBSERVED
        self.body: Any = None
        self.form: dict[str, str] = {}
        self.csrf_field: str | None = None
        """The CSRF token in the form of a page."""
        self.query: dict[str, str] = {}

    @property
    def presented(self) -> Presented:
        """The cookies of this server in the request. Read on demand, so that public documents do not depend on them."""
        if self._presented is None:
            self._presented = self.cookies.present(self.request.cookie())
        return self._presented

    def unproven(self) -> NotAuthenticated:
        """Return the error for a request without a proof, or for an ambiguous cookie of this server."""
        return self.presented.doubt or self.request.unproven()

    def clearing(self, response: Response) -> Response:
        """Make the browser delete ambiguous cookies of this server, after a request succeeded without them."""
        if self._presented is None or not self._presented.clearing:
            return response
        anew = {value.partition(b"=")[0] for name, value in response.headers if name == b"set-cookie"}
        cleared = [each for each in self._presented.clearing if each[1].partition(b"=")[0] not in anew]
        return response.beside(*cleared)

    @property
    def authority(self) -> Authority:
        return self.api.authority

    @property
    def directory(self) -> Directory:
        return self.api.directory

    @property
    def webhooks(self) -> Webhooks:
        return self.api.webhooks

    @property
    def required(self) -> Caller:
        """The caller, on a route that requires one."""
        if self.caller is None:
            raise self.request.unproven()
        return self.caller

    @property
    def actor(self) -> str:
        """The subject of the caller. Raises `NotAuthenticated`."""
        return self.required.principal.subject

    @property
    def by(self) -> Acting:
        """Who asks for a change, and from which client. Raises `NotAuthenticated`."""
        return {"client": self.observed(), "actor": self.actor}

    async def account_of(self, subject: str) -> Account:
        """Return the account of a subject. Raises `NotFound`."""
        account = await self.authority.store.account(subject)
        if account is None:
            raise NotFound("no such account")
        return account

    @property
    def marks(self) -> str:
        """What the known-device cookie holds; "" for none."""
        return self.cookies.mark.value(self.request.cookie())

    @property
    def from_browser(self) -> bool:
        """Whether a page in a browser sent this. Missing headers prove nothing, so this only chooses a default."""
        return self.request.header(b"origin") is not None or self.request.header(b"sec-fetch-site") is not None

    def observed(self) -> Client:
        """Describe the client. Computed once, and only if a handler records it."""
        if self.client is _NOT_OBSERVED:
            site = self.api.site
            agent = self.request.header(b"user-agent") or ""
            languages = self.request.header_list(b"accept-language") or ""
            seen = observe(self.request.client, agent, languages, devices=site.devices, countries=site.countries)
            self.client = replace(seen, proved=self.proved, browser_key=self.cookies.key.value(self.request.cookie()))
        return self.client

    def csrf_token(self, session_id: str) -> str:
        return origins.csrf_token(self.api.site.csrf_key, session_id)

    def check_csrf(self, *session_ids: str, field: str | None = None) -> None:
        """Raise `CsrfRefused` unless the request carries the CSRF token of one of these sessions: in the header, or in
        the `field` that an adapter has found in a form.
        """
        sent = self.request.header(b"x-csrf-token")
        in_form = self.csrf_field if field is None else field
        origins.check_csrf(self.api.site.csrf_key, in_form if sent is None else sent, *session_ids)

    def judge(self, method: str, *, by_cookie: bool, handshake: bool) -> None:
        """Check a request to the embedding or proxied application like a request to this API. Raises `CrossSite`."""
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

    async def identify(self, *, in_doubt: bool = False, by_refresh_cookie: bool = False) -> Caller | None:
        """Identify the caller by the session cookie or a bearer token, and look at how they use it. With `in_doubt`
        also a sign-in that must be proved again. With `by_refresh_cookie`, that cookie will do if there is no other
        proof.

        Raises:
            InvalidToken, NotAuthenticated: the cookie or token is not valid.
            DeviceProofRequired: the session is bound to its browser, which has to prove that first.
            StepUpRequired: the owner of the sign-in must prove again who they are.
            BadRequest: the cookie and the token belong to different sign-ins.
            Unavailable: the store is unavailable.
        """
        token, proof, cookie = self._proofs()
        principal = None if token is None else await self.authority.verify(token, proof, in_doubt=in_doubt)
        if by_refresh_cookie and token is None and cookie is None:
            held = await self._opening(in_doubt=in_doubt)
        else:
            held = None if cookie is None else await self.authority.resume(cookie, in_doubt=in_doubt)
            if held is not None and (held.principal.bound_to or self.api.demands_binding):
                self.check_device(held.session)
        caller = self._caller(principal, held)
        if caller is None or (in_doubt and self.must_prove(caller.principal)):
            return caller
        try:
            await self.look_at_use(caller.principal, held)
        except SessionInDoubt:
            # A thief who knows the password, too, would begin with a proof: it has to be one of a sign-in in doubt.
            if not in_doubt:
                raise
            await self.authority.fencing.catch_up()  # so that `must_prove` knows
        return caller

    async def _opening(self, *, in_doubt: bool) -> Remembered | None:
        """Return the session of the refresh cookie with which a browser opens a page; None without one."""
        token = self.cookies.refresh.find(self.request.cookie())
        if token is None:
            return None

        def exchanging(session: Session) -> None:
            limit = bucket_of(self.directory.limits.refresh_by_session, session.id)
            self.api.refresh_rate.take([limit], self.authority.clock())

        held, signed_in = await self.authority.opened_by(
            token, self.observed(), admit=self.check_device, exchanging=exchanging, in_doubt=in_doubt
        )
        if signed_in is not None and signed_in.rotated:
            lives_for = held.session.expires_at - self.authority.clock()
            self.request.renewed = self.cookies.refresh.set(signed_in.refresh_token, max_age=lives_for)
        return held

    def must_prove(self, principal: Principal) -> bool:
        """Whether the sign-in of a caller is refused until its owner proves again who they are."""
        return self.authority.must_prove(principal.session_id or principal.token_id)

    async def look_at_use(self, principal: Principal, held: Remembered | None = None) -> None:
        """Look at a use of a sign-in that differs from the one before it. `held` is its session, if a cookie proved it.

        Raises `NotAuthenticated` and `StepUpRequired`.
        """
        if not self._is_used_as_before(principal):
            await self._sight(principal, held)

    def identify_at_once(self) -> tuple[bool, Caller | None]:
        """Do what `identify` does in any thread and without waiting. (False, None) if it has to wait. Raises what
        `identify` raises.
        """
        token, proof, cookie = self._proofs()
        held = None if cookie is None else self.authority.resume_at_once(cookie)
        if cookie is not None and held is None:
            return False, None
        if held is not None and (held.principal.bound_to or self.api.demands_binding):
            self.check_device(held.session)
        if held is not None and not self._is_used_as_before(held.principal):
            return False, None
        if token is not None:
            again = self.authority.verify_again_at_once(token)
            if again is None or not self._is_used_as_before(again):
                return False, None
        # Last: it takes the proof, which `identify` could not take again.
        principal = None if token is None else self.authority.verify_at_once(token, proof)
        if token is not None and principal is None:
            return False, None
        return True, self._caller(principal, held)

    def check_device(self, session: Session, *, by_cookie: bool = True) -> None:
        """Refuse a request of a `session` that is bound to its browser, unless that has proved its key a short while
        ago. `by_cookie` says whether the session is proved by a cookie, which the policy may want bound.

        Raises `DeviceProofRequired`, or `Unavailable` where the browser says that its proof got no answer.
        """
        line = self.request.cookie()
        try:
            demands = by_cookie and self.api.demands_binding
            self.api.bindings.check(session, self.cookies.bound.value(line), demands=demands)
        except DeviceProofRequired as error:
            # A cookie that proves nothing here keeps the browser from fetching one that does: the clocks of two nodes
            # differ, or it is of an earlier session.
            error.clearing = self.cookies.bound.clearing(line)
            why = why_unproved(self.request) if session.bound_key else "unbound"
            notify(self.authority.hooks.unproved, why)
            if why in UNANSWERED and self.request.path != CHECK_PATH and not wants_a_page(self.request):
                # Refused either way. But the browser has its key and got no answer, and a page's script would take a
                # 401 for a log-out. People who open a page may sign in, in case no proof ever comes through. A proxy
                # that asks here understands 401 and 403 alone.
                raise Unavailable("the browser got no answer to its proof") from None
            raise

    def offer(self, session: Session | None, *, anew: bool = True) -> list[Header]:
        """Ask the browser to bind a `session` to its device, if it is to be asked. `anew` says that the answer sets the
        cookie of a new sign-in. That sign-in has taken the key which the browser brought, so the next one gets another.
        """
        if session is None:
            return []
        taken = self.cookies.key.clearing(self.request.cookie()) if anew else None
        return [*([] if taken is None else [taken]), *self._offer(session, anew=anew)]

    def _offer(self, session: Session, *, anew: bool) -> list[Header]:
        if not self.cookies.secure:  # browsers bind nothing without TLS
            return []
        cookie = "" if anew else self.cookies.bound.value(self.request.cookie())
        challenge = self.api.bindings.challenge_for(session, anew=anew, cookie=cookie)
        if not challenge:
            return []
        if not anew:
            try:
                self.api.refresh_rate.take([bucket_of(ONE_OFFER, session.id)], self.authority.clock())
            except RateLimited:
                return []
        return [offers(challenge, self.base)]

    def offering(self, response: Response) -> Response:
        """Ask a browser again that has not bound its young session: an answer may have been lost."""
        caller = self.caller
        if caller is None or not caller.by_cookie or self.request.path == CHECK_PATH or caller.principal.bound_to:
            return response
        if any(name == OFFER for name, _ in response.headers):
            return response
        asked = [] if self.must_prove(caller.principal) else self.offer(caller.session, anew=False)
        return response.beside(*asked) if asked else response

    @property
    def base(self) -> str:
        """What stands before every path of this API, as browsers see it."""
        return whole_path("", self.request.mount) or self.api.site.base_path

    def _is_used_as_before(self, principal: Principal) -> bool:
        """Whether the sign-in comes from where it came from, or is not watched."""
        authority = self.authority
        if not authority.watches:
            return True
        used = principal.session_id or principal.token_id
        return authority.seen_lately.is_same(used, carried_by(self.request), authority.clock())

    async def _sight(self, principal: Principal, held: Remembered | None) -> None:
        """Look at a use that differs from the one before it. Raises `NotAuthenticated` and `StepUpRequired`."""
        if held is None and principal.session_id is not None:
            held = await self.authority.recall(principal.session_id)
            if held is None:
                raise InvalidToken("the token names no session")
        with suppress(BadRequest):  # the client is then the peer, and an unknown proxy is none that is watched
            self.api.site.edge.admit(self.request)
        use = Use(
            subject=principal.subject,
            session=None if held is None else held.session,
            token_id=principal.token_id if held is None else "",
            last_use=0.0 if held is None else held.used_before,
            client_id=principal.client_id,
            # The access tokens of a session may be used in another program than its refresh cookie.
            by_cookie=principal.method == "session" and (held is None or held.session.mode == "session"),
            bound=bool(principal.bound_to),
        )
        await self.authority.sight(use, self.observed(), carried=carried_by(self.request))

    def _caller(self, principal: Principal | None, held: Remembered | None) -> Caller | None:
        if principal is not None and principal.bound_to:
            self.proved = ProvedKey(principal.bound_to)
        return _caller(principal, held)

    def _proofs(self) -> tuple[str | None, DpopProof | None, str | None]:
        """Return the access token, the proof of its key if it came by the scheme DPoP, and the session cookie of the
        request. Raises `InvalidToken`, `BadRequest`.
        """
        (token, by_dpop), line = self.request.access_token(), self.request.cookie()
        proof = self._dpop_proof() if by_dpop else None
        try:
            return token, proof, self.cookies.session.find(line)
        except AmbiguousCookie:
            if token is None:
                raise
            self._presented = self.cookies.present(line)
            return token, proof, None

    def _dpop_proof(self) -> DpopProof:
        request = self.request
        if not request.host:  # a request to the application around this
            self.api.site.edge.admit(request)
        if request.path == CHECK_PATH and self.api.site.edge.came_through_proxy(request):
            return proof_about_another(request)
        return proof_in(request, request.origin, whole_path(request.path, request.mount))

    def prove_key(self) -> None:
        """Check the proof of a client that has no access token yet, to sign in or to refresh. Its one use is counted
        where a refresh token is exchanged: a copied sign-in would need the password as well.

        Raises `InvalidDpopProof`, `UseDpopNonce`, `BadRequest`.
        """
        proved = self.authority.proofs.read(self._dpop_proof(), None, self.authority.clock())
        self.proved = ProvedKey(proved.thumbprint, proved.alg, proved.spent_as)

    def with_nonce(self, response: Response) -> Response:
        """Give a client that proves its key the nonce for its next proofs, before the one that it has is too old."""
        if self.proved is None:
            return response
        return response.beside((b"dpop-nonce", self.authority.proofs.nonce(self.authority.clock()).encode("ascii")))

    async def holding(self) -> tuple[Account, Session | None]:
        """Return the account and the session of the caller, read from the store if the proof was a token.

        The session is None for a stateless token. Raises `NotAuthenticated` if one of them was revoked.
        """
        caller = self.required
        if caller.account is not None:
            return caller.account, caller.session
        principal = caller.principal
        if principal.session_id is None:
            account = await self.authority.store.account(principal.subject)
            if account is None or not account.active:
                raise NotAuthenticated("the account is disabled or removed")
            return account, None
        held = await self.authority.recall(principal.session_id)
        # The token and the session must have the same subject: a response must never mix data of two users.
        if held is None or held.session.subject != principal.subject:
            raise InvalidToken("the token names no session of its subject")
        # With the clock leeway, a token may be accepted a moment longer than its session lives.
        check_live(held.session, held.account, self.authority.clock())
        return held.account, held.session


def carried_by(request: Request) -> Carried:
    """Return all that a request says of where it comes from and of its browser, as it came."""
    found = request.by_name.get
    return request.peer, found(b"user-agent"), found(b"x-forwarded-for"), found(b"x-real-ip"), found(b"forwarded")


class Api:
    """Every route, over one authority, its directory and its webhooks."""

    def __init__(
        self,
        authority: Authority,
        directory: Directory,
        webhooks: Webhooks,
        site: Site,
        routes: Sequence[Route],
    ) -> None:
        self.authority, self.directory, self.webhooks = authority, directory, webhooks
        self.site, self.routes = site, tuple(routes)
        self.cookies = site.cookies
        self.refresh_rate = LocalBuckets()
        self.bindings = DeviceBindings(authority)
        self.verifiers = Verifiers(authority, directory.limits)
        self.waiting_for_fences = 0
        self.first_request: Callable[[Request], None] | None = None
        """Called with each request until it sets this to None."""
        self.tally = Tally(authority.hooks, authority.clock)
        self.settings_report: Report | None = None
        """Reports on the settings of a server around this, for the console."""
        self.outages, self.readiness = Outages(authority.fencing.now, authority.hooks.unavailable), Readiness(authority)

    @property
    def demands_binding(self) -> bool:
        """Whether each cookie of a session must be bound to its browser. Without TLS, no browser can."""
        return self.authority.policy.device_binding == "required" and self.cookies.secure

    def refusal(self, request: Request, error: Exception) -> Response:
        if isinstance(error, Unavailable):
            self.outages.note(error)
        answer = problem(error, path=request.path)
        if self.site.error_page is not None and wants_a_page(request):
            return self.site.error_page(request, error, answer)
        return answer

    async def check_fresh(self, principal: Principal) -> None:
        """Raise `StepUpRequired` unless the caller authenticated recently, and with the account's second factor.

        Otherwise an open browser of an administrator, or a session stolen after its log-in, could change accounts.
        """
        # A session from before the factor, or in a remembered browser, and the password must not be enough.
        # First: proving the factor is a fresh proof, too, so that no one is asked twice.
        await self.directory.factors.check_proved(principal.subject, principal.amr)
        policy = self.authority.policy
        if self.authority.clock() - principal.auth_time > policy.step_up_for:
            # The password alone would be fresh, and not enough: who has a factor is asked for that at once.
            asked = 2 if (await self.directory.factors.of(principal.subject))[0] else 1
            raise StepUpRequired("the caller authenticated too long ago", max_age=policy.step_up_for, factors=asked)


def _caller(principal: Principal | None, held: Remembered | None) -> Caller | None:
    """Return the caller of a token's principal and a cookie's session. Raises `BadRequest` if the two contradict each
    other.
    """
    if held is None:
        if principal is None:
            return None
        return Caller(principal=principal, account=None, session=None, by_cookie=False)
    a, b = principal, held.principal
    # An attacker may plant a cookie beside the client's own token. Neither of the two may win.
    if a is not None and (a.subject != b.subject or a.session_id not in {None, b.session_id}):
        raise BadRequest(
            mark("The cookie and the bearer token belong to different sign-ins. Send one."), code="two_callers"
        )
    return Caller(principal=b, account=held.account, session=held.session, by_cookie=True)


_NOT_OBSERVED = Client()
