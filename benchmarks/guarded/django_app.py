"""dutchdoor in Django: `user` reads `request.user`, which is Django's own, from its table; `principal` asks for a
signed-in caller and reads no row; `rest` is REST framework's view with a token.
"""

from __future__ import annotations

import sys
from types import ModuleType

import django
from django.conf import settings

from benchmarks.guarded.ours import ACCOUNT, WAYS
from benchmarks.guarded.ours import settings as of_ours
from benchmarks.peers.django_settings import over_sqlite
from benchmarks.peers.in_process import serve_wsgi

WITHOUT = ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
settings.configure(
    **over_sqlite(".users"),
    ROOT_URLCONF="urls",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "dutchdoor.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        *WITHOUT,
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "dutchdoor.django.middleware.DutchdoorMiddleware",
    ],
    REST_FRAMEWORK={
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "DEFAULT_PERMISSION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
    },
    DUTCHDOOR=of_ours(users_elsewhere=True),
)
django.setup()

# These can be imported only once the settings are there.
from django.contrib.auth.models import User  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.test.utils import override_settings  # noqa: E402
from django.urls import include, path  # noqa: E402
from rest_framework.decorators import api_view, authentication_classes, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402

from dutchdoor.django import auth  # noqa: E402
from dutchdoor.django.rest_framework import TokenAuthentication  # noqa: E402


def user(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse({"user_id": request.user.pk, "ok": True})


@auth.require()
def principal(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"user_id": request.principal.subject, "ok": True})


@api_view(["GET"])
@authentication_classes([TokenAuthentication])
@permission_classes([IsAuthenticated])
def rest(request: HttpRequest) -> Response:
    return Response({"user_id": request.user.pk, "ok": True})


@api_view(["GET"])
@authentication_classes([])
def anyone(_: HttpRequest) -> Response:
    return Response({"user_id": "0", "ok": True})


urls = ModuleType("urls")
urls.__dict__["urlpatterns"] = [
    # Before ours: what it takes to look for the paths of the API is a part of what the adapter costs.
    path("bare", lambda _: JsonResponse({"user_id": "0", "ok": True})),
    path("bare-rest", anyone),
    path("", include("dutchdoor.django.urls")),
    path("user", user),
    path("principal", principal),
    path("rest", rest),
]
sys.modules["urls"] = urls


def main(what: str) -> None:
    call_command("migrate", verbosity=0)
    User.objects.create_user(ACCOUNT["email"], ACCOUNT["email"], ACCOUNT["password"])
    with override_settings(MIDDLEWARE=WITHOUT):
        bare = WSGIHandler()
    plain = "/bare-rest" if what == "rest" else "/bare"
    ways = {name: way._replace(me=f"/{what}", bare=plain) for name, way in WAYS.items()}
    if what == "rest":
        del ways["cookie"]
    serve_wsgi(bare, WSGIHandler(), ways)


if __name__ == "__main__":
    main(sys.argv[1])
