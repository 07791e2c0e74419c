"""Which of Django's users sends a request, and what its row says about the account."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from typing import Any, Final
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib import auth as django_auth
from django.core.exceptions import ValidationError

from dutchdoor.django.visit import Visit, visit_of
from dutchdoor.errors import NotAuthenticated
from dutchdoor.guard.gates import Known
from dutchdoor.guard.threads import SyncGate
from dutchdoor.guard.user import User

__all__ = ["TokenUser", "auser_of", "find", "name_of", "roles_of", "stamps_of", "subject_of", "user_of"]

_REMEMBERED: Final = 10_000
_ROLE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_ROLES_AT_MOST = 32

_agreed: WeakKeyDictionary[SyncGate, dict[str, str]] = WeakKeyDictionary()
"""The stamps that accounts are known to have, by subject."""


class TokenUser:
    """The user behind a token in a service that only verifies: what the token says. There is no row for it."""

    is_authenticated = is_active = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, user: User) -> None:
        self.account = user
        self.pk = self.id = self.username = user.id
        self.email = user.email

    def __str__(self) -> str:
        return self.username

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenUser) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def get_username(self) -> str:
        return self.username

    def has_perm(self, _perm: str, _obj: object = None) -> bool:
        """Return False: permissions are in Django's tables. `auth.require` asks for roles."""
        return False

    has_perms = has_module_perms = has_perm


# --- who sends a request ---------------------------------------------------------------------------------------------


def user_of(request: Any) -> Any:
    """Return Django's user of a request, or an `AnonymousUser`. Raises `Unavailable`."""
    visit = visit_of(request)
    if visit.user is None:
        known = visit.valid()
        visit.user = _anonymous(request, visit) if known is None else _user(visit, known) or _anonymous(request, visit)
    return visit.user


async def auser_of(request: Any) -> Any:
    """Do what `user_of` does, without blocking the event loop."""
    visit = visit_of(request)
    if visit.user is None:
        with suppress(NotAuthenticated):
            await visit.aknown()
    return visit.user or await sync_to_async(user_of)(request)


def _anonymous(request: Any, visit: Visit) -> Any:
    if not apps.is_installed("django.contrib.auth"):
        return _NoUser()
    if visit.gate.gate.application is None and hasattr(request, "session"):
        return django_auth.get_user(request)  # the sessions of a service that only verifies are Django's own
    return import_module("django.contrib.auth.models").AnonymousUser()


class _NoUser:
    is_authenticated = is_active = is_staff = is_superuser = False
    is_anonymous = True
    pk = id = email = None
    username = ""


def _user(visit: Visit, known: Known) -> Any:
    """Return the user that a proof names, or None. Ends what the user has if it is inactive, gone or changed."""
    if visit.gate.gate.application is None:
        return TokenUser(User.named(known.principal))
    # Imported now: a service that only verifies does not have the engine's packages.
    accounts = import_module("dutchdoor.django.accounts")
    subject = known.principal.subject
    user = find(subject)
    if user is None:
        visit.run(accounts.end_of(visit.gate, subject, "account_disabled"))
        return None
    stamps = stamps_of(user)
    agreed = _agreed.setdefault(visit.gate, {})
    if agreed.get(subject) != stamps[0]:
        if not visit.run(accounts.agree(visit.gate, subject, stamps)):
            return None
        if len(agreed) >= _REMEMBERED:
            agreed.clear()
        agreed[subject] = stamps[0]
    visit.stamp = stamps[0]
    return user


def find(subject: str) -> Any:
    """Return the user that a subject names; None if it is gone, or may not sign in."""
    model = django_auth.get_user_model()
    try:
        key = model._meta.pk.to_python(subject)  # noqa: SLF001 - Django's public way to its fields
    except ValidationError:
        return None
    for backend in django_auth.get_backends():
        user = backend.get_user(key) if hasattr(backend, "get_user") else None
        if user is not None:
            return user
    return None


def subject_of(user: Any) -> str:
    """Return the name of a user's account."""
    return str(user._meta.pk.value_to_string(user))  # noqa: SLF001


def name_of(user: Any) -> str:
    """Return what pages, passkeys and authenticator apps call a user: what they sign in with."""
    return str(user.get_username())


def stamps_of(user: Any) -> tuple[str, ...]:
    """Return the stamp of a user, and those that the project's earlier secret keys (`SECRET_KEY_FALLBACKS`) gave it."""
    if not hasattr(user, "get_session_auth_hash"):
        return ("",)
    return (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())


def roles_of(user: Any) -> tuple[str, ...]:
    """Return the roles of a user: the names of its groups that are plain words, and `admin` for a superuser."""
    groups = user.groups.values_list("name", flat=True) if hasattr(user, "groups") else ()
    names = {name for name in groups if _ROLE.fullmatch(name)}
    if getattr(user, "is_superuser", False):
        names.add("admin")
    return tuple(sorted(names)[:_ROLES_AT_MOST])
