"""dutchdoor in Django.

    INSTALLED_APPS += ["dutchdoor.django"]
    MIDDLEWARE += ["dutchdoor.django.middleware.DutchdoorMiddleware"]     # after AuthenticationMiddleware
    urlpatterns = [path("", include("dutchdoor.django.urls")), ...]
    DUTCHDOOR = {"database": "sqlite:///sessions.db"}

    from dutchdoor.django import auth

    @auth.require(role="editors", fresh="5m")
    def publish(request): ...

`django.contrib.auth` keeps the users. `login()` starts a session of dutchdoor, and `logout()` ends it. `request.user`
is Django's user, and `request.principal` says what the proof says.
"""

from __future__ import annotations

from dutchdoor.guard.extra import extra
from dutchdoor.model.audit_entry import AuditEvent
from dutchdoor.model.principal import Principal

with extra("django"):
    import django as _  # noqa: F401 - without it, the other files of this room would not say which package is missing

    from dutchdoor.django.requiring import Attached

__all__ = ["AuditEvent", "Principal", "auth"]

auth = Attached()
"""What `settings.DUTCHDOOR` describes: `auth.require(...)` guards a view, and `auth.engine` is the `dutchdoor.Auth`."""
