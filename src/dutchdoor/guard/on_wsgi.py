"""What `Auth` of every WSGI framework has in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from dutchdoor.guard.attached import engine_of, make_gate
from dutchdoor.guard.gates import Gate
from dutchdoor.guard.threads import SyncGate
from dutchdoor.guard.wsgi import Environ, request_in
from dutchdoor.model.audit_entry import AuditEvent, EventName
from dutchdoor.model.spelling import spelt

if TYPE_CHECKING:
    from dutchdoor.auth import Auth
    from dutchdoor.services.sign_in_steps import Waiting
    from dutchdoor.stores.base import Store
    from dutchdoor.verifier import Verifier

__all__ = ["OnWsgi"]

ListenerT = TypeVar("ListenerT", bound=Callable[[AuditEvent], object])


class OnWsgi:
    """The gate of each process, with the listeners that the application gave.

    Args:
        database: a URL, a store, or a `dutchdoor.Auth` that is made already. A file `dutchdoor.db` if it is not given.
        issuer: the URL of the server that signs tokens, for a service that only verifies them.
        audience: who tokens are for.
        options: the settings of `dutchdoor.Auth`; with `issuer`, those of `dutchdoor.Verifier`.

    Raises:
        Misconfigured: a setting is unknown or wrong.
    """

    @spelt
    def __init__(
        self,
        database: str | Store | Auth | Verifier | None = None,
        *,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        self._made = functools.partial(make_gate, database, issuer, audience, options)
        self._listeners: list[tuple[tuple[EventName, ...], Callable[[AuditEvent], object]]] = []
        self._gate = SyncGate(self._make_gate)

    def _make_gate(self) -> Gate:
        """Return the gate of this process; a forked child makes its own."""
        gate = self._made()
        self._prepare(gate)
        for names, listener in self._listeners:
            engine_of(gate).on(*names)(listener)
        return gate

    def _prepare(self, gate: Gate) -> None:
        """Do what the framework needs with a new gate."""

    @property
    def engine(self) -> Auth:
        """The `dutchdoor.Auth` behind this. Raises `Misconfigured` in a service that only verifies."""
        return engine_of(self._gate.gate)

    def on(self, *names: EventName) -> Callable[[ListenerT], ListenerT]:
        """Do what `dutchdoor.Auth.on` does: return a decorator of a function that is called after these audit events.
        It runs in a thread. Raises `Misconfigured` in a service that only verifies.
        """
        decorate = self.engine.on(*names)

        def keep(listener: ListenerT) -> ListenerT:
            self._listeners.append((names, listener))
            return decorate(listener)

        return keep

    def create_user(self, email: str, *, password: str | None = None, name: str = "", roles: Iterable[str] = ()) -> str:
        """Do what `dutchdoor.Auth.create_user` does: create a bundled account with an `email`, a `password` (None: its
        owner chooses one by a mailed link), a `name` and `roles`. Returns its id.
        """
        return self._gate.run(self.engine.create_user(email, password=password, name=name, roles=roles))

    def end_all(self, subject: str, *, reason: str = "ended_by_application", wait: float = 1.0) -> float:
        """Do what `dutchdoor.Auth.end_all` does: revoke all sessions and tokens of a `subject`, for a `reason`, and
        `wait` until no verifier accepts them. Returns the seconds that are left at most.
        """
        return self._gate.run(self.engine.end_all(subject, reason=reason, wait=wait))

    def waiting(self, environ: Environ, token: str = "") -> Waiting | None:
        """Do what `dutchdoor.Auth.waiting` does: return the sign-in that waits for its next step in the browser of a
        request, or that a `token` names; None without one. In Flask, `environ` is `request.environ`.
        """
        return self._gate.run(self.engine.waiting(request_in(environ), token))

    def erase(self, subject: str, *, wait: float = 1.0) -> float:
        """Do what `dutchdoor.Auth.erase` does: erase what is kept of a `subject`, and `wait` until no verifier accepts
        its tokens. Returns the seconds that are left at most.
        """
        return self._gate.run(self.engine.erase(subject, wait=wait))

    def close(self) -> None:
        """Close the engine. The end of the process does it, too."""
        self._gate.close()
