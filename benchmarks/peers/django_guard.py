"""Django's sessions, and djangorestframework-simplejwt, asked in their own process: `python django_guard.py db`, or
cached_db, which keeps copies of sessions in the memory of the process.
"""

from __future__ import annotations

import sys

import django_app
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.http import JsonResponse
from django.test.utils import override_settings
from django.urls import path
from in_process import SignIn, bearer, serve_wsgi
from rest_framework.decorators import api_view, authentication_classes
from rest_framework.response import Response


@api_view(["GET"])
@authentication_classes([])
def anyone(request):
    return Response({"user_id": "0", "ok": True})


django_app.urlpatterns += [
    path("bare", lambda _: JsonResponse({"user_id": "0", "ok": True})),
    path("bare-rest", anyone),
]
call_command("migrate", verbosity=0)
django_app.User.objects.create_user("bench", "bench@example.com", "correct horse")

with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{sys.argv[1]}"):
    app = WSGIHandler()
with override_settings(
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
):
    bare = WSGIHandler()

ACCOUNT = {"username": "bench", "password": "correct horse"}
ways = {"cookie": SignIn("/login", ACCOUNT, lambda answer: answer.cookie(), bare="/bare")}
if sys.argv[1] == "db":
    ways["bearer"] = SignIn("/jwt/login", ACCOUNT, bearer("access"), "/jwt/me", "/bare-rest")
serve_wsgi(bare, app, ways)
