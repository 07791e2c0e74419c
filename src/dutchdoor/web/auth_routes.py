"""Sign-ins over HTTP: log-in, refresh, log-out, sessions, and the check for a proxy. JSON in and out."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from msgspec import UNSET, UnsetType

from dutchdoor.errors import (
    DeviceProofRequired,
    DutchdoorError,
    Forbidden,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    NotFound,
    StepUpRequired,
)
from dutchdoor.model.accounts import Account
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Principal
from dutchdoor.model.rate_limits import bucket_of, by_address
from dutchdoor.model.refresh_tokens import RefreshToken
from dutchdoor.model.sessions import Session
from dutchdoor.services.browser import Browser
from dutchdoor.services.endings import Found
from dutchdoor.services.fencing import as_one
from dutchdoor.services.session_cache import GENERATION
from dutchdoor.stores.base import Revoked
from dutchdoor.texts import mark
from dutchdoor.web import origin as origins
from dutchdoor.web.api import Call, Caller, Route
from dutchdoor.web.browser import came_from_elsewhere
from dutchdoor.web.cors import CHECK_PATH
from dutchdoor.web.dpop import check_bound
from dutchdoor.web.fences import fence
from dutchdoor.web.headers import CLEAR_SITE_DATA
from dutchdoor.web.http import AmbiguousCookie, BadRequest, Header, Response, forwarded_method, json_response
from dutchdoor.web.schemas import (
    CsrfToken,
    Fence,
    Login,
    Me,
    NextStep,
    RefreshProof,
    Sessions,
    SessionView,
    SignedInView,
    Transport,
    UnfinishedSignIn,
    instant,
    session_view,
    user_view,
)
from dutchdoor.web.sign_in_answer import check_client, client_for, set_mark, signed_in_answer
from dutchdoor.web.sign_in_page import RELOAD_PATH, sent_to_sign_in

__all__ = [
    "ROUTES", "browser_of", "judge_token_in_body", "mode_and_transport", "signed_out", "started", "token_of_step",
]  # fmt: skip

# Signing in


async def login(call: Call) -> Response:
    body: Login = call.body
    mode, transport = mode_and_transport(call, body.mode, body.transport)
    client_id = await client_for(call, "" if body.client_id is UNSET else body.client_id)
    signed_in, marks = await call.directory.sign_in.by_password(
        body.email,
        body.password,
        await browser_of(call),
        mode=mode,
        client_id=client_id,
    )
    return signed_in_answer(call, signed_in, transport, started(call, marks, mode, transport))


def started(call: Call, mark: str, mode: Mode, transport: Transport) -> list[Header]:
    """Return the cookies beside those of a sign-in that has started: the mark is set, and what waited is cleared."""
    headers = [*set_mark(call, mark, mode, transport), *_clear_replaced(call, mode, transport)]
    return [*headers, *([call.cookies.step.cleared] if call.cookies.step.value(call.request.cookie()) else [])]


def _clear_replaced(call: Call, mode: Mode, transport: Transport) -> list[Header]:
    """Clear the cookies of the sign-in that a new one replaces. Otherwise one would stay beside the new proof, and
    every request with a dead proof is refused.
    """
    headers: list[Header] = []
    if call.presented.session is not None and mode != "session":
        headers.append(call.cookies.session.cleared)
    if call.presented.refresh is not None and (mode, transport) != ("hybrid", "cookie"):
        headers.append(call.cookies.refresh.cleared)
    return headers


def mode_and_transport(
    call: Call, asked_mode: Mode | UnsetType, asked: Transport | UnsetType
) -> tuple[Mode, Transport]:
    """Return the mode of a sign-in, and where a refresh token goes.

    Raises:
        InvalidInput: the mode is not offered, or has no transport.
        CrossSite: a page that is not listed asks for the refresh token in the body.
    """
    mode: Mode = call.authority.policy.default_mode if asked_mode is UNSET else asked_mode
    if mode not in call.authority.policy.modes:
        offered = ", ".join(call.authority.policy.modes)
        raise InvalidInput(f"The mode {mode!r} is not offered here. Offered: {offered}.", field="mode")
    return mode, _transport(call, mode, asked)


def _transport(call: Call, mode: Mode, asked: Transport | UnsetType) -> Transport:
    if mode != "hybrid":
        if asked is not UNSET:
            raise InvalidInput("Only the hybrid mode has a transport.", field="transport")
        check_bound(call.authority.policy, mode, in_body=True, bound=call.proved is not None)
        return "cookie"
    transport: Transport = ("cookie" if call.from_browser else "body") if asked is UNSET else asked
    if transport == "body":
        # A script injected into our own page must not be able to request what the cookie hides from it.
        judge_token_in_body(call)
    check_bound(call.authority.policy, mode, in_body=transport == "body", bound=call.proved is not None)
    return transport


def token_of_step(call: Call) -> str:
    """Return the token of a sign-in that is not finished, from the body or the cookie. Raises `NotAuthenticated`."""
    body: NextStep | UnfinishedSignIn | None = call.body
    token = UNSET if body is None else body.token
    found = call.cookies.step.value(call.request.cookie()) if token is UNSET else token
    if not found:
        raise NotAuthenticated("no sign-in waits for a step", message=mark("Sign in again: this sign-in has expired."))
    return found


def judge_token_in_body(call: Call) -> None:
    origins.judge_token_in_body(
        sec_fetch_site=call.request.header(b"sec-fetch-site"),
        origin=call.request.header(b"origin"),
        listed=call.api.site.cors.origins,
    )


async def browser_of(call: Call) -> Browser:
    """Return the client that signs in by this request, and what its cookies hold."""
    line = call.request.cookie()
    return Browser(
        call.observed(),
        marks=call.marks,
        remembered=call.cookies.remembered.value(line),
        registrant=call.cookies.registrant.value(line),
        visitor=call.cookies.visitor.value(line),
        replacing=await _sessions_of_cookies(call),
    )


async def _sessions_of_cookies(call: Call) -> list[Found]:
    """The live sessions that the cookies of this request prove. They are revoked when the browser signs in anew: a
    cookie that an attacker planted before a log-in is worthless after it.
    """
    live: list[Found] = []
    with suppress(AmbiguousCookie):  # too many to look up: the password proves this sign-in
        for found in await _held(call, even_ended=False):
            with suppress(NotAuthenticated):
                await _check_holder(call, found[0])
                live.append(found)
    return live


async def _held(call: Call, *, even_ended: bool) -> list[Found]:
    """The sessions of every cookie of ours in the request, including duplicates of one name. None of those proves who
    sent the request. The browser gives up all of them: they are cleared, or set anew.

    Raises `AmbiguousCookie` if there are more of them than any browser has.
    """
    found: list[Found] = []
    in_session, in_refresh = call.cookies.standing(call.request.cookie())
    for tokens, find in ((in_session, call.authority.bearer_of), (in_refresh, call.authority.holder)):
        for token in tokens:
            with suppress(NotAuthenticated):
                found.append(await find(token, even_ended=even_ended))
    return found


async def _check_holder(call: Call, session: Session) -> None:
    """Let a request revoke a session by its proof. Raises `NotAuthenticated` if the client must authenticate and did
    not.
    """
    if session.mode == "hybrid":
        await check_client(call, session.client_id)


async def renew(call: Call) -> Response:
    """Refresh. Never clears a valid cookie: the answer may be older than what the cookie jar holds by now."""
    text, transport = _refresh_token(call)
    token = RefreshToken.parse(text)
    if transport == "cookie":
        call.check_csrf(token.session_id)
    client_id = call.body.client_id if call.body is not None and call.body.client_id is not UNSET else ""
    await check_client(call, client_id or call.authority.client_id)
    limits = call.directory.limits
    now = call.authority.clock()

    def admit(session: Session) -> None:
        call.api.refresh_rate.take([bucket_of(limits.refresh_by_session, session.id)], now)
        # Also of a token in the body: a thief would take it out of the cookie.
        call.check_device(session, by_cookie=transport == "cookie")
        # From before the policy: its client signs in again, with a key.
        check_bound(call.authority.policy, "hybrid", in_body=transport == "body", bound=bool(session.bound_to))

    try:
        signed_in = await call.authority.refresh(
            token,
            call.observed(),
            client_id=client_id,
            admit=admit,
        )
    except InvalidToken:
        call.api.refresh_rate.take(by_address(limits.bad_refresh_by_address, call.observed().networks), now)
        raise
    return signed_in_answer(call, signed_in, transport, [], anew=False)


def _refresh_token_in_body(call: Call) -> str | None:
    body: RefreshProof | None = call.body
    return None if body is None or body.refresh_token is UNSET else body.refresh_token


def _refresh_token(call: Call) -> tuple[str, Transport]:
    """The refresh token and how it was sent; the answer goes the same way. Raises `BadRequest` for both at once."""
    in_body = _refresh_token_in_body(call)
    in_cookie = call.presented.refresh
    if in_body is not None and in_cookie is not None:
        raise BadRequest("Send the refresh token in the cookie or in the body, not in both.", code="two_refresh_tokens")
    if in_body is not None:
        judge_token_in_body(call)
        return in_body, "body"
    if in_cookie is None:
        raise call.unproven()
    return in_cookie, "cookie"


# Signing out


async def logout(call: Call) -> Response:
    """Revoke the caller's sign-in, whichever way it is proved. If it was revoked before, that is success too.

    Ambiguous cookies prove no caller, but the browser is made to delete them. Each session that one of them names is
    revoked; if none can be read, none is revoked.
    """
    authority, client = call.authority, call.observed()
    token, _ = call.request.access_token()  # without a proof: a client that has lost its key can sign out
    in_body = _refresh_token_in_body(call)
    claims = None if token is None else await authority.claims_of_any_age(token)
    held = await _held(call, even_ended=True)
    if held and token is None and in_body is None:
        call.check_csrf(*(session.id for session, _ in held))
    if in_body is not None:
        held.append(await authority.holder(in_body, even_ended=True))
    for session, _ in held:
        await _check_holder(call, session)
    done = [] if claims is None else [await authority.end_named(claims, client=client)]
    done += await _end_each(call, held)
    if not done:
        if call.presented.doubt is None:
            raise call.unproven()
        done.append(await authority.fencing.nothing_left())
    by_cookie = call.presented.session is not None or call.presented.refresh is not None
    return await fence(call, as_one(done), await signed_out(call, by_cookie=by_cookie))


async def _end_each(call: Call, held: list[Found]) -> list[Revoked]:
    client, end = call.observed(), call.authority.end
    return [await end(found[0].id, client=client, actor=found[0].subject, found=found) for found in held]


async def signed_out(call: Call, *, by_cookie: bool) -> list[Header]:
    """Return the headers that clear what a browser keeps of a sign-in."""
    headers = [call.cookies.session.cleared, call.cookies.refresh.cleared]
    bound = call.cookies.bound.clearing(call.request.cookie())
    if bound is not None:
        headers.append(bound)
    visitor = call.cookies.visitor.value(call.request.cookie())
    if visitor:  # what a stateless sign-in has kept
        await call.authority.data.forget_visitor(visitor)
        headers.append(call.cookies.visitor.cleared)
    # A program that sends a bearer token manages its own storage.
    if by_cookie and call.api.site.clear_site_data:
        headers.append(CLEAR_SITE_DATA)
    return headers


async def logout_all(call: Call) -> Response:
    caller = call.required
    subject = caller.principal.subject
    # The answer also clears the cookies of another account: the request may carry one beside a bearer token.
    others = [found for found in await _held(call, even_ended=False) if found[0].subject != subject]
    for session, _ in others:
        await _check_holder(call, session)
    forgetting = call.directory.sign_in.forgetting_devices
    done = [await call.authority.end_all(subject, client=call.observed(), actor=subject, also=forgetting)]
    done += await _end_each(call, others)
    return await fence(call, as_one(done), await signed_out(call, by_cookie=caller.by_cookie))


# Who am I, and my other sessions


async def me(call: Call) -> Response:
    caller = call.required
    account, session = await call.holding()
    if session is None:
        return json_response(200, _me(account, None, caller.principal))
    # The most frequent answer. It is encoded once per read of the session; another read is another object.
    said = caller.principal
    # An access token from before a step-up says less than the session does.
    key = session.id, caller.by_cookie, said.amr, said.auth_time
    shown = _shown.get(key)
    if shown is None or shown[0] is not session or shown[1] is not account:
        view = _me(account, session_view(session, session.id), said)
        if len(_shown) >= GENERATION:
            _shown.clear()
        shown = _shown[key] = session, account, json_response(200, view)
    return shown[2]


def _me(account: Account, session: SessionView | None, said: Principal) -> Me:
    return Me(user_view(account), session, said.method, said.amr, said.acr, instant(said.auth_time))


_shown: dict[tuple[str, bool, tuple[str, ...], float], tuple[Session, Account, Response]] = {}


async def list_sessions(call: Call) -> Response:
    principal = call.required.principal
    live = await call.authority.sessions(principal.subject)
    return json_response(200, Sessions([session_view(session, principal.session_id) for session in live]))


async def end_session(call: Call) -> Response:
    principal, ended = call.required.principal, call.params["id"]
    if ended != principal.session_id:  # a log-out asks for nothing
        await call.api.check_fresh(principal)
    subject = principal.subject
    done = await call.authority.end(
        ended, client=call.observed(), actor=subject, reason="ended_by_owner", subject=subject
    )
    return await fence(call, done)


async def end_others(call: Call) -> Response:
    principal = call.required.principal
    if call.query.get("except") != "current":
        raise BadRequest("Say which to keep: DELETE /auth/sessions?except=current", code="except_missing")
    done = await call.authority.end_others(principal.subject, principal.session_id or "", client=call.observed())
    return await fence(call, done)


async def csrf(call: Call) -> Response:
    """The token for the caller's session, proved by its cookie, its access token or its refresh cookie."""
    if call.presented.refresh is not None and call.presented.session is None and call.request.access_token()[0] is None:
        session, _ = await call.authority.holder(call.presented.refresh)
        return json_response(200, CsrfToken(call.csrf_token(session.id), "hybrid"))
    caller: Caller | None = await call.identify(in_doubt=True)  # to prove again takes one, too
    if caller is None:
        raise call.request.unproven()
    if caller.principal.session_id is None:
        raise NotFound("a stateless token has no session")
    mode: Literal["session", "hybrid"] = "session" if caller.by_cookie else "hybrid"
    return json_response(200, CsrfToken(call.csrf_token(caller.principal.session_id), mode))


# For a proxy


async def check(call: Call) -> Response:
    """Answer nginx `auth_request` and the like: 204 with the caller's identity. `unproven` answers the others.

    The proxy asks about another request than this one. A forwarded header carries that request's method, and the
    client's headers carry its origin and the signs of a WebSocket handshake. A cookie alone never lets a cross-site
    POST or a cross-site handshake through.
    """
    method, caller = _forwarded_method(call), call.required
    call.judge(method, by_cookie=caller.by_cookie, handshake=origins.is_handshake(call.request))
    if method not in origins.SAFE_METHODS and caller.by_cookie and not call.from_browser:
        # No Fetch Metadata and no Origin: an old browser, or a form of another site. They look the same here.
        raise Forbidden("an unsafe request by cookie alone, without Origin")
    principal = caller.principal
    account, _ = await call.holding()
    headers: list[Header] = [
        (b"x-auth-subject", principal.subject.encode()),
        (b"x-auth-session", (principal.session_id or "").encode()),
        (b"x-auth-roles", " ".join(principal.roles).encode()),
    ]
    token = await call.authority.pass_on(account, principal)
    if token:
        headers.append((b"x-auth-token", token.encode()))
    return Response(204, headers)


def unproven(call: Call, error: DutchdoorError) -> Response:
    """Answer 401, or send a browser to the sign-in page, to that of another proof, or to the one that loads its page
    again. Raises `BadRequest` as `check` does.
    """
    refusal = call.api.refusal(call.request, error)
    if not call.api.site.edge.came_through_proxy(call.request):
        return refusal  # its headers may be anyone's
    site, page = call.api.site, call.api.site.sign_in_page
    if isinstance(error, StepUpRequired) and site.confirm_page:
        page = site.confirm_page
    elif isinstance(error, DeviceProofRequired) and came_from_elsewhere(call.request):
        page = site.base_path + RELOAD_PATH
    return sent_to_sign_in(call.request, refusal, page)


def _forwarded_method(call: Call) -> str:
    """The method of the request that a configured proxy asks about. Raises `BadRequest` unless it is given exactly
    once.

    Every other sender is refused. An unconfigured proxy may pass on what a client wrote, or omit the method, and then
    another site's POST would look like a GET.
    """
    if not call.api.site.edge.came_through_proxy(call.request):
        raise BadRequest(
            "Only a proxy may ask this, and the sender of this request is not configured as one. Name its address in "
            "proxies (--proxy, DUTCHDOOR_PROXY), together with public_url.",
            code="proxy_not_configured",
        )
    return forwarded_method(call.request)


ROUTES = (
    Route(
        method="POST",
        path="/auth/login",
        handler=login,
        body=Login,
        gives=SignedInView,
        summary="Sign in by session cookie, by refresh and access token, or by a stateless access token.",
    ),
    Route(
        method="POST",
        path="/auth/refresh",
        handler=renew,
        body=RefreshProof,
        optional_body=True,
        gives=SignedInView,
        also=(409,),
        summary="Exchange the refresh token, from the cookie or the body; the answer goes the way it came.",
    ),
    Route(
        method="POST",
        path="/auth/logout",
        handler=logout,
        body=RefreshProof,
        optional_body=True,
        gives=Fence,
        fences=True,
        summary="End the caller's sign-in, by cookie, access token (an expired one too) or refresh token. Idempotent.",
    ),
    Route(
        method="POST",
        path="/auth/logout/all",
        handler=logout_all,
        demands="caller",
        gives=Fence,
        fences=True,
        summary="End every session and every token of the caller, everywhere.",
    ),
    Route(method="GET", path="/auth/me", handler=me, demands="caller", gives=Me, summary="Who the caller is."),
    Route(
        method="GET",
        path="/auth/sessions",
        handler=list_sessions,
        demands="caller",
        gives=Sessions,
        summary="The caller's live sessions, newest first, 500 at most.",
    ),
    Route(
        method="DELETE",
        path="/auth/sessions",
        handler=end_others,
        demands="caller",
        fresh=True,
        gives=Fence,
        fences=True,
        query=("except",),
        summary="End every session of the caller but this one: `?except=current`.",
    ),
    Route(
        method="DELETE",
        path="/auth/sessions/{id}",
        handler=end_session,
        demands="caller",
        gives=Fence,
        fences=True,
        also=(404,),
        summary="End one session of the caller. Another's is 404.",
    ),
    Route(
        method="GET",
        path="/auth/csrf",
        handler=csrf,
        gives=CsrfToken,
        also=(401, 404),
        summary="The token that unsafe requests by cookie carry in X-CSRF-Token.",
    ),
    Route(
        method="GET",
        path=CHECK_PATH,
        handler=check,
        demands="caller",
        status=204,
        also=(303, 403),
        # Caddy appends the query of the request that it asks about.
        query_of_another=True,
        unproven=unproven,
        summary="For a configured proxy: 204 with X-Auth-Subject, -Session, -Roles and -Token; 401; or a redirect.",
    ),
)
