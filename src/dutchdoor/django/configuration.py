"""The settings of a Django project, `DUTCHDOOR`, and the gate that they describe: one for each process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.shortcuts import resolve_url

from dutchdoor.errors import Misconfigured
from dutchdoor.guard.attached import engine_of, make_gate
from dutchdoor.guard.gates import Gate
from dutchdoor.guard.threads import SyncGate
from dutchdoor.model.audit_entry import AuditEvent, EventName
from dutchdoor.model.choices import nearest
from dutchdoor.web.sign_in_page import LOGIN_PATH

__all__ = ["SETTING", "forget", "gate", "is_embedded", "listen", "names_issuer", "signs_in_here"]

SETTING = "DUTCHDOOR"

_OWN = ("audience", "database", "issuer")
"""What this file reads itself. All else is an argument of `dutchdoor.Auth`, or of `Verifier` beside an issuer."""

_listeners: list[tuple[tuple[EventName, ...], Callable[[AuditEvent], object]]] = []
_lock = threading.Lock()
_made: SyncGate | None = None


def gate() -> SyncGate:
    """Return the gate of this process. Raises `Misconfigured` for a setting that is unknown or wrong."""
    global _made  # noqa: PLW0603 - Django's settings are of the process, too
    if _made is None:
        with _lock:
            if _made is None:
                _made = SyncGate(_make)
    return _made


def is_embedded() -> bool:
    """Return whether the engine runs in this process, and not at an issuer elsewhere."""
    return gate().gate.application is not None


def signs_in_here() -> bool:
    """Return whether the project's page to sign in (`LOGIN_URL`) is that of the engine, which asks for a second factor.
    Django's own asks for a password alone.
    """
    held = gate().gate
    return (
        held.application is not None and resolve_url(settings.LOGIN_URL) == engine_of(held).site.base_path + LOGIN_PATH
    )


def names_issuer() -> bool:
    """Return whether the settings name an issuer, so that no log-in and no user here concerns the engine."""
    options = getattr(settings, SETTING, {})
    return isinstance(options, Mapping) and options.get("issuer") is not None


def listen(names: tuple[EventName, ...], listener: Callable[[AuditEvent], object]) -> None:
    """Call a function for audit events of these names: of this engine, and of one that a forked child makes."""
    _listeners.append((names, listener))
    if _made is not None:
        engine_of(_made.gate).on(*names)(listener)


def _make() -> Gate:
    made = _described()
    for names, listener in _listeners:
        engine_of(made).on(*names)(listener)
    return made


def _described() -> Gate:
    options = getattr(settings, SETTING, {})
    if not isinstance(options, Mapping):
        raise Misconfigured(f'{SETTING} is a dict, such as {{"database": "sqlite:///sessions.db"}}.')
    rest: dict[str, Any] = dict(options)
    for name in rest:
        if nearest(name, _OWN).startswith("Did") and name not in _OWN:
            raise Misconfigured(f"There is no setting {name!r}. {nearest(name, _OWN)}")
    if rest.get("issuer") is None:
        rest.setdefault("sign_in_page", "")  # Django names one itself: LOGIN_URL
    database, issuer, audience = rest.pop("database", None), rest.pop("issuer", None), rest.pop("audience", None)
    is_made = not isinstance(database, str | None) and not hasattr(database, "commit")  # an Auth, and no store
    if issuer is not None or is_made or "users" in rest or not apps.is_installed("django.contrib.auth"):
        return make_gate(database, issuer, audience, rest)
    # Imported now: a service that only verifies does not have the engine's packages.
    directory = import_module("dutchdoor.django.directory")
    made = make_gate(database, issuer, audience, {**rest, "users": directory.USERS})
    engine_of(made).call_inside(directory.connections)
    return made


def forget(*, setting: str, **_: object) -> None:
    """Make another gate after a test has changed the setting."""
    global _made  # noqa: PLW0603
    if setting == SETTING and _made is not None:
        _made.close()
        _made = None
