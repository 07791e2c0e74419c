"""The middleware: `request.user`, `request.principal`, cookies of a log-in, and streams that end with their session.

It stands after `AuthenticationMiddleware`, whose `request.user` it replaces by one that our cookie or a bearer token
names.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.functional import SimpleLazyObject

from dutchdoor.django.answers import refused, set_cookies
from dutchdoor.django.configuration import is_embedded
from dutchdoor.django.streams import ends_with_session
from dutchdoor.django.users import auser_of, user_of
from dutchdoor.django.views import engine, engine_at_once
from dutchdoor.django.visit import Visit, visit_of
from dutchdoor.errors import DeviceProofRequired, DutchdoorError, Misconfigured, UseDpopNonce
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.refusal import loads_again
from dutchdoor.guard.wsgi import navigates, prove_first
from dutchdoor.web.origin import SAFE_METHODS

__all__ = ["DutchdoorMiddleware"]

_FAILED = 500
"""From this status on, Django's middleware stores no session."""


class DutchdoorMiddleware:
    """Middleware of Django, for WSGI and ASGI."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        """Raises `Misconfigured` for wrong settings, when the server starts."""
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        else:
            self.process_view = self._answer_api
        # Imported now: a service that only verifies does not have the engine's packages.
        self._logins = import_module("dutchdoor.django.logins") if is_embedded() else None

    def __call__(self, request: Any) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if self._is_async:
            return self._aserved(request)
        visit = _begun(request)
        if _loads_again(request, visit):
            try:
                prove_first(visit.known)
            except DutchdoorError as error:
                return refused(request, error)
        if _may_skip_csrf(request, visit) and visit.is_from_own_page():
            request._dont_enforce_csrf_checks = True  # noqa: SLF001 - what Django's middleware looks at
        _load_for(request, visit)
        response: HttpResponseBase = self._get_response(request)
        return _finished(visit, self._followed(request, visit, response))

    async def _aserved(self, request: Any) -> HttpResponseBase:
        visit = _begun(request)
        if _loads_again(request, visit):
            try:
                await visit.aknown()
            except DeviceProofRequired as error:
                return refused(request, error)
            except DutchdoorError:
                pass  # a guard raises it, and a public page is served
        if _has_proof(request, visit):
            await visit.read_proof()
        if _may_skip_csrf(request, visit) and await visit.ais_from_own_page():
            request._dont_enforce_csrf_checks = True  # noqa: SLF001
        if _signs_in(request, visit):
            await sync_to_async(_load_for)(request, visit)
        response: HttpResponseBase = await self._get_response(request)
        if _has_changed_session(request) or _is_of_api(request):
            response = await sync_to_async(self._followed)(request, visit, response)
        return _finished(visit, response)

    def _followed(self, request: Any, visit: Visit, response: HttpResponseBase) -> HttpResponseBase:
        """Take care of Django's session, after a view and after the API."""
        if self._logins is None or response.status_code >= _FAILED:
            return response
        try:
            if _is_of_api(request):
                self._logins.follow(request, visit, response)
            else:
                self._logins.finish(request, visit)
        except DutchdoorError as error:
            return refused(request, error)
        return response

    def _answer_api(self, request: Any, view: Any, _args: Any, _named: Any) -> HttpResponseBase | None:
        return engine_at_once(request) if view is engine else None

    def process_exception(self, request: Any, exception: Exception) -> HttpResponseBase | None:
        """Answer what a guard or a look-up raised."""
        if isinstance(exception, DutchdoorError) and not isinstance(exception, Misconfigured):
            return refused(request, exception)
        return None


def _begun(request: Any) -> Visit:
    visit = visit_of(request)
    visit.has_passed = True
    session: Any = getattr(request, "session", None)
    if hasattr(session, "visit"):  # data of another session than that of the proof is not for this request
        session.visit = visit
    request.user = SimpleLazyObject(functools.partial(user_of, request))
    request.auser = functools.partial(auser_of, request)
    request.principal = SimpleLazyObject(visit.principal)
    return visit


def _loads_again(request: Any, visit: Visit) -> bool:
    """Return whether a browser was led here from another site, so that it could not prove its key."""
    if not navigates(request.META) or not visit.gate.gate.reload_page or visit.gate.gate.owns(request.path_info):
        return False
    return loads_again(visit.asked)


def _has_proof(request: Any, visit: Visit) -> bool:
    if visit.gate.gate.owns(request.path_info):
        return False  # the API checks proofs itself, and that of a key is taken once
    if "Authorization" in request.headers:
        return True
    return visit.gate.gate.reads_cookies and engine_of(visit.gate.gate).site.cookies.session.name in request.COOKIES


def _may_skip_csrf(request: Any, visit: Visit) -> bool:
    """Return whether an unsafe request brings something that makes Django's own check for other sites needless."""
    return (
        request.method not in SAFE_METHODS
        and ("Authorization" in request.headers or "X-CSRF-Token" in request.headers)
        and not visit.gate.gate.owns(request.path_info)
    )


def _signs_in(request: Any, visit: Visit) -> bool:
    return (
        request.method == "POST"
        and request.path_info.endswith("/auth/login")
        and visit.gate.gate.owns(request.path_info)
    )


def _load_for(request: Any, visit: Visit) -> None:
    """Read the data that a sign-in takes along: that of a session which it replaces is deleted with the session."""
    session = getattr(request, "session", None)
    if session is not None and settings.SESSION_COOKIE_NAME in request.COOKIES and _signs_in(request, visit):
        session.get("")


def _is_of_api(request: Any) -> bool:
    match = request.resolver_match
    return match is not None and match.func is engine


def _has_changed_session(request: Any) -> bool:
    session = getattr(request, "session", None)
    return session is not None and session.modified


def _finished(visit: Visit, response: HttpResponseBase) -> HttpResponseBase:
    if visit.signed_in is not None:
        auth = engine_of(visit.gate.gate)
        set_cookies(response, auth.set_cookies(visit.signed_in))
        for name, value in auth.device_offer(visit.signed_in).items():
            response[name] = value
    elif visit.signed_out:
        cookies = engine_of(visit.gate.gate).site.cookies
        cleared = (cookies.session.cleared, cookies.refresh.cleared)
        set_cookies(response, [value.decode("ascii") for _, value in cleared])
    if isinstance(visit.error, UseDpopNonce):  # REST framework passes on two headers of an error, and not this one
        response["DPoP-Nonce"] = visit.error.nonce
    if visit.was_asked:
        patch_vary_headers(response, ("Cookie", "Authorization"))
    return ends_with_session(visit, response)
