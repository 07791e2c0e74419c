"""Hooks: what an application or a higher layer adds to the verbs, each declared here by its name and type.

The first two return an answer. The others are lists of listeners, called after the event that their name says: add
yours to the list. A listener's exception is logged and undoes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ParamSpec, TypeAlias

from msgspec import Struct

from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client

__all__ = ["BreachedHook", "ClaimsHook", "Hooks", "announce", "notify"]

P = ParamSpec("P")

ClaimsHook: TypeAlias = Callable[[Account, str | None], Mapping[str, object]]
"""Returns the claims that an operator adds to an access token of an account and a session, within the size budget and
never under a refused name.
"""
BreachedHook: TypeAlias = Callable[[str], bool]
"""Returns whether a password is known from a leak."""

_log = logging.getLogger("dutchdoor")


class Hooks(Struct, kw_only=True):
    """The hooks of one authority."""

    claims: ClaimsHook | None = None
    breached: BreachedHook | None = None

    refresh_theft: list[Callable[[Account, Client], Awaitable[None]]] = []
    """A refresh token was used by two clients, and its session was revoked. Gets the account and the client that sent
    it.
    """
    fence_waited: list[Callable[[str, float], None]] = []
    """A call waited for a fence. Gets the state of the fence and the seconds it took."""
    unavailable: list[Callable[[str], None]] = []
    """A request was refused with 503. Gets the name of what was out of reach."""
    mailed: list[Callable[[bool], None]] = []
    """The transport accepted a letter, or failed to send it. Gets which of the two."""
    tidied: list[Callable[[int, float], None]] = []
    """Expired records were deleted. Gets their number and the seconds it took."""


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
