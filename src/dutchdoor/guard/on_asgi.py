"""What `Auth` of every ASGI framework has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

from dutchdoor.guard.asgi import Guard
from dutchdoor.guard.attached import engine_of, make_gate
from dutchdoor.model.audit_entry import AuditEvent, EventName
from dutchdoor.model.spelling import spelt

if TYPE_CHECKING:
    from dutchdoor.auth import Auth, HasScope
    from dutchdoor.services.sign_in_steps import Waiting
    from dutchdoor.stores.base import Store
    from dutchdoor.verifier import Verifier

__all__ = ["OnAsgi"]

ListenerT = TypeVar("ListenerT", bound=Callable[[AuditEvent], object])


class OnAsgi:
    """A gate, and the guard that stands around an application.

    Args:
        database: a URL, a store, or a `dutchdoor.Auth` that is made already. A file `dutchdoor.db` if it is not given.
        issuer: the URL of the server that signs tokens, for a service that only verifies them.
        audience: who tokens are for.
        options: the settings of `dutchdoor.Auth`; with `issuer`, those of `dutchdoor.Verifier`.

    Raises:
        Misconfigured: a setting is unknown or wrong.
    """

    _eager = False
    """Whether the user is put into each scope."""

    @spelt
    def __init__(
        self,
        database: str | Store | Auth | Verifier | None = None,
        *,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        self.gate = make_gate(database, issuer, audience, options)
        self._guard = Guard(self.gate, eager=self._eager)

    @property
    def engine(self) -> Auth:
        """The `dutchdoor.Auth` behind this. Raises `Misconfigured` in a service that only verifies."""
        return engine_of(self.gate)

    def on(self, *names: EventName) -> Callable[[ListenerT], ListenerT]:
        """Do what `dutchdoor.Auth.on` does: return a decorator of a function that is called after these audit events.
        Raises `Misconfigured` in a service that only verifies.
        """
        return self.engine.on(*names)

    async def create_user(
        self, email: str, *, password: str | None = None, name: str = "", roles: Iterable[str] = ()
    ) -> str:
        """Do what `dutchdoor.Auth.create_user` does: create a bundled account with an `email`, a `password` (None: its
        owner chooses one by a mailed link), a `name` and `roles`. Returns its id.
        """
        return await self.engine.create_user(email, password=password, name=name, roles=roles)

    async def end_all(self, subject: str, *, reason: str = "ended_by_application", wait: float = 1.0) -> float:
        """Do what `dutchdoor.Auth.end_all` does: revoke all sessions and tokens of a `subject`, for a `reason`, and
        `wait` until no verifier accepts them. Returns the seconds that are left at most.
        """
        return await self.engine.end_all(subject, reason=reason, wait=wait)

    async def waiting(self, request: HasScope | MutableMapping[str, Any], token: str = "") -> Waiting | None:
        """Do what `dutchdoor.Auth.waiting` does: return the sign-in that waits for its next step in the browser of a
        `request`, or that a `token` names; None without one.
        """
        return await self.engine.waiting(request, token)

    async def erase(self, subject: str, *, wait: float = 1.0) -> float:
        """Do what `dutchdoor.Auth.erase` does: erase what is kept of a `subject`, and `wait` until no verifier accepts
        its tokens. Returns the seconds that are left at most.
        """
        return await self.engine.erase(subject, wait=wait)
