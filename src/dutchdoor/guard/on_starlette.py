"""What `Auth` of Starlette and of FastAPI, which is built on it, have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response

from dutchdoor.errors import DutchdoorError, Misconfigured
from dutchdoor.guard.asgi import Middleware
from dutchdoor.guard.asgi_visit import visit_of
from dutchdoor.guard.on_asgi import OnAsgi
from dutchdoor.guard.refusal import refusal
from dutchdoor.model.session_data import SessionData
from dutchdoor.model.spelling import spelt
from dutchdoor.web.scope import request_of

if TYPE_CHECKING:
    from dutchdoor.auth import Auth
    from dutchdoor.stores.base import Store
    from dutchdoor.verifier import Verifier

__all__ = ["OnStarlette"]


class OnStarlette(OnAsgi):
    """Authentication for an application of Starlette or FastAPI.

    Args:
        app: the application; or None, and `attach` it later.
        database: a URL, a store, or a `dutchdoor.Auth` that is made already. A file `dutchdoor.db` if it is not given.
        issuer: the URL of the server that signs tokens, for a service that only verifies them.
        audience: who tokens are for.
        options: the settings of `dutchdoor.Auth`; with `issuer`, those of `dutchdoor.Verifier`.

    Raises:
        Misconfigured: a setting is unknown or wrong, or the application has an `Auth` already.
    """

    @spelt
    def __init__(
        self,
        app: Starlette | None = None,
        database: str | Store | Auth | Verifier | None = None,
        *,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(database, issuer=issuer, audience=audience, **options)
        if app is not None:
            self.attach(app)

    def attach(self, app: Starlette) -> None:
        """Put the guard around an `app`.

        Raises:
            Misconfigured: it is no application of this framework, or it has an `Auth` already.
        """
        if not isinstance(app, Starlette):
            raise Misconfigured(f"Auth(app): {app!r} is not an application of Starlette or FastAPI.")
        if any(getattr(each, "cls", None) is Middleware for each in app.user_middleware):
            raise Misconfigured("This application has an Auth already. One Auth serves all of its routes.")
        app.add_middleware(Middleware, guard=self._guard)
        app.exception_handlers.setdefault(DutchdoorError, self._refused)

    async def session(self, request: HTTPConnection) -> SessionData:
        """Return the data that is kept on the server for the caller's session, or for a visitor who has not signed in.
        It behaves as a dict, and `request.session` is the same object afterwards. What changed is stored when the
        response starts. `request` is the request or the WebSocket.

        Raises:
            Misconfigured: this service only verifies.
            Forbidden: another site's page sent the request, or it lacks the CSRF token.
            Unavailable: the store is out of reach.
        """
        return await visit_of(request.scope).session(request.scope)

    async def csrf_token(self, request: HTTPConnection) -> str:
        """Return the token that the forms of a page carry in their field `csrf_token`, and its scripts in the header
        `X-CSRF-Token`; "" where no cookie is the proof. `request` is the one for the page.
        """
        return await visit_of(request.scope).csrf_token()

    async def _refused(self, connection: HTTPConnection, error: Any) -> Response:
        """Answer what a guard raised, inside of the application's own middleware: a page of another origin reads a 401
        only with the headers of `CORSMiddleware`, and a log or a metric counts a 401 and no exception.
        """
        if (
            connection.scope["type"] != "http"
            or not isinstance(error, DutchdoorError)
            or isinstance(error, Misconfigured)
        ):
            raise error  # the middleware closes the WebSocket
        scope = dict(connection.scope)
        answer = refusal(error, request_of(scope), self.gate, scope.get("root_path", ""))
        body = b"" if scope["method"] == "HEAD" else answer.body
        response = Response(status_code=answer.status)
        response.body, response.raw_headers = body, [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        return response
