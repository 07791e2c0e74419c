"""Django's sessions, and simplejwt with rotation and blacklist, as their documentation sets them up.

`python django_app.py` makes the tables and the user in the SQLite file that SQLITE_PATH names; gunicorn then serves
`django_app:application`. HASH=none puts SHA-256 in place of the password hash, HASH=argon2id is Argon2id as everywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
from datetime import timedelta

import django
from django.conf import settings
from django_settings import over_sqlite

# Settings name this module by its import name, also when it runs as a program.
sys.modules.setdefault("django_app", sys.modules[__name__])

settings.configure(
    **over_sqlite(),
    ROOT_URLCONF="django_app",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "rest_framework_simplejwt",
        "rest_framework_simplejwt.token_blacklist",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    PASSWORD_HASHERS=["django_app.NoHash" if os.environ["HASH"] == "none" else "django_app.Argon2id"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": [],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,
    },
    SIMPLE_JWT={
        "ROTATE_REFRESH_TOKENS": True,
        "BLACKLIST_AFTER_ROTATION": True,
        "ACCESS_TOKEN_LIFETIME": timedelta(hours=1),
    },
)
django.setup()

# These can be imported only once the settings are there.
from django.contrib.auth import authenticate  # noqa: E402
from django.contrib.auth import login as start_session  # noqa: E402
from django.contrib.auth.hashers import Argon2PasswordHasher, BasePasswordHasher  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from rest_framework.decorators import api_view, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView  # noqa: E402


class Argon2id(Argon2PasswordHasher):
    """Argon2id at the cost that every contender has: 19 MiB, two passes, one lane."""

    time_cost = 2
    memory_cost = 19456
    parallelism = 1


class NoHash(BasePasswordHasher):
    """One SHA-256, so that a log-in costs what the framework and the storage cost."""

    algorithm = "none"

    def salt(self) -> str:
        return ""

    def encode(self, password: str, salt: str = "") -> str:
        return "none$$" + hashlib.sha256(password.encode()).hexdigest()

    def verify(self, password: str, encoded: str) -> bool:
        return hmac.compare_digest(self.encode(password), encoded)

    def decode(self, encoded: str) -> dict[str, str]:
        return {"algorithm": "none", "salt": "", "hash": encoded}

    def must_update(self, encoded: str) -> bool:
        return False


@csrf_exempt
def login(request: HttpRequest) -> HttpResponse:
    sent = json.loads(request.body)
    user = authenticate(request, username=sent["username"], password=sent["password"])
    if user is None:
        return HttpResponse(status=401)
    start_session(request, user)
    return JsonResponse({"ok": True})


def me(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse({"user_id": request.user.pk, "ok": True})


@api_view(["GET"])
@permission_classes([IsAuthenticated])
def token_me(request) -> Response:
    return Response({"user_id": request.user.pk, "ok": True})


urlpatterns = [
    path("login", login),
    path("me", me),
    path("jwt/login", TokenObtainPairView.as_view()),
    path("jwt/refresh", TokenRefreshView.as_view()),
    path("jwt/me", token_me),
]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    User.objects.create_user("bench", "bench@example.com", "correct horse")
else:
    application = get_wsgi_application()
