"""A Django project with sessions and tokens for its users, in one file.

    pip install 'dutchdoor[django]'
    python examples/django_app.py migrate
    python examples/django_app.py createsuperuser --username ada --email ada@example.com
    python examples/django_app.py runserver 5000

Then:

    curl -c jar localhost:5000/auth/login --json '{"email": "ada", "password": "...", "mode": "session"}'
    curl -b jar localhost:5000/hello
"""

from __future__ import annotations

# pyright: basic
import sys
from typing import Any

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import JsonResponse
from django.urls import include, path

from dutchdoor.django import auth

settings.configure(
    DEBUG=True,
    SECRET_KEY="for this example only",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "dutchdoor.django"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "dutchdoor.django.middleware.DutchdoorMiddleware",
    ],
    SESSION_ENGINE="dutchdoor.django.sessions",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "example.sqlite3"}},
    DUTCHDOOR={"database": "sqlite:///example.db", "master_key": "example.keys", "product": "The example"},
)
django.setup()


@auth.require()
def hello(request: Any) -> JsonResponse:
    return JsonResponse({"hello": request.user.get_username()})


@auth.require(role="customers", fresh="5m")
def order(request: Any) -> JsonResponse:
    return JsonResponse({"ordered_by": request.user.get_username()})


urlpatterns = [path("", include("dutchdoor.django.urls")), path("hello", hello), path("orders", order)]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
