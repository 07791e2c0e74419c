"""dutchdoor around an ASGI application without a framework, or of a framework that has no adapter here.

    auth = Auth("sqlite:///app.db")

    async def hello(scope, receive, send):
        user = await current_user(scope)
        ...

    app = auth.around(hello)

What a guard raises, and `around` answers: 401 or 403 with a problem document, 503 while the store is out of reach. A
WebSocket is closed with 4401, 4403 or 1013.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dutchdoor.errors import Misconfigured
from dutchdoor.guard.asgi import Middleware
from dutchdoor.guard.asgi_visit import visit_of
from dutchdoor.guard.on_asgi import OnAsgi
from dutchdoor.guard.refusal import next_path
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.user import User
from dutchdoor.model.durations import Duration
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData
from dutchdoor.model.spelling import spelt

__all__ = [
    "Auth",
    "Principal",
    "SessionData",
    "User",
    "csrf_token",
    "current_principal",
    "current_user",
    "next_path",
    "optional_principal",
    "optional_user",
    "session_data",
]

Scope = MutableMapping[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]

_ANYONE = Requirement()


class Auth(OnAsgi):
    """Authentication for an ASGI application. `auth.around(app)` is what a server runs."""

    def around(self, app: Application) -> Application:
        """Return an `app` with this in front of it: the paths of the API are answered, and all others are the
        application's. Raises `Misconfigured` for what has an `Auth` already.
        """
        if isinstance(app, Middleware):
            raise Misconfigured("This application has an Auth already. One Auth serves all of its routes.")
        return Middleware(app, self._guard)

    @spelt
    def require(
        self, *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
    ) -> Callable[[Application], Application]:
        """Return a decorator for an ASGI application: it is called only if the caller meets the requirement.

        Args:
            role: a role that the account has.
            scope: words that the scope of the sign-in contains.
            fresh: the greatest age of the last proof: "5m", a timedelta, or seconds.
            factors: how many kinds of proof the sign-in took: 1 or 2.

        Raises:
            Misconfigured: an argument is wrong.
        """
        requirement = Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors)

        def decorate(app: Application) -> Application:
            @functools.wraps(app)
            async def guarded(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] in {"http", "websocket"}:
                    await visit_of(scope).require(requirement)
                await app(scope, receive, send)

            return guarded

        return decorate


async def current_user(scope: Scope) -> User:
    """Return the account that sends the request; with users of your own, your object. Raises `NotAuthenticated` without
    one, and what `Auth.principal` raises.
    """
    user: User = await visit_of(scope).current_user()
    return user


async def optional_user(scope: Scope) -> User | None:
    """Return the account that sends the request, or None. Raises `Forbidden` and `Unavailable`."""
    user: User | None = await visit_of(scope).optional_user()
    return user


async def current_principal(scope: Scope) -> Principal:
    """Return what the proof says. It takes no look-up where a token is the proof. Raises as `current_user` does."""
    return await visit_of(scope).require(_ANYONE)


async def optional_principal(scope: Scope) -> Principal | None:
    """Return what the proof says, or None. Raises `Forbidden` and `Unavailable`."""
    return await visit_of(scope).optional_principal()


async def session_data(scope: Scope) -> SessionData:
    """Return the data that is kept on the server for the caller's session, or for a visitor who has not signed in. It
    behaves as a dict, and is `scope["session"]` afterwards. What changed is stored when the response starts.

    Raises `Misconfigured` in a service that only verifies, `Forbidden` and `Unavailable`.
    """
    return await visit_of(scope).session(scope)


async def csrf_token(scope: Scope) -> str:
    """Return the token that the forms of a page carry in their field `csrf_token`, and its scripts in the header
    `X-CSRF-Token`; "" where no cookie is the proof.
    """
    return await visit_of(scope).csrf_token()
