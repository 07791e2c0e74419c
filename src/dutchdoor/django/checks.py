"""Checks of a project (`manage.py check`, and each start of `runserver`): each says the fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Advice
from django.urls import Resolver404, resolve

from dutchdoor.django.configuration import SETTING, gate, signs_in_here
from dutchdoor.django.views import engine
from dutchdoor.errors import Misconfigured
from dutchdoor.guard.attached import engine_of

__all__ = ["check_project"]

_OURS = "dutchdoor.django.middleware.DutchdoorMiddleware"
_SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
_USERS = "django.contrib.auth.middleware.AuthenticationMiddleware"
_ENGINE = "dutchdoor.django.sessions"
_JSON = "django.contrib.sessions.serializers.JSONSerializer"
_INCLUDE = 'path("", include("dutchdoor.django.urls"))'


def check_project(**_: Any) -> list[CheckMessage]:
    """Check settings, middleware and URLs."""
    if not hasattr(settings, SETTING):
        hint = f'Add it: {SETTING} = {{"database": "sqlite:///sessions.db"}}.'
        return [Error(f"settings.{SETTING} is missing.", hint=hint, id="dutchdoor.E001")]
    try:
        held = gate()
    except Misconfigured as error:
        return [Error(f"settings.{SETTING}: {error}", id="dutchdoor.E002")]
    except ImportError as error:
        hint = "Install what embedding needs: pip install 'dutchdoor[django]'."
        return [Error(f"settings.{SETTING} embeds the engine: {error}", hint=hint, id="dutchdoor.E003")]
    found = list(_middleware(is_embedded=held.gate.application is not None))
    if held.gate.application is not None:
        found += [*_urls(), *_session_data(), *_sign_in()]
    return found


def _session_data() -> Iterator[CheckMessage]:
    if settings.SESSION_ENGINE == _ENGINE and settings.SESSION_SERIALIZER != _JSON:
        yield Advice(
            f"SESSION_SERIALIZER does nothing with {_ENGINE}, which keeps session data as JSON.",
            hint="Remove it, and keep in request.session what JSON can hold.",
            id="dutchdoor.W010",
        )


def _sign_in() -> Iterator[CheckMessage]:
    demanded = engine_of(gate().gate).authority.policy.second_factor
    if demanded in {"admins", "required"} and not signs_in_here():
        yield Advice(
            f'second_factor="{demanded}" holds at /auth/login alone, and LOGIN_URL is {settings.LOGIN_URL!r}.',
            hint='Set LOGIN_URL = "/auth/login"; or let your page ask for the factor and call '
            'auth.proved(request, "otp"), and guard views with auth.require(factors=2).',
            id="dutchdoor.W011",
        )


def _middleware(*, is_embedded: bool) -> Iterator[CheckMessage]:
    order = list(settings.MIDDLEWARE)
    if _OURS not in order:
        yield Error(
            "The middleware of dutchdoor is missing: no view knows who sends a request.",
            hint=f'Add "{_OURS}" to MIDDLEWARE, right after "{_USERS}".',
            id="dutchdoor.E004",
        )
        return
    if order.count(_OURS) > 1:
        yield Error("MIDDLEWARE names dutchdoor twice.", hint="Remove one of the two.", id="dutchdoor.E005")
    for needed in (_SESSIONS, _USERS):
        if needed not in order and is_embedded:
            yield Error(
                f'MIDDLEWARE lacks "{needed}", which log-in and log-out need.',
                hint=f'Add it before "{_OURS}".',
                id="dutchdoor.E006",
            )
        elif needed in order and order.index(needed) > order.index(_OURS):
            yield Error(
                f'"{needed}" comes after dutchdoor in MIDDLEWARE, and would undo what it found out.',
                hint=f'Move "{_OURS}" right after "{_USERS}".',
                id="dutchdoor.E007",
            )


def _urls() -> Iterator[CheckMessage]:
    paths = [path + ("x" if path.endswith("/") else "") for path in gate().gate.paths]
    lost = [path for path in paths if _view_of(path) is not engine]
    if len(lost) == len(paths):
        yield Error(
            "The paths of the API are missing: there is no /auth/login.",
            hint=f"Add {_INCLUDE} to the top of urlpatterns in {settings.ROOT_URLCONF}, with the empty path.",
            id="dutchdoor.E008",
        )
    elif lost:
        yield Advice(
            f"Other URL patterns come before those of dutchdoor, and answer {', '.join(lost)}.",
            hint=f"Move {_INCLUDE} to the top of urlpatterns in {settings.ROOT_URLCONF}.",
            id="dutchdoor.W009",
        )


def _view_of(path: str) -> Any:
    try:
        return resolve(path).func
    except Resolver404:
        return None
