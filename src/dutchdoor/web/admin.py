"""The admin API, for callers with the role `admin`: accounts, their sessions, keys, audit events.

No endpoint here reads or returns a password. An administrator can start a reset; only the mailbox gets the link.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, cast, get_args

from msgspec import Meta, Struct
from msgspec.structs import asdict

from dutchdoor.errors import Conflict, InvalidInput
from dutchdoor.jose.signing_keys import KeyState, StoredKey, state_of, waiting, with_states
from dutchdoor.model.audit_events import AuditCursor, AuditEvent, EventName
from dutchdoor.model.departures import Departure
from dutchdoor.model.ids import is_id
from dutchdoor.services.administration import ListedStatus
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.factor_routes import factors_view
from dutchdoor.web.fences import fence, fence_of_user
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import (
    Accepted,
    AccountView,
    ChangedUser,
    FactorsView,
    Fence,
    RemovedFactor,
    Sessions,
    User,
    UserView,
    account_view,
    instant,
    session_view,
    user_view,
)

__all__ = ["ROUTES", "key_view", "next_key"]

PAGE_AT_MOST = 500
AFTER_AT_MOST = 2000
# Only for the description of the API: the directory checks roles, with a readable message.
Role = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9_.:-]{1,64}$"})]


class AccountDraft(Body, frozen=True):
    email: Annotated[str, Meta(max_length=320)]
    name: Annotated[str, Meta(max_length=200)] = ""
    roles: Annotated[tuple[Role, ...], Meta(max_length=32)] = ()


class Roles(Body, frozen=True):
    roles: Annotated[tuple[Role, ...], Meta(max_length=32)]


class Accounts(Struct):
    """`next` is the `after` of the next page, null on the last page."""

    accounts: list[User]
    next: str | None


class KeyView(Struct):
    kid: str
    alg: str
    state: str
    created_at: str
    signs_at: str
    signs_until: str
    verifies_until: str


class Keys(Struct):
    keys: list[KeyView]


class EventView(Struct):
    id: str
    at: str
    name: str
    outcome: str
    subject: str
    actor: str
    session_id: str
    client_id: str
    address: str
    country: str
    device: str
    detail: str


class Events(Struct):
    """`next` is the `before` of the next page, null on the last page."""

    events: list[EventView]
    next: str | None


def page_limit(call: Call) -> int:
    text = call.query.get("limit", "100")
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= PAGE_AT_MOST:  # noqa: PLR2004
        raise InvalidInput(mark("limit must be a number from 1 to %(most)s.", most=PAGE_AT_MOST), field="limit")
    return int(text)


async def list_accounts(call: Call) -> Response:
    found, following = await call.directory.admin.accounts(
        search=call.query.get("search", "")[:255],
        status=cast("ListedStatus", call.query.get("status", "any")),
        after=call.query.get("after", "")[:AFTER_AT_MOST],
        limit=page_limit(call),
    )
    return json_response(200, Accounts([user_view(account) for account in found], following))


async def create_account(call: Call) -> Response:
    draft: AccountDraft = call.body
    account = await call.directory.admin.create(draft.email, name=draft.name, roles=draft.roles, **call.by)
    return json_response(201, UserView(user_view(account)))


async def show_account(call: Call) -> Response:
    account = await call.account_of(call.params["subject"])
    departure = await call.authority.store.get(Departure, account.subject)
    return json_response(200, account_view(account, departure))


async def disable(call: Call) -> Response:
    done = await call.directory.admin.disable(call.params["subject"], **call.by)
    return await fence(call, done)


async def enable(call: Call) -> Response:
    account = await call.directory.admin.enable(call.params["subject"], **call.by)
    return json_response(200, UserView(user_view(account)))


async def erase(call: Call) -> Response:
    done = await call.directory.deletion.erase(call.params["subject"], **call.by)
    return await fence(call, done)


async def set_roles(call: Call) -> Response:
    wanted: Roles = call.body
    account, done = await call.directory.admin.set_roles(call.params["subject"], wanted.roles, **call.by)
    return await fence_of_user(call, done, account)


async def force_reset(call: Call) -> Response:
    account = await call.account_of(call.params["subject"])
    await call.directory.recovery.send_reset(account, **call.by)
    return json_response(202, Accepted())


async def factors_of(call: Call) -> Response:
    return json_response(200, await factors_view(call, await call.account_of(call.params["subject"]), aside=True))


async def remove_factor(call: Call) -> Response:
    body: RemovedFactor = call.body
    account = await call.account_of(call.params["subject"])
    await call.directory.factors.remove(account, body.method, body.id, amr=None, **call.by)
    return Response(204)


async def sessions_of(call: Call) -> Response:
    live = await call.authority.sessions(call.params["subject"])
    return json_response(200, Sessions([session_view(session, None) for session in live]))


async def end_sessions_of(call: Call) -> Response:
    done = await call.authority.end_all(
        call.params["subject"], **call.by, reason="ended_by_admin", also=call.directory.sign_in.forgetting_devices
    )
    return await fence(call, done)


async def end_everything(call: Call) -> Response:
    done = await call.authority.end_everything(**call.by)
    return await fence(call, done)


async def end_session(call: Call) -> Response:
    done = await call.authority.end(call.params["id"], **call.by, reason="ended_by_admin")
    return await fence(call, done)


async def list_keys(call: Call) -> Response:
    rows, now = await call.authority.store.select(StoredKey), call.authority.clock()
    return json_response(200, Keys([key_view(row, state) for row, state in with_states(rows, now)]))


async def rotate_key(call: Call) -> Response:
    row = await next_key(call)
    return json_response(201, key_view(row, state_of(row, call.authority.clock())))


async def next_key(call: Call) -> StoredKey:
    """Create the next signing key. Raises `Conflict` if one waits to sign already."""
    authority = call.authority
    after = waiting(await authority.store.select(StoredKey), authority.alg, authority.clock())
    if after is not None:
        text = mark(
            "Key %(key)s is the next one already: it signs from %(at)s.", key=after.kid, at=instant(after.signs_at)
        )
        raise Conflict(text, message=text)
    return await authority.rotate(**call.by)


async def kill_key(call: Call) -> Response:
    done = await call.authority.kill_key(call.params["kid"], **call.by)
    return await fence(call, done)


def key_view(row: StoredKey, state: KeyState) -> KeyView:
    return KeyView(
        kid=row.kid,
        alg=row.alg,
        state=state,
        created_at=instant(row.created_at),
        signs_at=instant(max(row.signs_at, row.created_at)),  # a first key is dated back, for clocks that are behind
        signs_until=instant(row.signs_until),
        verifies_until=instant(row.verifies_until),
    )


class EventStream(Struct):
    """`next` is the `after` of the next request, also when there is no further event yet: null for an empty log."""

    events: list[EventView]
    next: str | None


async def list_events(call: Call) -> Response:
    limit = page_limit(call)
    name, before = call.query.get("name", ""), call.query.get("before", "")
    # An auditor would read an empty answer as "this never happened".
    if name and name not in get_args(EventName):
        raise InvalidInput(mark("There is no such event."), field="name")
    if before and not is_id(before):
        raise InvalidInput(mark("There is no such event."), field="before")
    found = await call.authority.store.events(
        subject=call.query.get("subject", "")[:200], name=name, before=before, limit=limit
    )
    views = [*map(_event_view, found)]
    return json_response(200, Events(views, found[-1].id if len(found) == limit else None))


async def follow_events(call: Call) -> Response:
    limit, after = page_limit(call), call.query.get("after")
    found = await call.authority.store.events_after(AuditCursor.parse(after) if after else None, limit=limit)
    events = [_event_view(event) for _, event in found]
    return json_response(200, EventStream(events, found[-1][0].text() if found else after or None))


def _event_view(event: AuditEvent) -> EventView:
    return EventView(**{**asdict(event), "at": instant(event.at)})


_route = partial(Route, demands="admin")

ROUTES = (
    _route(
        method="GET",
        path="/admin/api/accounts",
        handler=list_accounts,
        gives=Accounts,
        query=("search", "status", "after", "limit"),
        summary="List accounts, page by page, the newest first. `search` is how a word of the address or the name "
        "begins, or an id. Without a search, `status` may be active, disabled, unverified or admin.",
    ),
    _route(
        method="POST",
        path="/admin/api/accounts",
        bundled=True,
        handler=create_account,
        body=AccountDraft,
        gives=UserView,
        status=201,
        also=(409,),
        summary="Create an account. Its owner chooses the password with a mailed link.",
    ),
    _route(
        method="GET",
        path="/admin/api/accounts/{subject}",
        handler=show_account,
        gives=AccountView,
        also=(404,),
        summary="Show an account.",
    ),
    _route(
        method="POST",
        path="/admin/api/accounts/{subject}/disable",
        handler=disable,
        gives=Fence,
        fences=True,
        also=(404,),
        summary="Disable an account, and revoke its sessions and tokens.",
    ),
    _route(
        method="POST",
        path="/admin/api/accounts/{subject}/enable",
        handler=enable,
        gives=UserView,
        also=(404,),
        summary="Enable an account, so that its owner can sign in again.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/accounts/{subject}",
        handler=erase,
        gives=Fence,
        fences=True,
        also=(404,),
        summary="Erase an account at once, with all that belongs to it. Its audit events stay, and name no client.",
    ),
    _route(
        method="POST",
        path="/admin/api/accounts/{subject}/roles",
        handler=set_roles,
        body=Roles,
        gives=ChangedUser,
        fences=True,
        also=(404,),
        summary="Set the roles of an account.",
    ),
    _route(
        method="POST",
        path="/admin/api/accounts/{subject}/reset",
        bundled=True,
        handler=force_reset,
        gives=Accepted,
        status=202,
        also=(404,),
        summary="Mail the owner a link to choose a new password.",
    ),
    _route(
        method="GET",
        path="/admin/api/accounts/{subject}/factors",
        handler=factors_of,
        gives=FactorsView,
        also=(404,),
        summary="List the second factors of an account.",
    ),
    _route(
        method="POST",
        path="/admin/api/accounts/{subject}/factors/remove",
        handler=remove_factor,
        body=RemovedFactor,
        status=204,
        also=(404,),
        summary="Remove a second factor, for an owner who has lost it. Make sure first that it is the owner who asks.",
    ),
    _route(
        method="GET",
        path="/admin/api/accounts/{subject}/sessions",
        handler=sessions_of,
        gives=Sessions,
        summary="List the live sessions of an account.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/accounts/{subject}/sessions",
        handler=end_sessions_of,
        gives=Fence,
        fences=True,
        also=(404,),
        summary="Revoke all sessions and tokens of an account.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/sessions",
        handler=end_everything,
        gives=Fence,
        fences=True,
        summary="Revoke all sessions and tokens of every account, including the caller's. It takes a minute or two for "
        "100,000 accounts, and continues if the client hangs up.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/sessions/{id}",
        handler=end_session,
        gives=Fence,
        fences=True,
        also=(404,),
        summary="Revoke a session.",
    ),
    _route(
        method="GET",
        path="/admin/api/keys",
        handler=list_keys,
        gives=Keys,
        summary="List signing keys and their states.",
    ),
    _route(
        method="POST",
        path="/admin/api/keys/rotate",
        handler=rotate_key,
        gives=KeyView,
        status=201,
        also=(409,),
        summary="Create the next signing key. It signs after it was published long enough. 409 if one waits to sign.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/keys/{kid}",
        handler=kill_key,
        gives=Fence,
        fences=True,
        also=(404,),
        summary="Revoke a signing key. Tokens that it signed are refused.",
    ),
    _route(
        method="GET",
        path="/admin/api/events",
        handler=list_events,
        gives=Events,
        query=("subject", "name", "before", "limit"),
        summary="List audit events, newest first.",
    ),
    _route(
        method="GET",
        path="/admin/api/events/stream",
        handler=follow_events,
        gives=EventStream,
        query=("after", "limit"),
        summary="Follow audit events in the order of their commits, from the oldest or after a cursor. No event is "
        "missed: one that is committed later comes later.",
    ),
)
