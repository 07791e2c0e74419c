"""django-allauth's headless API, asked in its own process: Django's session by cookie in the `browser` client, its JWT
strategy by bearer token in the `app` client. SQLITE_PATH names the file.
"""

from __future__ import annotations

import sys
from types import ModuleType

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django_settings import over_sqlite

MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
settings.configure(
    **over_sqlite(),
    ROOT_URLCONF="urls",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "allauth",
        "allauth.account",
        "allauth.headless",
        "rest_framework",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        *MIDDLEWARE,
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    AUTHENTICATION_BACKENDS=["allauth.account.auth_backends.AuthenticationBackend"],
    ACCOUNT_EMAIL_VERIFICATION="none",
    ACCOUNT_RATE_LIMITS=False,
    HEADLESS_TOKEN_STRATEGY="allauth.headless.tokens.strategies.jwt.JWTTokenStrategy",
    HEADLESS_JWT_ACCESS_TOKEN_EXPIRES_IN=3600,
    HEADLESS_JWT_PRIVATE_KEY=rsa.generate_private_key(65537, 2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode(),
)
django.setup()

# These can be imported only once the settings are there.
from allauth.headless.account.views import LoginView  # noqa: E402
from allauth.headless.constants import Client  # noqa: E402
from allauth.headless.contrib.rest_framework.authentication import JWTTokenAuthentication  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.test.utils import override_settings  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from in_process import SignIn, serve_wsgi  # noqa: E402
from rest_framework.decorators import (  # noqa: E402
    api_view,
    authentication_classes,
    permission_classes,
)
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402


def me(request):
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse({"user_id": request.user.pk, "ok": True})


@api_view(["GET"])
@authentication_classes([JWTTokenAuthentication])
@permission_classes([IsAuthenticated])
def token_me(request):
    return Response({"user_id": request.user.pk, "ok": True})


@api_view(["GET"])
@authentication_classes([])
def anyone(request):
    return Response({"user_id": "0", "ok": True})


@csrf_exempt
def login(request):
    """Sign in by the browser client's view, without the CSRF token that a page would carry."""
    return LoginView.as_api_view(client=Client.BROWSER)(request)


urls = sys.modules["urls"] = ModuleType("urls")
urls.urlpatterns = [
    path("", include("allauth.headless.urls")),
    path("login", login),
    path("me", me),
    path("token-me", token_me),
    path("bare", lambda _: JsonResponse({"user_id": "0", "ok": True})),
    path("bare-rest", anyone),
]
call_command("migrate", verbosity=0)
User.objects.create_user("bench", "bench@example.com", "correct horse")
app = WSGIHandler()
with override_settings(MIDDLEWARE=MIDDLEWARE):
    bare = WSGIHandler()

ACCOUNT = {"username": "bench", "password": "correct horse"}
serve_wsgi(
    bare,
    app,
    {
        "cookie": SignIn("/login", ACCOUNT, lambda answer: answer.cookie(), "/me", "/bare"),
        "bearer": SignIn(
            "/app/v1/auth/login",
            ACCOUNT,
            lambda answer: {"authorization": f"Bearer {answer.json()['meta']['access_token']}"},
            "/token-me",
            "/bare-rest",
        ),
    },
)
