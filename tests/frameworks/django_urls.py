"""The views of `django_site`."""

from __future__ import annotations

import threading
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model, login, logout, views
from django.contrib.auth.decorators import login_required, permission_required
from django.http import JsonResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.response import Response
from rest_framework.views import APIView

from dutchdoor.django import auth
from dutchdoor.django.rest_framework import require

meeting = threading.Barrier(2)


@login_required
def hello(request: Any) -> JsonResponse:
    return JsonResponse({"hello": request.user.get_username(), "subject": request.principal.subject})


async def ahello(request: Any) -> JsonResponse:
    user = await request.auser()
    return JsonResponse({"hello": user.get_username()})


@permission_required("auth.add_user", raise_exception=True)
def permitted(request: Any) -> JsonResponse:
    messages.info(request, "noted")
    return JsonResponse({"permitted": True})


@auth.require(role="editors")
def editors(request: Any) -> JsonResponse:
    return JsonResponse({"edits": True})


@auth.require(role="editors")
async def aeditors(request: Any) -> JsonResponse:
    return JsonResponse({"edits": True})


@method_decorator(auth.require(fresh="5m"), name="dispatch")
class Fresh(View):
    def get(self, request: Any) -> JsonResponse:
        return JsonResponse({"fresh": True})


@auth.require(factors=2)
def factors(request: Any) -> JsonResponse:
    return JsonResponse({"factors": request.principal.amr})


def code(request: Any) -> JsonResponse:
    """Where a project checks a code of a second factor."""
    auth.proved(request, "otp")
    return JsonResponse({})


def elsewhere(request: Any) -> JsonResponse:
    """A log-in that another provider has proved."""
    user = get_user_model().objects.get(pk=request.GET["id"])
    login(request, user, backend="django.contrib.auth.backends.RemoteUserBackend")
    return JsonResponse({})


@auth.require()
def order(request: Any) -> JsonResponse:
    return JsonResponse({"by": request.principal.subject})


def keep(request: Any) -> JsonResponse:
    """Put what is in the query into the session, and show all of it."""
    if "first" in request.GET:
        request.session.get("")  # read before the other request writes
        meeting.wait(60)
    for key, value in request.GET.items():
        request.session[key] = value
    return JsonResponse({key: value for key, value in request.session.items() if not key.startswith("_")})


def sign_out(request: Any) -> JsonResponse:
    before = bool(request.principal)
    logout(request)
    return JsonResponse({"user": request.user.get_username(), "principals": [before, bool(request.principal)]})


class Whole(APIView):
    def get(self, request: Any) -> Response:
        return Response({"user": request.user.get_username(), "by": getattr(request.auth, "method", None)})

    post = get


class Scoped(Whole):
    permission_classes = [require(role="editors")]  # noqa: RUF012 - as people write it


urlpatterns = [
    path("", include("dutchdoor.django.urls")),
    path("hello", hello),
    path("ahello", ahello),
    path("permitted", permitted),
    path("editors", editors),
    path("aeditors", aeditors),
    path("fresh", Fresh.as_view()),
    path("order", order),
    path("factors", factors),
    path("code", code),
    path("elsewhere", elsewhere),
    path("exempt", csrf_exempt(order)),
    path("keep", keep),
    path("sign-out", sign_out),
    path("api/whole", Whole.as_view()),
    path("api/scoped", Scoped.as_view()),
    path("sign-in/", views.LoginView.as_view(template_name="admin/login.html")),
    path("password/", views.PasswordChangeView.as_view(success_url="/hello")),
    path("admin/", admin.site.urls),
]
