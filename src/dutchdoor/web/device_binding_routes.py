"""The two endpoints that a browser calls by itself to bind a session to its device, and to keep it bound.

No page calls them, and neither has a body, a CSRF token or a check of the origin: the proof is in a header that no page
may send, by a key that no other site has, and answers a challenge for this session.

A browser deletes what it has registered after any 4xx but a 403 with a challenge. So a refresh that is not judged now
is answered 503, also for too many: an outage must not sign people out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from dutchdoor.errors import (
    DeviceKeyRefused,
    InvalidToken,
    NotAuthenticated,
    RateLimited,
    SessionInDoubt,
    Unavailable,
)
from dutchdoor.model.accounts import Account
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.refresh_tokens import RefreshToken
from dutchdoor.model.sessions import Session, SessionToken, check_live
from dutchdoor.services.device_binding import DEVICE_PROOFS, Ask, Ended, Find
from dutchdoor.services.endings import Found
from dutchdoor.services.watching import Use
from dutchdoor.web.api import Call, Route
from dutchdoor.web.device_binding import REFRESH_PATH, REGISTER_PATH, Instructions, asks_for, instructions
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.problems import problem

__all__ = ["ROUTES"]

_PROOF: Final = b"secure-session-response"
_SESSION_ID: Final = b"sec-secure-session-id"


async def bind_device(call: Call) -> Response:
    """Take the key of a browser for the session of its cookie."""
    cookies, proof = _cookies(call), call.request.header(_PROOF)
    if not cookies:
        raise call.unproven()
    if proof is None:
        raise DeviceKeyRefused("the header Secure-Session-Response is missing")
    find = next((find for session_id, find in cookies if call.api.bindings.asked(proof, session_id)), None)
    if find is None:
        raise DeviceKeyRefused("its challenge is not one for this session")
    await _look(call, *await find())
    bound = await call.api.bindings.register(find, proof, client=call.observed(), admit=_admit(call, alone=False))
    return _with_cookie(call, bound.session, bound.cookie, bound.max_age)


async def prove_device(call: Call) -> Response:
    """Give a browser another bound cookie, for a proof of its key."""
    asked = (call.request.header(_SESSION_ID) or "").strip('"')
    alone = call.presented.session is None and call.presented.refresh is None and call.presented.doubt is None
    # Alone: a page of another site, which `origins` lists, has caused it. Then SameSite holds the cookies back.
    find = partial(call.api.bindings.named, asked) if alone else partial(_held, _cookies(call), asked)
    proof, admit = call.request.header(_PROOF) or "", _admit(call, alone=alone)
    done = await call.api.bindings.refresh(find, proof, client=call.observed(), admit=admit, alone=alone)
    if isinstance(done, Ended):
        return json_response(200, Instructions(asked, goes_on=False))
    if isinstance(done, Ask):
        refused = problem(DeviceKeyRefused(done.why))
        return Response(refused.status, [*refused.headers, asks_for(done.challenge, asked)], refused.body)
    return _with_cookie(call, done.session, done.cookie, done.max_age)


async def _look(call: Call, session: Session, account: Account) -> None:
    """Look at from where a key is registered, as at each use. A thief would bind a copied sign-in to a key of theirs,
    and a client that is bound is asked nothing. Raises `SessionInDoubt`, `NotAuthenticated`.
    """
    check_live(session, account, call.authority.clock())
    if call.authority.must_prove(session.id):
        raise SessionInDoubt("a session in doubt is bound to no key")
    by_cookie = session.mode == "session"
    use = Use(session.subject, session, "", session.last_seen_at, session.client_id, by_cookie=by_cookie)
    await call.authority.sight(use, call.observed())


def _cookies(call: Call) -> list[tuple[str, Find]]:
    """Return the session id of each long-lived cookie of the request, and what reads its session."""
    found: list[tuple[str, Find]] = []
    in_session, in_refresh = call.presented.session, call.presented.refresh
    try:
        if in_session is not None:
            found.append((SessionToken.parse(in_session).id, partial(call.authority.bearer_of, in_session)))
        if in_refresh is not None:
            found.append((RefreshToken.parse(in_refresh).session_id, partial(call.authority.holder, in_refresh)))
    except InvalidToken:
        return found
    return found


async def _held(cookies: list[tuple[str, Find]], known_as: str) -> Found:
    """Return the session of one of the cookies that the browser knows as `known_as`. With two sessions under one cookie
    name, it may ask about the older one, whose bound cookie would take the place of the other's. Raises
    `NotAuthenticated`.
    """
    for _, find in cookies:
        with suppress(NotAuthenticated):
            session, account = await find()
            if session.known_as == known_as:
                return session, account
    raise NotAuthenticated("the browser asks about another session than that of its cookie")


def _admit(call: Call, *, alone: bool) -> Callable[[Session], None]:
    """Limit the proofs for one session. Those who know its id `alone`, which is no secret, use up a limit of their own,
    and not that of its owner.
    """
    now = call.authority.clock()

    def admit(session: Session) -> None:
        try:
            call.api.refresh_rate.take([bucket_of(DEVICE_PROOFS, f"{session.id} alone" if alone else session.id)], now)
        except RateLimited as error:
            # Not 429: the browser would delete what it has registered, and its owner would have to sign in.
            raise Unavailable("too many proofs for one session", retry_after=error.retry_after) from None

    return admit


def _with_cookie(call: Call, session: Session, cookie: str, max_age: float) -> Response:
    by_refresh_cookie = session.mode == "hybrid"
    said = instructions(
        session.known_as, call.cookies, call.base, call.api.site.cors.origins, by_refresh_cookie=by_refresh_cookie
    )
    return json_response(200, said, [call.cookies.bound_beside(refresh=by_refresh_cookie).set(cookie, max_age=max_age)])


ROUTES = (
    Route(
        method="POST",
        path=REGISTER_PATH,
        handler=bind_device,
        gives=Instructions,
        own_origin=False,
        also=(401, 403),
        summary="For browsers alone: bind the session of the cookie to a key of the device (DBSC).",
    ),
    Route(
        method="POST",
        path=REFRESH_PATH,
        handler=prove_device,
        gives=Instructions,
        own_origin=False,
        also=(403,),
        summary="For browsers alone: prove the key of a bound session, and get its next bound cookie.",
    ),
)
