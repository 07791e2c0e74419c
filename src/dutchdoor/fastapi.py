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

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Generic, TypeVar

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
    import fastapi.routing
    from fastapi import Depends, FastAPI
    from fastapi.dependencies.models import Dependant
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

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

R = TypeVar("R")


class _Refused:
    """Stands in a signature that FastAPI reads only by mistake. It would then call the function with values of the
    query, and let everyone in.
    """

    def __init__(self, fix: str) -> None:
        self._fix = fix

    def __get_pydantic_core_schema__(self, *_: object) -> Any:
        raise Misconfigured(self._fix)


class _Dependency(Generic[R]):
    """What stands in `Depends`. FastAPI calls it by keyword alone: a decorator would get a coroutine that nothing
    awaits, and leave the route open. In the other places where a slip may put it, it says where it belongs.
    """

    def __init__(self, ask: Callable[[HTTPConnection], Awaitable[R]], fix: str, *, is_guard: bool) -> None:
        self._ask, self.fix, self.is_guard = ask, fix, is_guard
        connection = inspect.Parameter("connection", inspect.Parameter.KEYWORD_ONLY, annotation=HTTPConnection)
        self.__signature__ = inspect.Signature([connection])

    async def __call__(self, *, connection: HTTPConnection) -> R:
        return await self._ask(connection)

    # Python's message begins with this name.
    __call__.__qualname__ = "auth.require(...) is no decorator: write Depends(auth.require(...)). A dependency"

    def __get_pydantic_core_schema__(self, *_: object) -> Any:
        raise Misconfigured(f"A dependency is no type. {self.fix}")

    @property
    def dependency(self) -> Any:
        """What FastAPI reads of a `Depends`. Raises `Misconfigured`."""
        raise Misconfigured(f"dependencies=[...] has a dependency without Depends. {self.fix}")


_ANYONE = Requirement()


async def _required_of_anyone(connection: HTTPConnection) -> Principal:
    return await visit_of(connection.scope).require(_ANYONE)


async def _session_of(connection: HTTPConnection) -> Data:
    return await visit_of(connection.scope).session(connection.scope)


_user: _Dependency[Any] = _Dependency(
    lambda connection: visit_of(connection.scope).current_user(), "Write user: CurrentUser.", is_guard=True
)
_user_or_none: _Dependency[Any] = _Dependency(
    lambda connection: visit_of(connection.scope).optional_user(), "Write user: OptionalUser.", is_guard=False
)
_principal = _Dependency(_required_of_anyone, "Write principal: CurrentPrincipal.", is_guard=True)
_principal_or_none = _Dependency(
    lambda connection: visit_of(connection.scope).optional_principal(),
    "Write principal: OptionalPrincipal.",
    is_guard=False,
)
_session = _Dependency(_session_of, "Write session: SessionData.", is_guard=False)

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


def _refuse_in_depends(annotation: Any, fix: str) -> None:
    """Set what FastAPI reads of `Depends(CurrentUser)`, which would make a user of values of the query."""
    wrong = Annotated[str, _Refused(f"An annotation stands in no Depends. Write {fix}.")]
    read = inspect.Parameter("wrong", inspect.Parameter.KEYWORD_ONLY, annotation=wrong)
    annotation.__signature__ = inspect.Signature([read])


_refuse_in_depends(CurrentUser, "user: CurrentUser")
_refuse_in_depends(OptionalUser, "user: OptionalUser")
_refuse_in_depends(CurrentPrincipal, "principal: CurrentPrincipal")
_refuse_in_depends(OptionalPrincipal, "principal: OptionalPrincipal")
_refuse_in_depends(SessionData, "session: SessionData")

_NO_BRACKETS = _Refused("Depends(auth.require) guards nothing. Write Depends(auth.require()), with brackets.")


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
        app.add_middleware(_look_at_routes, routes=app.routes)
        if isinstance(app, FastAPI):
            _describe(app, self.gate.described())

    @spelt
    def require(
        self,
        *,
        role: Annotated[str, _NO_BRACKETS] = "",
        scope: str = "",
        fresh: Duration | None = None,
        factors: int = 1,
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

        async def required(connection: HTTPConnection) -> Principal:
            return await visit_of(connection.scope).require(requirement)

        return _Dependency(required, "Write Depends(auth.require(...)).", is_guard=True)


# --- slips -----------------------------------------------------------------------------------------------------------


def _look_at_routes(app: ASGIApp, routes: Sequence[BaseRoute]) -> ASGIApp:
    """Return the `app` as it is. Starlette calls this when the application starts. Raises `Misconfigured` for a route
    that only seems to have a guard.
    """
    for route in _with_included(routes):
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant):
            _look_at(dependant, route.path)
        _look_at_routes(app, getattr(getattr(route, "original_route", route), "routes", None) or ())
    return app


def _with_included(routes: Sequence[BaseRoute]) -> Iterable[Any]:
    """Return each route with what the routers around it add. In an older FastAPI, `routes` are these."""
    return getattr(fastapi.routing, "iter_route_contexts", iter)(routes)


def _look_at(dependant: Dependant, path: str) -> None:
    for field in (*dependant.query_params, *dependant.body_params):
        default: Any = field.field_info.default
        # `CurrentUser`, or an annotation of the application's own, has its `Depends` in the metadata.
        of_annotation = [getattr(each, "dependency", None) for each in getattr(default, "__metadata__", ())]
        fix = next((each.fix for each in (default, *of_annotation) if isinstance(each, _Dependency)), "")
        if isinstance(getattr(default, "__self__", None), Auth):
            fix = "Write Depends(auth.require())."
        if fix:
            # A value of the query would take its place: the route is open.
            raise Misconfigured(f"{path}: the default of {field.name} is a dependency, and guards nothing. {fix}")
    for each in dependant.dependencies:
        _look_at(each, path)


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
    for route in _with_included(app.routes):
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant) and _has_guard(dependant):
            operations = document["paths"].get(route.path_format, {})
            yield from (operations[name] for method in route.methods or () if (name := method.lower()) in operations)


def _has_guard(dependant: Dependant) -> bool:
    is_guard = isinstance(dependant.call, _Dependency) and dependant.call.is_guard
    return is_guard or any(map(_has_guard, dependant.dependencies))
