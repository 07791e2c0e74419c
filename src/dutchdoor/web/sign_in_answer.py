"""The answers to a sign-in and to a refresh, and the client that they are for."""

from __future__ import annotations

from dutchdoor.errors import InvalidInput, NotAuthenticated
from dutchdoor.model.policy import Mode
from dutchdoor.model.rate_limits import MARK_FOR
from dutchdoor.model.service_credentials import RegisteredClient
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.presenting import SignedIn
from dutchdoor.texts import mark
from dutchdoor.web.api import Call
from dutchdoor.web.cookies import Cookies
from dutchdoor.web.fences import applied, status_of
from dutchdoor.web.http import Header, Response, json_response
from dutchdoor.web.program_auth import client_of
from dutchdoor.web.schemas import (
    Fence,
    SignedInView,
    Transport,
    session_view,
    user_view,
)

__all__ = ["answer_transport", "check_client", "client_for", "cookies_of", "ongoing", "set_mark", "signed_in_answer"]


def set_mark(call: Call, mark: str, mode: Mode, transport: Transport) -> list[Header]:
    """Set the known-device cookie where cookies are kept: in a browser, and in a client that takes its proof as a
    cookie.
    """
    keeps_cookies = call.from_browser or mode == "session" or (mode == "hybrid" and transport == "cookie")
    return [call.cookies.mark.set(mark, max_age=MARK_FOR)] if keeps_cookies else []


async def client_for(call: Call, client_id: str) -> str:
    """Return the client that a sign-in is for. One with a secret authenticates by HTTP Basic: otherwise any other
    client could sign in under its name.

    Raises `InvalidInput`, `NotAuthenticated`.
    """
    if not client_id or client_id == call.authority.client_id:
        return client_id
    registered = await call.authority.store.get(RegisteredClient, client_id)
    if registered is None:
        raise InvalidInput(mark("There is no such client."), field="client_id")
    if registered.confidential and (await client_of(call.request, call.authority.store)).id != client_id:
        message = mark("client_id differs from the client that authenticated.")
        raise NotAuthenticated("another client authenticated", message=message)
    return client_id


async def check_client(call: Call, client_id: str) -> None:
    """Let a request act for a client: the one of our own pages, one without a secret, or one that authenticates by HTTP
    Basic. Every endpoint that accepts or renews a client's credentials calls this. Otherwise, a token stolen from a
    client with a secret could be used without the secret.

    Raises:
        NotAuthenticated: the client has a secret and did not prove it, or the client was removed.
    """
    if client_id == call.authority.client_id:
        return
    registered = await call.authority.store.get(RegisteredClient, client_id)
    if registered is None or (
        registered.confidential and (await client_of(call.request, call.authority.store)).id != client_id
    ):
        raise NotAuthenticated("this client must authenticate", message=mark("Authenticate the client by HTTP Basic."))


async def ongoing(call: Call) -> Ongoing:
    """Return the sign-in of the caller, for what is proved inside of it. Raises `NotAuthenticated`."""
    principal = call.required.principal
    await check_client(call, principal.client_id)
    account, session = await call.holding()
    return Ongoing(
        account,
        session,
        call.observed(),
        principal.client_id,
        principal.amr,
        principal.scope,
        in_doubt=call.must_prove(principal),
    )


def cookies_of(cookies: Cookies, signed_in: SignedIn, now: float) -> list[Header]:
    """Set the cookie of a sign-in, and clear those of an earlier one: with a dead proof, every request is refused."""
    session = signed_in.session
    lives_for = 0.0 if session is None else session.expires_at - now
    by_session, by_refresh = cookies.session.cleared, cookies.refresh.cleared
    if signed_in.mode == "session":
        by_session = cookies.session.set(signed_in.session_token, max_age=lives_for)
    elif signed_in.mode == "hybrid":
        by_refresh = cookies.refresh.set(signed_in.refresh_token, max_age=lives_for)
    return [by_session, by_refresh, *([cookies.visitor.cleared] if signed_in.visitor_moved else [])]


def signed_in_answer(
    call: Call,
    signed_in: SignedIn,
    transport: Transport,
    headers: list[Header],
    fenced: Fence | None = None,
    *,
    codes: tuple[str, ...] = (),
    anew: bool = True,
) -> Response:
    """Return the answer. `anew` says that it is for a new sign-in, whose cookie the browser is asked to bind."""
    session = signed_in.session
    if signed_in.visitor_moved:
        headers.append(call.cookies.visitor.cleared)
    view = SignedInView(user=user_view(signed_in.account))
    if codes:
        view.recovery_codes = codes
    status = 200
    if fenced is not None:
        status = status_of(fenced)
        headers += applied(call)
        view.fenced, view.fenced_in_ms = fenced.fenced, fenced.fenced_in_ms
    lives_for = 0.0
    if session is not None:
        view.session = session_view(session, session.id)
        lives_for = session.expires_at - call.authority.clock()
    if signed_in.mode == "session" and session is not None:
        headers.append(call.cookies.session.set(signed_in.session_token, max_age=lives_for))
        headers += call.offer(session, anew=anew)
        view.csrf_token = call.csrf_token(session.id)
        return json_response(status, view, headers)
    view.access_token, view.expires_in = signed_in.access_token, signed_in.expires_in
    view.token_type = "DPoP" if signed_in.bound_to else "Bearer"
    if signed_in.mode == "hybrid" and session is not None:
        if transport == "body":
            unused = min(session.idle_expires_at, session.expires_at) - call.authority.clock()
            view.refresh_token, view.refresh_expires_in = signed_in.refresh_token, int(unused)
        else:
            view.csrf_token = call.csrf_token(session.id)
            # Do not set again what the client has already: this answer may be older than the sign-in that its cookie
            # jar holds by now.
            headers += call.offer(session, anew=anew)
            if signed_in.rotated:
                headers.append(call.cookies.refresh.set(signed_in.refresh_token, max_age=lives_for))
    return json_response(status, view, headers)


def answer_transport(call: Call, signed_in: SignedIn) -> Transport:
    """Put new refresh tokens where the old one was: into the cookie if the request carried the cookie or came from a
    page of ours. A listed page without the cookie stores its token itself, and would lose it to a cookie that it can
    never send.
    """
    if signed_in.mode != "hybrid" or call.presented.refresh is not None:
        return "cookie"
    listed = call.request.header(b"origin") in call.api.site.cors.origins
    return "cookie" if call.from_browser and not listed else "body"
