"""The routes that the suite asks for, in Django over WSGI: settings, URLs and views in one file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.contrib.auth import get_user_model, login, logout
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from settings import SETTINGS

from dutchdoor.django import auth

VERIFIES = "issuer" in SETTINGS
settings.configure(
    SECRET_KEY="only for tests, and long enough for Django to be content",
    ALLOWED_HOSTS=["localhost"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["dutchdoor.django"]
    if VERIFIES
    else ["django.contrib.auth", "django.contrib.contenttypes", "dutchdoor.django"],
    MIDDLEWARE=[
        *([] if VERIFIES else ["django.contrib.sessions.middleware.SessionMiddleware"]),
        "django.middleware.csrf.CsrfViewMiddleware",
        *([] if VERIFIES else ["django.contrib.auth.middleware.AuthenticationMiddleware"]),
        "dutchdoor.django.middleware.DutchdoorMiddleware",
    ],
    SESSION_ENGINE="dutchdoor.django.sessions",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path("django.sqlite3").absolute(),
            "OPTIONS": {"timeout": 30},
        }
    },
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGIN_URL="/login",
    USE_TZ=True,
    DUTCHDOOR={name: value for name, value in SETTINGS.items() if name != "hasher"},  # passwords are Django's
)
django.setup()


def index(request: Any) -> JsonResponse:
    return JsonResponse({"index": "the application's"})


def who(request: Any) -> JsonResponse:
    return JsonResponse({"who": getattr(request.user, "email", None) or None})


@auth.require()
def hello(request: Any) -> JsonResponse:
    user, principal = request.user, request.principal
    return JsonResponse(
        {"email": user.email, "id": str(user.pk), "subject": principal.subject, "method": principal.method}
    )


@auth.require()
def order(request: Any) -> JsonResponse:
    return JsonResponse({"by": request.principal.subject, "what": request.POST.get("what")})


@auth.require(role="admin")
def admin(request: Any) -> JsonResponse:
    return JsonResponse({"admin": True})


@auth.require(scope="orders:write")
def scoped(request: Any) -> JsonResponse:
    return JsonResponse({"scoped": True})


@auth.require(fresh="1s")
def fresh(request: Any) -> JsonResponse:
    return JsonResponse({"fresh": True})


@auth.require(factors=2)
def factors(request: Any) -> JsonResponse:
    return JsonResponse({"factors": True})


def form(request: Any) -> HttpResponse:
    return HttpResponse(f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}">')


@auth.require()
def stream(request: Any) -> StreamingHttpResponse:
    def numbers() -> Iterator[str]:
        for number in range(10_000):
            yield f"{number}\n"
            time.sleep(0.01)

    return StreamingHttpResponse(numbers(), content_type="text/plain")


def keep(request: Any) -> JsonResponse:
    """Put what is in the query into the session, and show all of it."""
    held = request.session
    dict(held.items())  # read before the other request writes
    if "wait" in request.GET:
        time.sleep(float(request.GET["wait"]))
    for key, value in request.GET.items():
        if key != "wait":
            held[key] = value
    return JsonResponse({key: value for key, value in held.items() if not key.startswith("_")})


def sign_in(request: Any) -> JsonResponse:
    login(request, get_user_model().objects.get(email=request.GET["email"]))
    return JsonResponse({})


def sign_out(request: Any) -> JsonResponse:
    logout(request)
    return JsonResponse({})


@csrf_exempt
def register(request: Any) -> JsonResponse:
    """What an application does itself, whose users are Django's."""
    who = json.loads(request.body)
    get_user_model().objects.create_user(username=who["email"], email=who["email"], password=who["password"])
    return JsonResponse({}, status=201)


def promote(request: Any) -> JsonResponse:
    user = get_user_model().objects.get(pk=request.GET["id"])
    user.groups.create(name=request.GET["role"])
    return JsonResponse({})


base = SETTINGS.get("base_path", "").strip("/")
own = (
    []
    if VERIFIES
    else [path(f"{base}/auth/register".lstrip("/"), register), path("", include("dutchdoor.django.urls"))]
)
urlpatterns = [
    *own,
    path("", index),
    path("who", who),
    path("hello", hello),
    path("order", order),
    path("admin", admin),
    path("scoped", scoped),
    path("fresh", fresh),
    path("factors", factors),
    path("form", form),
    path("stream", stream),
    path("keep", keep),
    path("sign-in", sign_in),
    path("sign-out", sign_out),
    path("promote", promote),
]

# For URLs and views, this is the module by its name.
sys.modules.setdefault("django_app", sys.modules[__name__])
if not VERIFIES:
    call_command("migrate", verbosity=0)
app = get_wsgi_application()
