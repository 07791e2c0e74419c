"""The admin API for invitations: who is invited, by whom, and until when."""

from __future__ import annotations

from functools import partial

from msgspec import Struct

from dutchdoor.services.invitations import Invitation
from dutchdoor.web.admin import AccountDraft, page_limit
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import instant

__all__ = ["ROUTES"]


class SentInvitation(Struct):
    """`invited_by` is the account of the administrator, or `cli`; `inviter` their name or address."""

    id: str
    email: str
    name: str
    roles: tuple[str, ...]
    invited_by: str
    inviter: str
    created_at: str
    expires_at: str


class SentInvitations(Struct):
    """`next` is the `after` of the next page, null on the last page."""

    invitations: list[SentInvitation]
    next: str | None


async def invite(call: Call) -> Response:
    draft: AccountDraft = call.body
    sent = await call.directory.invitations.invite(draft.email, name=draft.name, roles=draft.roles, **call.by)
    return json_response(201, _view(sent))


async def list_invitations(call: Call) -> Response:
    limit = page_limit(call)
    found = await call.directory.invitations.listed(after=call.query.get("after", "")[:64], limit=limit)
    following = found[-1].id if len(found) == limit else None
    return json_response(200, SentInvitations([_view(each) for each in found], following))


async def withdraw(call: Call) -> Response:
    done = await call.directory.invitations.withdraw(call.params["id"], **call.by)
    return json_response(200, _view(done))


async def send_again(call: Call) -> Response:
    sent = await call.directory.invitations.send_again(call.params["id"], **call.by)
    return json_response(200, _view(sent))


def _view(invitation: Invitation) -> SentInvitation:
    return SentInvitation(
        id=invitation.id,
        email=invitation.address,
        name=invitation.name,
        roles=invitation.roles,
        invited_by=invitation.invited_by,
        inviter=invitation.inviter,
        created_at=instant(invitation.created_at),
        expires_at=instant(invitation.expires_at),
    )


_route = partial(Route, demands="admin", bundled=True)

ROUTES = (
    _route(
        method="POST",
        path="/admin/api/invitations",
        handler=invite,
        body=AccountDraft,
        gives=SentInvitation,
        status=201,
        also=(403, 409),
        summary="Invite an address. Its owner creates the account, by a mailed link.",
    ),
    _route(
        method="GET",
        path="/admin/api/invitations",
        handler=list_invitations,
        gives=SentInvitations,
        query=("after", "limit"),
        summary="List the invitations that are under way, page by page.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/invitations/{id}",
        handler=withdraw,
        gives=SentInvitation,
        also=(404,),
        summary="Withdraw an invitation: its link opens nothing any more.",
    ),
    _route(
        method="POST",
        path="/admin/api/invitations/{id}/send",
        handler=send_again,
        gives=SentInvitation,
        also=(404,),
        summary="Send an invitation again, with a new link and a new id.",
    ),
)
