"""dutchdoor in FastAPI.

    app = FastAPI()
    auth = Auth(app)

    @app.get("/hello")
    async def hello(user: CurrentUser):
        return {"hello": user.email}

    @app.get("/admin", dependencies=[Depends(auth.require(role="admin"))])
    async def admin(): ...

The annotations work in WebSocket routes, too. A route refuses as RFC 6750 and RFC 9470 say, with a problem document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any

from dutchdoor.errors import Misconfigured
from dutchdoor.guard.asgi_visit import visit_of
from dutchdoor.guard.described import merge
from dutchdoor.guard.extra import extra
from dutchdoor.guard.refusal import next_path
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.user import User
from dutchdoor.model.audit_entry import AuditEvent
from dutchdoor.model.durations import Duration
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData as Data
from dutchdoor.model.spelling import spelt

with extra("fastapi"):
    from fastapi import Depends, FastAPI
    from fastapi.dependencies.models import Dependant
    from fastapi.routing import APIRoute
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection

    from dutchdoor.guard.on_starlette import OnStarlette

__all__ = [
    "AuditEvent",
    "Auth",
    "CurrentPrincipal",
    "CurrentUser",
    "OptionalPrincipal",
    "OptionalUser",
    "Principal",
    "SessionData",
    "User",
    "next_path",
]

_GUARDS = "__dutchdoor_guard__"


async def _user(connection: HTTPConnection) -> Any:
    return await visit_of(connection.scope).current_user()


async def _user_or_none(connection: HTTPConnection) -> Any:
    return await visit_of(connection.scope).optional_user()


async def _principal(connection: HTTPConnection) -> Principal:
    return await visit_of(connection.scope).require(_ANYONE)


async def _principal_or_none(connection: HTTPConnection) -> Principal | None:
    return await visit_of(connection.scope).optional_principal()


async def _session(connection: HTTPConnection) -> Data:
    return await visit_of(connection.scope).session(connection.scope)


_ANYONE = Requirement()
for _guard in (_user, _principal):
    setattr(_guard, _GUARDS, True)

CurrentUser = Annotated[User, Depends(_user)]
"""The account that sends the request; 401 without one."""
OptionalUser = Annotated[User | None, Depends(_user_or_none)]
"""The account that sends the request, or None."""
CurrentPrincipal = Annotated[Principal, Depends(_principal)]
"""What the proof says; 401 without one. It takes no look-up where a token is the proof."""
OptionalPrincipal = Annotated[Principal | None, Depends(_principal_or_none)]
"""What the proof says, or None."""
SessionData = Annotated[Data, Depends(_session)]
"""What is kept on the server for the caller's session, or for a visitor who has not signed in: a dict."""


class _Brackets:
    """Stands in the signature of `require`, which FastAPI reads only if it was given in place of what it returns."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> Any:
        # FastAPI would call it with values of the query, drop the guard that it returns, and let everyone in.
        raise Misconfigured("Depends(auth.require) guards nothing. Write Depends(auth.require()), with brackets.")


class Auth(OnStarlette):
    """Authentication for a FastAPI application. `Auth(app)` puts it in front of every route.

    With users of your own, `CurrentUser` gives your object. Name its type once for all routes:

        CurrentUser = Annotated[MyUser, Depends(auth.current_user)]
        OptionalUser = Annotated[MyUser | None, Depends(auth.optional_user)]
    """

    current_user = staticmethod(_user)
    """The dependency of `CurrentUser`."""
    optional_user = staticmethod(_user_or_none)
    """The dependency of `OptionalUser`."""

    def attach(self, app: Starlette) -> None:
        """Put the guard around an `app`, and the paths of the API into its OpenAPI document.

        Raises:
            Misconfigured: it is no application of FastAPI, or it has an `Auth` already.
        """
        super().attach(app)
        if isinstance(app, FastAPI):
            _describe(app, self.gate.described())

    @spelt
    def require(
        self, *, role: Annotated[str, _Brackets] = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
    ) -> Callable[..., Awaitable[Principal]]:
        """Return a dependency that gives the principal, if the caller meets the requirement. It stands in `Depends`, in
        a route or on a router.

        Args:
            role: a role that the account has.
            scope: words that the scope of the sign-in contains.
            fresh: the greatest age of the last proof: "5m", a timedelta, or seconds.
            factors: how many kinds of proof the sign-in took: 1 or 2.

        Raises:
            Misconfigured: an argument is wrong; or FastAPI was given `Depends(auth.require)`, without the brackets.
            TypeError: it was used as a decorator, which would guard nothing.
        """
        requirement = Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors)

        # By keyword alone, as FastAPI calls it. A decorator above a route would return a coroutine that nothing awaits,
        # and leave the route open.
        async def required(*, connection: HTTPConnection) -> Principal:
            return await visit_of(connection.scope).require(requirement)

        # Python's message begins with this name.
        required.__qualname__ = "auth.require(...) is no decorator: write Depends(auth.require(...)). required"
        setattr(required, _GUARDS, True)
        return required


# --- OpenAPI ---------------------------------------------------------------------------------------------------------


def _describe(app: FastAPI, ours: dict[str, Any]) -> None:
    """Add our paths and schemes to the application's document, and a requirement to each route with a guard."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = type(app).openapi(app)
            merge(document, ours, _guarded(app, document))
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI documents this way to extend it


def _guarded(app: FastAPI, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for route in app.routes:
        if isinstance(route, APIRoute) and _has_guard(route.dependant):
            operations = document["paths"].get(route.path_format, {})
            yield from (operations[name] for method in route.methods or () if (name := method.lower()) in operations)


def _has_guard(dependant: Dependant) -> bool:
    return hasattr(dependant.call, _GUARDS) or any(map(_has_guard, dependant.dependencies))
