"""A project with django-allauth beside dutchdoor: signs up, out and in through allauth's views, and says what it saw.

A program of its own, because Django's settings are those of a process.
"""

from __future__ import annotations

import json
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.http import JsonResponse
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import include, path
from tests.frameworks.django_settings import SETTINGS

from dutchdoor.django import auth

AT = SETTINGS["MIDDLEWARE"].index("dutchdoor.django.middleware.DutchdoorMiddleware") + 1
settings.configure(
    **{
        **SETTINGS,
        "ROOT_URLCONF": __name__,
        "INSTALLED_APPS": ["allauth", "allauth.account", *SETTINGS["INSTALLED_APPS"]],
        "MIDDLEWARE": [*SETTINGS["MIDDLEWARE"], "allauth.account.middleware.AccountMiddleware"],
        "AUTHENTICATION_BACKENDS": [
            "django.contrib.auth.backends.ModelBackend",
            "allauth.account.auth_backends.AuthenticationBackend",
        ],
        "ACCOUNT_EMAIL_VERIFICATION": "none",
        "EMAIL_BACKEND": "django.core.mail.backends.locmem.EmailBackend",
        "DATABASES": {
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:allauth?mode=memory&cache=shared"}
        },
    }
)
django.setup()

PASSWORD = "a door in two halves"


def who(request: Any) -> JsonResponse:
    return JsonResponse({"who": request.user.get_username(), "amr": list(getattr(request.principal, "amr", ()))})


urlpatterns = [
    path("", include("dutchdoor.django.urls")),
    path("accounts/", include("allauth.urls")),
    path("hello", who),
]


def main() -> dict[str, Any]:
    setup_test_environment()
    call_command("check")
    call_command("migrate", verbosity=0)
    seen: dict[str, Any] = {}
    client = Client()
    form = {"username": "ada", "email": "ada@example.com", "password1": PASSWORD, "password2": PASSWORD}
    seen["signed up"] = client.post("/accounts/signup/", form).status_code
    seen["who"] = client.get("/hello").json()
    client.post("/accounts/logout/")
    seen["after"] = client.get("/hello").json()["who"]
    seen["signed in"] = client.post("/accounts/login/", {"login": "ada", "password": PASSWORD}).status_code
    listed = client.get("/auth/sessions").json()["sessions"]
    seen["sessions"] = [each["current"] for each in listed]
    new = "two halves of a door"
    change = {"oldpassword": PASSWORD, "password1": new, "password2": new}
    other = Client()
    other.post("/accounts/login/", {"login": "ada", "password": PASSWORD})
    seen["changed"] = client.post("/accounts/password/change/", change).status_code
    seen["still in"], seen["other"] = client.get("/hello").json()["who"], other.get("/hello").json()["who"]
    auth.close()
    return seen


if __name__ == "__main__":
    print(json.dumps(main()))
