"""Users of a Django project, for the fixtures: the users are Django's own, and roles are their groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from dutchdoor.django.configuration import gate
from dutchdoor.django.users import subject_of
from dutchdoor.guard.threads import SyncGate

__all__ = ["gate_of_project", "made"]

ADMIN = "admin"
"""The role that a superuser has, whatever the groups."""


def gate_of_project() -> SyncGate:
    """Return the gate of the project whose settings this process has. Raises `Misconfigured`."""
    return gate()


def made(login: str, roles: Iterable[str] | None, name: str, password: str | None) -> str:
    """Return the subject of the user with a login, and create the user if there is none. Calls Django's database: the
    test needs access to it.
    """
    model: Any = get_user_model()
    known: dict[str, str] = {model.USERNAME_FIELD: login}
    user = model._default_manager.filter(**known).first()  # noqa: SLF001 - Django documents it
    if user is None:
        field = model.get_email_field_name()
        if "@" in login and field != model.USERNAME_FIELD:
            known[field] = login
        user = model(**known)
        if name and hasattr(user, "first_name"):
            user.first_name = name
        if password is None:
            user.set_unusable_password()
        else:
            user.set_password(password)
        user.save()
    if roles is not None:
        wanted = set(roles)
        if user.is_superuser != (ADMIN in wanted):
            user.is_superuser = user.is_staff = ADMIN in wanted
            user.save()
        user.groups.set([Group.objects.get_or_create(name=role)[0] for role in sorted(wanted - {ADMIN})])
    return subject_of(user)
