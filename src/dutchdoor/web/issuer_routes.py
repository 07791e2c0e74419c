"""Log-in by other issuers over HTTP: the way there and back, linked log-ins, and an issuer's own log-out.

A way back begins on another site, so the browser sends none of our strict cookies with it. `callback` therefore touches
nothing: it shows a page that leads on to `finish` by a navigation of our own. That serves Apple too, whose pages post a
form. The same holds on the way there: a form may lead to no other site (`form-action 'self'`), and a page may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from dutchdoor.errors import InvalidToken
from dutchdoor.model.ids import new_id
from dutchdoor.services.identities import Linked
from dutchdoor.services.issuers import BACK_WITHIN, Answer, Came, Purpose
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.auth_routes import browser_of
from dutchdoor.web.body import BODY_AT_MOST, Body
from dutchdoor.web.fences import fence, wait_for
from dutchdoor.web.http import BadRequest, Response, json_response
from dutchdoor.web.schemas import Fence, instant
from dutchdoor.web.sign_in_page import NEXT_AT_MOST

__all__ = [
    "FINISH_PATH", "ROUTES", "IssuersView", "WayView", "answer_of", "confirm_by", "finish", "link", "redirect_uri",
    "start", "unlink",
]  # fmt: skip

CALLBACK_PATH: Final = "/auth/issuers/{name}/callback"
FINISH_PATH: Final = "/auth/issuers/{name}/finish"
VALUE_AT_MOST: Final = 4096
"""Characters of one parameter. The longest code of a large issuer has about 2,000."""

Next = Annotated[str, Meta(max_length=NEXT_AT_MOST, description="Where the person goes afterwards.")]
IssuerName = Annotated[str, Meta(max_length=32, description="The name of the issuer.")]


class Start(Body, frozen=True):
    next: Next | UnsetType = UNSET


class StartInside(Body, frozen=True):
    issuer: IssuerName
    next: Next | UnsetType = UNSET


class Unlink(Body, frozen=True):
    id: Annotated[str, Meta(max_length=64, description="The id of the linked log-in.")]


class WayView(Struct):
    """Where to send the browser: to the issuer's own log-in. A cookie of the answer must come back with it."""

    url: str


class IssuerView(Struct):
    name: str
    title: str


class IssuersView(Struct):
    issuers: list[IssuerView]


class LinkedView(Struct):
    """A log-in at another issuer that signs in to this account."""

    id: str
    issuer: str
    title: str
    shown: str
    """The address or the name that the person has there."""
    linked_at: str


class LinkedViews(Struct):
    identities: list[LinkedView]


async def list_issuers(call: Call) -> Response:
    known = call.directory.issuers.issuers.values()
    return json_response(200, IssuersView([IssuerView(each.name, each.title) for each in known]))


# The way there


async def start(call: Call) -> Response:
    body: Start | None = call.body
    return await _begin(call, call.params["name"], "sign_in", UNSET if body is None else body.next)


async def link(call: Call) -> Response:
    body: StartInside = call.body
    return await _begin(call, body.issuer, "link", body.next)


async def confirm_by(call: Call) -> Response:
    body: StartInside = call.body
    return await _begin(call, body.issuer, "confirm", body.next)


async def _begin(call: Call, name: str, purpose: Purpose, next: str | UnsetType) -> Response:
    inside: dict[str, Any] = {}
    if purpose != "sign_in":
        account, session = await call.holding()
        principal = call.required.principal
        inside = {
            "account": account,
            "session_id": "" if session is None else session.id,
            "client_id": principal.client_id,
            "amr": principal.amr,
        }
    begun = await call.directory.issuers.begin(
        name,
        redirect_uri=redirect_uri(call, name),
        client=call.observed(),
        next="" if next is UNSET else next,
        browser=call.cookies.issuer.value(call.request.cookie()),
        purpose=purpose,
        **inside,
    )
    return json_response(200, WayView(begun.url), [call.cookies.issuer.set(begun.browser, max_age=BACK_WITHIN)])


def redirect_uri(call: Call, name: str) -> str:
    """Return where an issuer sends browsers back to: what is registered there."""
    return call.authority.issuer + CALLBACK_PATH.replace("{name}", name)


# The way back


def answer_of(encoded: bytes) -> Answer:
    """Read what an issuer sent. Parameters that we do not know are passed over: each issuer adds some.

    Raises:
        BadRequest: a parameter that we know is repeated or too long.
    """
    if len(encoded) > BODY_AT_MOST:
        raise BadRequest(mark("The answer of the other log-in is too long."))
    try:
        pairs = parse_qsl(encoded.decode("ascii"), errors="strict", max_num_fields=64)
    except ValueError:
        raise BadRequest(mark("The answer of the other log-in cannot be read.")) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in _KNOWN:
            if name in found or len(value) > VALUE_AT_MOST or not value.isprintable():
                raise BadRequest(mark("The answer of the other log-in contradicts itself."))
            found[name] = value
    return Answer(
        state=found.get("state", ""),
        code=found.get("code", ""),
        error=found.get("error", ""),
        iss=found.get("iss"),
        name=found.get("name", "") or _name_in(found.get("user", "")),
    )


_KNOWN: Final = frozenset({"state", "code", "error", "iss", "user", "name"})


def _name_in(user: str) -> str:
    """Return the name in the JSON that Apple sends beside its first answer."""
    if not user:
        return ""
    try:
        given = msgspec.json.decode(user, type=dict[str, Any])
    except msgspec.MsgspecError:
        return ""
    name = given.get("name")
    parts = [name.get("firstName"), name.get("lastName")] if isinstance(name, dict) else []
    return " ".join(part for part in parts if isinstance(part, str) and part)[:200]


def query_of(answer: Answer) -> str:
    """Return an answer as the query of `finish`."""
    given: Mapping[str, str | None] = {name: getattr(answer, name) for name in answer.__struct_fields__}
    return urlencode({name: value for name, value in given.items() if value})


async def finish(call: Call, mode: Any) -> tuple[Came, list[tuple[bytes, bytes]]]:
    """Take what the browser brings back. Returns what came of it, and the cookies to set beside those of a sign-in."""
    name, browser = call.params["name"], await browser_of(call)
    registrant = browser.registrant or new_id()
    came = await call.directory.issuers.finish(
        name,
        answer_of(call.request.query),
        replace(browser, registrant=registrant),
        secret=call.cookies.issuer.value(call.request.cookie()),
        mode=mode,
        redirect_uri=redirect_uri(call, name),
    )
    kept = call.authority.policy.unverified_for
    mailed = came.purpose == "sign_in" and came.signed_in is None
    return came, [call.cookies.registrant.set(registrant, max_age=kept)] if mailed else []


# Linked log-ins


async def list_linked(call: Call) -> Response:
    account, _ = await call.holding()
    found = await call.directory.identities.of(account.subject)
    return json_response(200, LinkedViews([linked_view(each) for each in found]))


def linked_view(linked: Linked) -> LinkedView:
    """Return what the API says of a linked log-in."""
    return LinkedView(linked.id, linked.issuer, linked.title, linked.shown, instant(linked.linked_at))


async def unlink(call: Call) -> Response:
    body: Unlink = call.body
    account, session = await call.holding()
    done = await call.directory.identities.unlink(
        account, body.id, client=call.observed(), keep="" if session is None else session.id
    )
    return await fence(call, done)


# The issuer's own log-out


class LogoutRefused(Struct):
    """OpenID Connect Back-Channel Logout 1.0, 2.8."""

    error: str
    error_description: str


async def backchannel_logout(call: Call) -> Response:
    """Revoke the sessions that a log-out token names. 200 says that they are revoked; `fenced` says whether every
    verifier knows.
    """
    token = call.form.get("logout_token", "")
    try:
        done = await call.directory.issuers.log_out(call.params["name"], token, client=call.observed())
    except InvalidToken as exc:
        return json_response(400, LogoutRefused("invalid_request", exc.reason))
    shown = await wait_for(call, done)
    shown.ended = done.count
    return json_response(200, shown)


ROUTES = (
    Route(
        method="GET",
        path="/auth/issuers",
        handler=list_issuers,
        bundled=True,
        gives=IssuersView,
        summary="The other log-ins that are offered here, such as Google.",
    ),
    Route(
        method="POST",
        path="/auth/issuers/{name}/start",
        handler=start,
        bundled=True,
        body=Start,
        optional_body=True,
        gives=WayView,
        also=(403, 404),
        summary="Begin to sign in by another log-in. Send the browser to `url`.",
    ),
    Route(
        method="POST",
        path="/auth/issuers/{name}/backchannel-logout",
        handler=backchannel_logout,
        bundled=True,
        own_origin=False,
        form=("logout_token",),
        gives=Fence,
        also=(400, 404),
        summary="Revoke the sessions that a log-out token of an issuer names (OpenID Connect Back-Channel Logout 1.0).",
    ),
    Route(
        method="GET",
        path="/auth/identities",
        handler=list_linked,
        bundled=True,
        demands="caller",
        gives=LinkedViews,
        summary="The caller's log-ins at other issuers.",
    ),
    Route(
        method="POST",
        path="/auth/identities/link",
        handler=link,
        bundled=True,
        demands="caller",
        fresh=True,
        body=StartInside,
        gives=WayView,
        also=(403, 404),
        summary="Begin to link a log-in at another issuer. Send the browser to `url`.",
    ),
    Route(
        method="POST",
        path="/auth/identities/confirm",
        handler=confirm_by,
        bundled=True,
        demands="caller",
        in_doubt=True,
        body=StartInside,
        gives=WayView,
        also=(403, 404),
        summary="Begin to prove again who one is, by a linked log-in. Send the browser to `url`.",
    ),
    Route(
        method="POST",
        path="/auth/identities/unlink",
        handler=unlink,
        bundled=True,
        demands="caller",
        fresh=True,
        body=Unlink,
        gives=Fence,
        fences=True,
        also=(403, 404),
        summary="Unlink a log-in at another issuer, and revoke the sessions that began by it.",
    ),
)
