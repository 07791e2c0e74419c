"""dutchdoor in Litestar.

    auth = Auth()

    @get("/hello")
    async def hello(current_user: CurrentUser) -> dict[str, str | None]:
        return {"hello": current_user.email}

    @get("/admin", guards=[auth.require(role="admin")])
    async def admin() -> None: ...

    app = Litestar([hello, admin], plugins=[auth])

Litestar injects by the name of a parameter: `current_user: CurrentUser`, `optional_user: OptionalUser`,
`current_principal: CurrentPrincipal`, `optional_principal: OptionalPrincipal`, `session_data: SessionData`.
`request.user` is a `User`, or an `Anonymous`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from copy import copy
from typing import Any

from dutchdoor.errors import DutchdoorError, Misconfigured
from dutchdoor.guard.asgi import Middleware
from dutchdoor.guard.asgi_visit import Visit, close_code, sent_path, visit_of
from dutchdoor.guard.described import merge
from dutchdoor.guard.extra import extra
from dutchdoor.guard.gates import AsgiApp
from dutchdoor.guard.on_asgi import OnAsgi
from dutchdoor.guard.refusal import next_path, refusal
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.user import Anonymous, User
from dutchdoor.model.audit_entry import AuditEvent
from dutchdoor.model.durations import Duration
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData as Data
from dutchdoor.model.spelling import spelt
from dutchdoor.web.scope import request_of

with extra("litestar"):
    from litestar import Request, Response, asgi
    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection
    from litestar.di import NamedDependency, Provide
    from litestar.exceptions import WebSocketException
    from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
    from litestar.middleware import DefineMiddleware
    from litestar.openapi.config import OpenAPIConfig
    from litestar.openapi.spec import OpenAPI
    from litestar.plugins import InitPlugin
    from litestar.plugins.base import ReceiveRoutePlugin
    from litestar.routes import BaseRoute, HTTPRoute
    from litestar.types import Receive, Scope, Send


__all__ = [
    "Anonymous",
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

CurrentUser = NamedDependency[User]
"""The account that sends the request; 401 without one. The parameter is called `current_user`."""
OptionalUser = NamedDependency[User | None]
"""The account that sends the request, or None. The parameter is called `optional_user`."""
CurrentPrincipal = NamedDependency[Principal]
"""What the proof says; 401 without one. The parameter is called `current_principal`."""
OptionalPrincipal = NamedDependency[Principal | None]
"""What the proof says, or None. The parameter is called `optional_principal`."""
SessionData = NamedDependency[Data]
"""What is kept on the server for the caller's session or for a visitor: a dict. The parameter is `session_data`."""

AnyConnection = ASGIConnection[Any, Any, Any, Any]
_ANYONE = Requirement()
_GUARDS = "__dutchdoor_guard__"


class Auth(OnAsgi, InitPlugin, ReceiveRoutePlugin):
    """Authentication for a Litestar application: one of its `plugins`.

    Args:
        database: a URL, a store, or a `dutchdoor.Auth` that is made already. A file `dutchdoor.db` if it is not given.
        issuer: the URL of the server that signs tokens, for a service that only verifies them.
        audience: who tokens are for.
        options: the settings of `dutchdoor.Auth`; with `issuer`, those of `dutchdoor.Verifier`.

    Raises:
        Misconfigured: a setting is unknown or wrong, or the application has an `Auth` already.
    """

    _eager = True

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Put the guard, the API's routes and the dependencies into the configuration. Litestar calls this.

        Raises:
            Misconfigured: the application has an `Auth` already.
        """
        if any(isinstance(plugin, Auth) and plugin is not self for plugin in app_config.plugins):
            raise Misconfigured("This application has two Auths. One Auth serves all of its routes.")
        app_config.middleware.insert(0, DefineMiddleware(Middleware, guard=self._guard))
        app_config.exception_handlers[DutchdoorError] = self._refused
        app_config.dependencies |= {
            "current_user": Provide(_user),
            "optional_user": Provide(_user_or_none),
            "current_principal": Provide(_principal),
            "optional_principal": Provide(_principal_or_none),
            "session_data": Provide(_session),
        }
        app_config.on_startup.append(self.gate.open)
        app_config.on_shutdown.append(self._guard.stop)
        self._guarded: set[tuple[str, str]] = set()
        if app_config.openapi_config is not None:
            app_config.openapi_config = copy(app_config.openapi_config)  # the default is one for all applications
            _describe(app_config.openapi_config, self.gate.described(), self._guarded)
        if self.gate.application is not None:
            app_config.route_handlers.extend(_mounts(self.gate.application, self.gate.paths))
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Note which operations of a `route` have a guard. Litestar calls this."""
        if isinstance(route, HTTPRoute):
            self._guarded.update(
                (route.path_format, method.lower())
                for handler in route.route_handlers
                for method in handler.http_methods
                if _has_guard(handler)
            )

    @spelt
    def require(
        self, *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
    ) -> Callable[[AnyConnection, BaseRouteHandler], Awaitable[None]]:
        """Return a guard for a handler, a controller or a router: `guards=[auth.require(...)]`.

        Args:
            role: a role that the account has.
            scope: words that the scope of the sign-in contains.
            fresh: the greatest age of the last proof: "5m", a timedelta, or seconds.
            factors: how many kinds of proof the sign-in took: 1 or 2.

        Raises:
            Misconfigured: an argument is wrong.
        """
        requirement = Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors)

        async def guard(connection: AnyConnection, _: BaseRouteHandler) -> None:
            await _required(connection.scope, requirement)

        # Litestar calls it with two values, and a decorator with one: Python's message begins with this name.
        guard.__qualname__ = "auth.require(...) is no decorator: write guards=[auth.require(...)]. guard"
        setattr(guard, _GUARDS, True)
        return guard

    def _refused(self, request: Request[Any, Any, Any], error: DutchdoorError) -> Response[bytes]:
        scope: Any = request.scope
        answer = refusal(error, request_of(scope), self.gate, scope.get("root_path", ""))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
        kind = headers.pop("content-type", None)
        return Response(answer.body, status_code=answer.status, media_type=kind, headers=headers)

    async def session(self, request: AnyConnection) -> Data:
        """Return the data that is kept on the server for the caller's session, or for a visitor who has not signed in.
        It behaves as a dict, and `request.session` is the same object afterwards. What changed is stored when the
        response starts. `request` is the request or the WebSocket.

        Raises:
            Misconfigured: this service only verifies.
            Forbidden: another site's page sent the request, or it lacks the CSRF token.
            Unavailable: the store is out of reach.
        """
        return await _session(request)

    async def csrf_token(self, request: AnyConnection) -> str:
        """Return the token that the forms of a page carry in their field `csrf_token`, and its scripts in the header
        `X-CSRF-Token`; "" where no cookie is the proof. `request` is the one for the page.
        """
        return await _visit(request.scope).csrf_token()


async def _required(scope: Any, requirement: Requirement) -> Principal:
    try:
        return await _visit(scope).require(requirement)
    except Misconfigured:
        raise
    except DutchdoorError as error:
        if scope["type"] != "websocket":
            raise
        raise WebSocketException(detail=str(error), code=close_code(error)) from None


async def _user(request: AnyConnection) -> Any:
    await _required(request.scope, _ANYONE)  # closes a WebSocket with the code for it
    return await _visit(request.scope).current_user()


async def _user_or_none(request: AnyConnection) -> Any:
    return await _visit(request.scope).optional_user()


async def _principal(request: AnyConnection) -> Principal:
    return await _required(request.scope, _ANYONE)


async def _session(request: AnyConnection) -> Data:
    scope: Any = request.scope
    return await _visit(scope).session(scope)


async def _principal_or_none(request: AnyConnection) -> Principal | None:
    return await _visit(request.scope).optional_principal()


# --- OpenAPI ---------------------------------------------------------------------------------------------------------


def _has_guard(handler: HTTPRouteHandler) -> bool:
    asked = handler.parsed_fn_signature.parameters
    return not asked.keys().isdisjoint({"current_user", "current_principal"}) or any(
        hasattr(guard, _GUARDS) for guard in handler.resolve_guards()
    )


def _describe(config: OpenAPIConfig, ours: dict[str, Any], guarded: set[tuple[str, str]]) -> None:
    """Add our paths and schemes to the application's document, and a requirement to each operation with a guard."""
    made_by_litestar = config.to_openapi_schema

    def make() -> OpenAPI:
        document = made_by_litestar()
        written_by_litestar = document.to_schema

        def write() -> dict[str, Any]:
            written = written_by_litestar()
            paths = written.get("paths", {})
            merge(written, ours, [paths[path][name] for path, name in guarded if name in paths.get(path, ())])
            return written

        document.to_schema = write  # type: ignore[method-assign] # Litestar has no other place for more paths
        return document

    config.to_openapi_schema = make  # type: ignore[method-assign]


def _mounts(application: AsgiApp, paths: Iterable[str]) -> list[Any]:
    """Return handlers for the paths that belong to the API: those that end with a slash stand for all below them."""

    async def engine(scope: Scope, receive: Receive, send: Send) -> None:
        await application({**scope, "path": sent_path(scope)}, receive, send)  # type: ignore[arg-type]

    return [asgi(path.rstrip("/"), is_mount=path.endswith("/"), copy_scope=True)(engine) for path in paths]


def _visit(scope: Any) -> Visit:
    return visit_of(scope)
