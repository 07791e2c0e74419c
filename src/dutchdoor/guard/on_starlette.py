"""What `Auth` of Starlette and of FastAPI, which is built on it, have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from dutchdoor.errors import Misconfigured
from dutchdoor.guard.asgi import Guard, Middleware, visit_of
from dutchdoor.guard.attached import engine_of, make_gate
from dutchdoor.model.audit_entry import AuditEvent, EventName

if TYPE_CHECKING:
    from dutchdoor.auth import Auth
    from dutchdoor.stores.base import Store
    from dutchdoor.verifier import Verifier

__all__ = ["OnStarlette"]

ListenerT = TypeVar("ListenerT", bound=Callable[[AuditEvent], object])


class OnStarlette:
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

    _eager = False

    def __init__(
        self,
        app: Starlette | None = None,
        database: str | Store | Auth | Verifier | None = None,
        *,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        self.gate = make_gate(database, issuer, audience, options)
        self._guard = Guard(self.gate, eager=self._eager)
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

    @property
    def engine(self) -> Auth:
        """The `dutchdoor.Auth` behind this. Raises `Misconfigured` in a service that only verifies."""
        return engine_of(self.gate)

    def on(self, *names: EventName) -> Callable[[ListenerT], ListenerT]:
        """Do what `dutchdoor.Auth.on` does: return a decorator of a function that is called after these audit events.
        Raises `Misconfigured` in a service that only verifies.
        """
        return self.engine.on(*names)

    async def end_all(self, subject: str, *, reason: str = "ended_by_application", wait: float = 1.0) -> float:
        """Do what `dutchdoor.Auth.end_all` does: revoke all sessions and tokens of a `subject`, for a `reason`, and
        `wait` until no verifier accepts them. Returns the seconds that are left at most.
        """
        return await self.engine.end_all(subject, reason=reason, wait=wait)

    async def csrf_token(self, request: HTTPConnection) -> str:
        """Return the token that the forms of a page carry in their field `csrf_token`, and its scripts in the header
        `X-CSRF-Token`; "" where no cookie is the proof. `request` is the one for the page.
        """
        return await visit_of(request.scope).csrf_token()
