"""The view behind each path of the API."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.urls import get_script_prefix
from django.views.decorators.csrf import csrf_exempt

from dutchdoor.django.answers import response_of
from dutchdoor.django.asked import asked_of
from dutchdoor.django.awaiting import awaited
from dutchdoor.django.configuration import gate
from dutchdoor.errors import Unavailable
from dutchdoor.guard.gates import AsgiApp
from dutchdoor.guard.wsgi import answered
from dutchdoor.web.http import Header
from dutchdoor.web.problems import problem

__all__ = ["engine", "engine_at_once"]


@login_not_required  # under LoginRequiredMiddleware, the page to sign in would lead to itself
@csrf_exempt  # the engine has its own check for pages of other sites, of every request
async def engine(request: Any) -> HttpResponse:
    """Answer a request by the engine, in its thread. Under ASGI no thread of the server waits for it."""
    held = gate()
    if held.gate.application is None:
        return HttpResponse(status=404)
    try:
        answer = await awaited(held, _asked(held.gate.application, request))
    except Unavailable as error:  # the store is out of reach at the first request
        return _unavailable(error)
    return response_of(*answer)


def engine_at_once(request: Any) -> HttpResponse:
    """Do what `engine` does in the thread of a WSGI request. For a coroutine Django would make an event loop each time.

    Raises:
        TypeError: there is no engine, so `engine` has no path.
    """
    held = gate()
    if held.gate.application is None:
        raise TypeError("this service only verifies")
    try:
        answer = held.run(_asked(held.gate.application, request))
    except Unavailable as error:
        return _unavailable(error)
    return response_of(*answer)


def _asked(application: AsgiApp, request: Any) -> Coroutine[Any, Any, tuple[int, list[Header], bytes]]:
    return answered(application, asked_of(request), request.body, get_script_prefix().rstrip("/"))


def _unavailable(error: Unavailable) -> HttpResponse:
    answer = problem(error)
    return response_of(answer.status, answer.headers, answer.body)
