"""The view behind each path of the API."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import get_script_prefix
from django.views.decorators.csrf import csrf_exempt

from dutchdoor.django.answers import response_of
from dutchdoor.django.asked import asked_of
from dutchdoor.django.awaiting import awaited
from dutchdoor.django.configuration import gate
from dutchdoor.errors import Unavailable
from dutchdoor.guard.wsgi import answered
from dutchdoor.web.problems import problem

__all__ = ["engine"]


@csrf_exempt  # the engine has its own check for pages of other sites, of every request
async def engine(request: Any) -> HttpResponse:
    """Answer a request by the engine, in its thread. Under ASGI no thread of the server waits for it."""
    held = gate()
    application = held.gate.application
    if application is None:
        return HttpResponse(status=404)
    try:
        work = answered(application, asked_of(request), request.body, get_script_prefix().rstrip("/"))
        status, headers, body = await awaited(held, work)
    except Unavailable as error:  # the store is out of reach at the first request
        answer = problem(error)
        status, headers, body = answer.status, answer.headers, answer.body
    return response_of(status, headers, body)
