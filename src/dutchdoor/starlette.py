"""dutchdoor in Starlette.

    app = Starlette(routes=[...])
    auth = Auth(app)

    @auth.require(role="admin")
    async def report(request):
        return PlainTextResponse(f"Hello {request.user.display_name}")

`request.user` is a `User`, or an `Anonymous`; `request.auth.principal` is the `Principal`. Starlette's own `requires`
works too: its scopes are "authenticated", the roles, and the words of the token's scope.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dutchdoor.errors import Misconfigured
from dutchdoor.guard.above_views import above_views
from dutchdoor.guard.asgi_visit import visit_of
from dutchdoor.guard.extra import extra
from dutchdoor.guard.refusal import next_path
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.user import Anonymous, User
from dutchdoor.model.audit_entry import AuditEvent
from dutchdoor.model.durations import Duration
from dutchdoor.model.principal import Principal
from dutchdoor.model.spelling import spelt

with extra("starlette"):
    from starlette.requests import HTTPConnection

    from dutchdoor.guard.on_starlette import OnStarlette

__all__ = ["Anonymous", "AuditEvent", "Auth", "Principal", "User", "next_path"]

P = ParamSpec("P")
R = TypeVar("R")


class Auth(OnStarlette):
    """Authentication for a Starlette application. `Auth(app)` puts it in front of every route."""

    _eager = True

    @spelt
    def require(
        self, *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator for an endpoint: it is called only if the caller meets the requirement.

        Args:
            role: a role that the account has.
            scope: words that the scope of the sign-in contains.
            fresh: the greatest age of the last proof: "5m", a timedelta, or seconds.
            factors: how many kinds of proof the sign-in took: 1 or 2.

        Raises:
            Misconfigured: an argument is wrong, or the endpoint is not an `async def` with a request.
        """
        requirement = Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors)

        @above_views("auth.require(...)", on_class="Write it above the methods of the class.")
        def decorate(endpoint: Callable[P, R]) -> Callable[P, R]:
            connection_in = _connection_of(endpoint)

            @functools.wraps(endpoint)
            async def guarded(*args: Any, **named: Any) -> Any:
                await visit_of(connection_in(args, named).scope).require(requirement)
                return await endpoint(*args, **named)  # type: ignore[misc] # `_connection_of` has checked it

            return guarded  # type: ignore[return-value] # a coroutine function, as the endpoint is

        return decorate


def _connection_of(endpoint: Callable[..., object]) -> Callable[[tuple[Any, ...], dict[str, Any]], HTTPConnection]:
    """Return what finds the request or the WebSocket among the arguments of an endpoint."""
    called = getattr(endpoint, "__qualname__", type(endpoint).__name__)
    if not inspect.iscoroutinefunction(endpoint):
        raise Misconfigured(f"auth.require: {called} must be an `async def`.")
    for index, name in enumerate(inspect.signature(endpoint).parameters):
        if name in {"request", "websocket"}:
            return functools.partial(_found, name, index)
    raise Misconfigured(f"auth.require: {called} has no parameter `request` or `websocket`.")


def _found(name: str, index: int, args: tuple[Any, ...], named: dict[str, Any]) -> HTTPConnection:
    found: HTTPConnection = named[name] if name in named else args[index]
    return found
