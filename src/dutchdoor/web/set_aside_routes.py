"""What was set aside when a password was reset, over HTTP: listing, keeping and removing it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dutchdoor.services.set_aside import Aside
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import instant

__all__ = ["ROUTES"]


class AsideView(Struct):
    """A way to sign in, or a second factor, that waits for its owner to say whose it is."""

    id: str
    method: Annotated[
        str, Meta(description="`passkey`, `identity` (a log-in at another issuer), `totp` or `recovery_code`.")
    ]
    title: Annotated[str, Meta(description="The issuer of a log-in; empty for others.")]
    name: str
    added_at: str
    device: Annotated[str, Meta(description="The device that added it; empty if that is not known any more.")]
    country: str


class AsideViews(Struct):
    ways: list[AsideView]


class OneAside(Body, frozen=True):
    id: Annotated[str, Meta(max_length=64)]


async def list_aside(call: Call) -> Response:
    found = await call.directory.set_aside.of(call.actor)
    return json_response(200, AsideViews([_view(each) for each in found]))


def _view(each: Aside) -> AsideView:
    return AsideView(each.id, each.method, each.title, each.name, instant(each.added_at), each.device, each.country)


async def keep_aside(call: Call) -> Response:
    body: OneAside = call.body
    account, _ = await call.holding()
    await call.directory.set_aside.keep(account, body.id, client=call.observed())
    return Response(204)


async def remove_aside(call: Call) -> Response:
    body: OneAside = call.body
    account, _ = await call.holding()
    await call.directory.set_aside.remove(account, body.id, client=call.observed())
    return Response(204)


ROUTES = (
    Route(
        method="GET",
        path="/auth/set-aside",
        bundled=True,
        handler=list_aside,
        demands="caller",
        gives=AsideViews,
        summary="What was added to the caller's account in the week before its password was reset, and does not sign "
        "in until it is kept.",
    ),
    Route(
        method="POST",
        path="/auth/set-aside/keep",
        bundled=True,
        handler=keep_aside,
        demands="caller",
        fresh=True,
        body=OneAside,
        status=204,
        also=(404,),
        summary="Say that something that was set aside is the caller's: it signs in again.",
    ),
    Route(
        method="POST",
        path="/auth/set-aside/remove",
        bundled=True,
        handler=remove_aside,
        demands="caller",
        fresh=True,
        body=OneAside,
        status=204,
        also=(404,),
        summary="Remove something that was set aside, because it is not the caller's.",
    ),
)
