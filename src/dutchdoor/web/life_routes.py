"""The life of an account over HTTP: another address, a copy of all that is known, the end, and
the beginning by an invitation. JSON in and out.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType

from dutchdoor.credentials.passkey import PASSKEY, facts_of
from dutchdoor.model.accounts import Credential
from dutchdoor.model.rate_limits import MARK_FOR
from dutchdoor.model.set_aside import SET_ASIDE, put_back
from dutchdoor.web.api import Call, Route
from dutchdoor.web.auth_routes import signed_out
from dutchdoor.web.fences import applied, fence_of_user, status_of, wait_for
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.issuer_routes import LinkedView, linked_view
from dutchdoor.web.own_events import OwnEvent, own_event
from dutchdoor.web.schemas import (
    Acceptance,
    Accepted,
    AccountView,
    ChangedUser,
    Departing,
    InvitationView,
    MailedToken,
    NewEmail,
    Reset,
    SessionView,
    UserView,
    account_view,
    instant,
    session_view,
    user_view,
)

__all__ = ["ROUTES"]


class CredentialView(Struct, omit_defaults=True):
    """A way to sign in. Only passkeys have a name."""

    method: str
    created_at: str
    name: str | UnsetType = UNSET
    last_used_at: str | UnsetType | None = UNSET
    set_aside: bool = False
    """Whether it is set aside since the password was reset."""


class LinkView(Struct):
    """A mailed link, or a sign-in that waits for its second step."""

    purpose: str
    created_at: str
    expires_at: str


class PlaceView(Struct):
    """From where a session was used: a network of 256 addresses or one customer, a country, a browser family."""

    network: str
    country: str
    browser: str
    first_seen_at: str
    last_seen_at: str


class Export(Struct):
    """All that is known of an account, without secrets. `data` is what the application keeps for each session.
    `complete` is false if there are more audit events than these.
    """

    exported_at: str
    account: AccountView
    credentials: list[CredentialView]
    identities: list[LinkedView]
    """Its log-ins at other issuers."""
    links: list[LinkView]
    sessions: list[SessionView]
    data: dict[str, Raw]
    places: list[PlaceView]
    events: list[OwnEvent]
    complete: bool


async def change_email(call: Call) -> Response:
    body: NewEmail = call.body
    account, _ = await call.holding()
    await call.directory.email_change.ask(account, body.email, client=call.observed())
    return json_response(202, Accepted())


async def confirm_email(call: Call) -> Response:
    body: MailedToken = call.body
    account, done = await call.directory.email_change.confirm(body.token, client=call.observed())
    return await fence_of_user(call, done, account)


async def restore_email(call: Call) -> Response:
    body: Reset = call.body
    account, mark, done = await call.directory.email_change.restore(
        body.token, body.new_password, client=call.observed(), marks=call.marks
    )
    return await fence_of_user(call, done, account, [call.cookies.mark.set(mark, max_age=MARK_FOR)])


async def export(call: Call) -> Response:
    principal = call.required.principal
    copy = await call.directory.export.collect(principal.subject, client=call.observed())
    shown = Export(
        exported_at=instant(copy.at),
        account=account_view(copy.account),
        credentials=[_credential_view(each) for each in copy.credentials],
        identities=[
            linked_view(each)
            for each in call.directory.identities.among(
                [*copy.credentials, *(put_back(each) for each in copy.credentials if each.method == SET_ASIDE)]
            )
        ],
        links=[LinkView(each.purpose, instant(each.created_at), instant(each.expires_at)) for each in copy.links],
        sessions=[session_view(each, principal.session_id) for each in copy.sessions],
        data=copy.data,
        places=[
            PlaceView(
                each.sighting.network,
                each.sighting.country,
                each.sighting.browser,
                instant(each.since),
                instant(each.until),
            )
            for each in copy.places
        ],
        events=[own_event(each) for each in copy.events],
        complete=copy.complete,
    )
    name = f"account-{instant(copy.at)[:10]}.json"
    return json_response(200, shown, [(b"content-disposition", f'attachment; filename="{name}"'.encode())])


def _credential_view(credential: Credential) -> CredentialView:
    if credential.method == SET_ASIDE:
        view = _credential_view(put_back(credential))
        view.set_aside = True
        return view
    view = CredentialView(credential.method, instant(credential.created_at))
    if credential.method == PASSKEY:
        facts = facts_of(credential)
        view.name, view.last_used_at = facts.name, None if facts.used_at is None else instant(facts.used_at)
    return view


async def delete(call: Call) -> Response:
    caller = call.required
    departure, done = await call.directory.deletion.ask(caller.principal.subject, client=call.observed())
    found = await wait_for(call, done)
    headers = [*await signed_out(call, by_cookie=caller.by_cookie), *applied(call)]
    shown = Departing(instant(departure.due_at), found.fenced, found.fenced_in_ms)
    return json_response(status_of(found), shown, headers)


async def keep(call: Call) -> Response:
    body: MailedToken = call.body
    account = await call.directory.deletion.keep(body.token, client=call.observed())
    return json_response(200, UserView(user_view(account)))


async def look_at_invitation(call: Call) -> Response:
    body: MailedToken = call.body
    found = await call.directory.invitations.look(body.token, client=call.observed())
    return json_response(200, InvitationView(found.address, found.name, found.inviter, instant(found.expires_at)))


async def accept_invitation(call: Call) -> Response:
    body: Acceptance = call.body
    account = await call.directory.invitations.accept(body.token, body.password, body.name, client=call.observed())
    return json_response(201, UserView(user_view(account)))


ROUTES = (
    Route(
        method="POST",
        path="/auth/email/change",
        bundled=True,
        handler=change_email,
        demands="caller",
        fresh=True,
        body=NewEmail,
        gives=Accepted,
        status=202,
        summary="Mail a link to another address, which makes it the account's. The answer is the same if that address "
        "has an account already.",
    ),
    Route(
        method="POST",
        path="/auth/email/confirm",
        bundled=True,
        handler=confirm_email,
        body=MailedToken,
        gives=ChangedUser,
        fences=True,
        also=(401, 409),
        summary="Confirm another address by the token that was mailed to it. Sign-in by the former one stops; access "
        "tokens are stale.",
    ),
    Route(
        method="POST",
        path="/auth/email/restore",
        bundled=True,
        handler=restore_email,
        body=Reset,
        gives=ChangedUser,
        fences=True,
        also=(401, 409),
        summary="Undo a change of the address by the token that was mailed to the former one, and set a new password. "
        "Ends every session.",
    ),
    Route(
        method="GET",
        path="/auth/account/export",
        handler=export,
        demands="caller",
        by_refresh_cookie=True,
        fresh=True,
        gives=Export,
        also=(404, 429),
        summary="Download all that is known of the caller's account: sessions, events, what the application keeps for "
        "them, and credentials without secrets.",
    ),
    Route(
        method="POST",
        path="/auth/account/delete",
        bundled=True,
        handler=delete,
        demands="caller",
        fresh=True,
        gives=Departing,
        fences=True,
        also=(403, 404),
        summary="Delete the caller's account. It cannot sign in any more, and everything is revoked. It is erased "
        "after some days; until then, a mailed link keeps it.",
    ),
    Route(
        method="POST",
        path="/auth/account/keep",
        bundled=True,
        handler=keep,
        body=MailedToken,
        gives=UserView,
        also=(401,),
        summary="Keep a deleted account, by the token that was mailed to its address. It can sign in again.",
    ),
    Route(
        method="POST",
        path="/auth/join/look",
        bundled=True,
        handler=look_at_invitation,
        body=MailedToken,
        gives=InvitationView,
        also=(401,),
        summary="Read an invitation by the token of its link: who invites whom, and until when. It uses nothing up.",
    ),
    Route(
        method="POST",
        path="/auth/join",
        bundled=True,
        handler=accept_invitation,
        body=Acceptance,
        gives=UserView,
        status=201,
        also=(401, 409),
        summary="Accept an invitation by the token of its link, and create the account.",
    ),
)
