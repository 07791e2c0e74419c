"""Django's users for the sign-in of the API, `/auth/login`: by each mode and transport, with its limits on guesses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import auth as django_auth
from django.db import close_old_connections

from dutchdoor.django.accounts import agree
from dutchdoor.django.configuration import gate
from dutchdoor.django.users import find, name_of, roles_of, stamps_of, subject_of
from dutchdoor.guard.attached import engine_of
from dutchdoor.services.calling import is_own_thread
from dutchdoor.services.external_users import ExternalUsers

__all__ = ["USERS", "connections"]

_ROLES = "_dutchdoor_roles"


@contextmanager
def connections() -> Iterator[None]:
    """Do for a thread of the engine what Django does for each request: drop connections that are broken or too old. The
    thread of a request keeps its own.
    """
    is_own = is_own_thread()
    if is_own:
        close_old_connections()
    try:
        yield
    finally:
        if is_own:
            close_old_connections()


def _authenticate(login: str, password: str) -> str | None:
    user = django_auth.authenticate(None, username=login, password=password)
    if user is None:
        return None
    subject = subject_of(user)
    gate().run(_noted(subject, stamps_of(user)))
    return subject


async def _noted(subject: str, stamps: tuple[str, ...]) -> None:
    """Remember the password that was right: another one ends what this sign-in starts."""
    held = gate()
    await engine_of(held.gate).authority.provide(subject)
    await agree(held, subject, stamps)


def _load(subject: str) -> Any:
    user = find(subject)
    if user is not None:
        setattr(user, _ROLES, roles_of(user))
    return user


def _roles(user: Any) -> tuple[str, ...]:
    roles: tuple[str, ...] = getattr(user, _ROLES)
    return roles


USERS: ExternalUsers[Any] = ExternalUsers(authenticate=_authenticate, load=_load, roles=_roles, name=name_of)
"""`django.contrib.auth`, as `dutchdoor.Auth(users=...)` takes it."""
