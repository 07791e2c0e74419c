"""Lost second factors over HTTP: asking for the waiting time, and the links that begin, cancel and finish it."""

from __future__ import annotations

from dutchdoor.web.api import Call, Route
from dutchdoor.web.auth_routes import token_of_step
from dutchdoor.web.fences import fence_of_user
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import (
    Accepted,
    ChangedUser,
    MailedToken,
    RemovalBegun,
    UnfinishedSignIn,
    UserView,
    instant,
    user_view,
)

__all__ = ["ROUTES"]


async def ask_for_removal(call: Call) -> Response:
    await call.directory.lost_factors.ask(token_of_step(call), client=call.observed())
    return json_response(202, Accepted())


async def begin_removal(call: Call) -> Response:
    body: MailedToken = call.body
    account, due_at = await call.directory.lost_factors.begin(body.token, client=call.observed())
    return json_response(200, RemovalBegun(user_view(account), instant(due_at)))


async def keep_factors(call: Call) -> Response:
    body: MailedToken = call.body
    account = await call.directory.lost_factors.cancel(body.token, client=call.observed())
    return json_response(200, UserView(user_view(account)))


async def keep_own_factors(call: Call) -> Response:
    account, _ = await call.holding()
    await call.directory.lost_factors.cancel_own(account, client=call.observed())
    return Response(204)


async def remove_lost_factors(call: Call) -> Response:
    body: MailedToken = call.body
    account, done = await call.directory.lost_factors.finish(body.token, client=call.observed())
    return await fence_of_user(call, done, account)


ROUTES = (
    Route(
        method="POST",
        path="/auth/login/lost",
        bundled=True,
        handler=ask_for_removal,
        body=UnfinishedSignIn,
        optional_body=True,
        gives=Accepted,
        status=202,
        also=(401,),
        summary="In a sign-in that waits for a second factor that is lost: mail a link that begins the waiting time.",
    ),
    Route(
        method="POST",
        path="/auth/factors/lost",
        bundled=True,
        handler=begin_removal,
        body=MailedToken,
        gives=RemovalBegun,
        also=(401,),
        summary="Begin the waiting time after which lost second factors can be removed, by a mailed token.",
    ),
    Route(
        method="POST",
        path="/auth/factors/lost/keep",
        bundled=True,
        handler=keep_factors,
        body=MailedToken,
        gives=UserView,
        also=(401,),
        summary="Cancel the removal of second factors, by a token that each mailbox of the account got.",
    ),
    Route(
        method="POST",
        path="/auth/factors/keep",
        bundled=True,
        handler=keep_own_factors,
        demands="caller",
        status=204,
        also=(404,),
        summary="Cancel the removal of the caller's second factors.",
    ),
    Route(
        method="POST",
        path="/auth/factors/lost/remove",
        bundled=True,
        handler=remove_lost_factors,
        body=MailedToken,
        gives=ChangedUser,
        fences=True,
        also=(401,),
        summary="Remove lost second factors by a mailed token, once the waiting time is over. Ends every session.",
    ),
)
