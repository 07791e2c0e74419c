"""The API where the application has users of its own: without what needs the bundled accounts, and with logins that
need not be e-mail addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from dutchdoor.errors import InvalidInput
from dutchdoor.services.external_users import ExternalUsers
from dutchdoor.texts import mark
from dutchdoor.web import account_routes, admin
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.schemas import Login, Reauthentication
from dutchdoor.web.sign_in_answer import answer_transport, ongoing, signed_in_answer

__all__ = ["routes_for"]

TypedLogin = Annotated[str, Meta(max_length=320, description="What the application's users sign in with.")]


class OwnLogin(Login, frozen=True):
    email: TypedLogin


class OwnReauthentication(Reauthentication, frozen=True):
    """The login and the password; or the method of a second factor, and the response to it."""

    email: TypedLogin | UnsetType = UNSET


async def reauthenticate(call: Call) -> Response:
    body: OwnReauthentication = call.body
    if body.password is UNSET:
        return await account_routes.reauthenticate(call)
    if body.email is UNSET:
        raise InvalidInput(mark("Send the login, too."), field="email")
    signed_in = await call.directory.step_up.reauthenticate(await ongoing(call), body.password, login=body.email)
    return signed_in_answer(call, signed_in, answer_transport(call, signed_in), [])


_CHANGED: dict[str, dict[str, Any]] = {
    "/auth/login": {"body": OwnLogin},
    "/auth/reauthenticate": {"body": OwnReauthentication, "handler": reauthenticate},
}


def routes_for(users: ExternalUsers[Any] | None, routes: Sequence[Route]) -> tuple[Route, ...]:
    """Return these routes as they are for an application with `users` of its own; all of them if it has none."""
    if users is None:
        return tuple(routes)
    kept = [route for route in routes if not route.bundled]
    if users.roles is not None:  # the next sign-in would undo what an administrator sets
        kept = [route for route in kept if route.handler is not admin.set_roles]
    return tuple(replace(route, **_CHANGED.get(route.path, {})) for route in kept)
