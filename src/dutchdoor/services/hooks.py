"""Hooks: what an application or a higher layer adds to the verbs, each declared here by its name and type.

The first three return an answer. An application adds `listeners` of audit events (`Auth.on`); the other lists are for
the layers above. A listener's exception is logged and undoes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ParamSpec, TypeAlias

from msgspec import Struct, field

from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import AuditEvent, EventName
from dutchdoor.model.http_client import Client
from dutchdoor.model.sightings import NetworkReader
from dutchdoor.model.suspicion import Reaction, Suspected
from dutchdoor.services.calling import Calling

__all__ = ["BreachedHook", "ClaimsHook", "CodeHook", "Hooks", "Listener", "announce", "notify"]

P = ParamSpec("P")

ClaimsHook: TypeAlias = Callable[[Account, str | None], Mapping[str, object]]
"""Returns the claims that an operator adds to an access token of an account and a session, within the size budget and
never under a refused name.
"""
BreachedHook: TypeAlias = Callable[[str], bool]
"""Returns whether a password is known from a leak."""
CodeHook: TypeAlias = Callable[[Account, str], object]
"""Delivers a code for signing in to the owner of an account, in place of the mail: by SMS, say. A coroutine function
runs in the event loop, a plain one in a thread.
"""
Listener: TypeAlias = Callable[[AuditEvent], object]
"""Called with an audit event after its commit: a coroutine function in the event loop, a plain one in a thread."""

LISTENING_THREADS = 4
"""Threads for plain listeners. Sign-ins do not use them, and so never wait for a slow listener."""

_log = logging.getLogger("dutchdoor")


class Hooks(Struct, kw_only=True):
    """The hooks of one authority."""

    claims: ClaimsHook | None = None
    breached: BreachedHook | None = None
    deliver_code: CodeHook | None = None
    current: Callable[[Account], Awaitable[Account | None]] | None = None
    """Returns an account as the application's own users say it is now; None if the user is gone, and what the account
    had is revoked. Called when a session is read from the store.
    """

    networks: NetworkReader | None = None
    """Finds what kind of network an address belongs to."""
    suspicious: Callable[[Suspected], object] | None = None
    """Called with a `Suspected` before something is done about it; returns another reaction,
    or None.
    """

    listeners: dict[EventName, list[Listener]] = {}
    """What is called for which audit event."""
    calling: Calling = field(default_factory=lambda: Calling(LISTENING_THREADS))

    refresh_theft: list[Callable[[Account, Client], Awaitable[None]]] = []
    """A refresh token was used by two clients, and its session was revoked. Gets the account and the client that sent
    it.
    """
    suspected: list[Callable[[str, Client, Reaction, str], Awaitable[None]]] = []
    """A session was used in a suspicious way. Gets the subject, the client that used it, what was done, and the id of
    the session if its browser may still answer for it, else ""."""
    refreshed: list[Callable[[bool], None]] = []
    """A refresh token was exchanged, or refused. Gets which of the two: True if it was exchanged."""
    fence_waited: list[Callable[[str, float], None]] = []
    """A call waited for a fence. Gets the state of the fence and the seconds it took."""
    unavailable: list[Callable[[str], None]] = []
    """A request was refused with 503. Gets the name of what was out of reach."""
    unproved: list[Callable[[str], None]] = []
    """A request of a session that is, or has to be, bound to its browser was refused. Gets why, in a word."""
    mailed: list[Callable[[bool], None]] = []
    """The transport accepted a letter, or failed to send it. Gets which of the two."""
    logged: list[Callable[[], None]] = []
    """This process has committed an audit event."""
    delivered: list[Callable[[bool], None]] = []
    """A message was sent to the endpoint of a webhook. Gets whether the endpoint took it."""
    tidied: list[Callable[[int, float], None]] = []
    """Expired records were deleted. Gets their number and the seconds it took."""

    def listen(self, names: Sequence[EventName], listener: Listener) -> None:
        """Call a listener for audit events of these names from now on, once each. `check_events` has checked them."""
        for name in names:
            known = self.listeners.setdefault(name, [])
            if listener not in known:
                known.append(listener)


async def announce(listeners: Sequence[Callable[P, Awaitable[None]]], *args: P.args, **named: P.kwargs) -> None:
    """Call listeners that are coroutines."""
    for listener in listeners:
        try:
            await listener(*args, **named)
        except Exception:  # noqa: BLE001 - the verb has done its work, and its caller gets the answer
            _log.exception("a hook failed")


def notify(listeners: Sequence[Callable[P, None]], *args: P.args, **named: P.kwargs) -> None:
    """Call listeners that are plain functions."""
    for listener in listeners:
        try:
            listener(*args, **named)
        except Exception:  # noqa: BLE001 - the verb has done its work, and its caller gets the answer
            _log.exception("a hook failed")
