"""The application that `INSTALLED_APPS` names: it listens to Django's signals, and checks the project."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig, apps
from django.contrib import auth
from django.core import checks
from django.core.signals import setting_changed
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from dutchdoor.django.checks import check_project
from dutchdoor.django.configuration import forget, names_issuer

__all__ = ["DutchdoorConfig"]


class DutchdoorConfig(AppConfig):
    """`INSTALLED_APPS += ["dutchdoor.django"]`."""

    name = "dutchdoor.django"
    label = "dutchdoor"
    verbose_name = "dutchdoor"

    def ready(self) -> None:
        """Connect the signals and the checks."""
        checks.register(check_project, checks.Tags.security)
        setting_changed.connect(forget, dispatch_uid="dutchdoor")
        if apps.is_installed("django.contrib.auth") and not names_issuer():
            _listen()


def _listen() -> None:
    """Listen to log-ins and to changes of users."""
    # Imported now: they need Django's users and the engine, which a service that only verifies does not have.
    signals, logins = import_module("django.contrib.auth.signals"), import_module("dutchdoor.django.logins")
    user = auth.get_user_model()
    signals.user_logged_in.connect(logins.logged_in, dispatch_uid="dutchdoor")
    signals.user_logged_out.connect(logins.logged_out, dispatch_uid="dutchdoor")
    post_save.connect(logins.changed, sender=user, dispatch_uid="dutchdoor")
    post_delete.connect(logins.removed, sender=user, dispatch_uid="dutchdoor")
    if hasattr(user, "groups"):
        group = user.groups.rel.model
        m2m_changed.connect(logins.groups_changed, sender=user.groups.through, dispatch_uid="dutchdoor")
        post_save.connect(logins.group_changed, sender=group, dispatch_uid="dutchdoor group")
        pre_delete.connect(logins.group_changed, sender=group, dispatch_uid="dutchdoor group")
