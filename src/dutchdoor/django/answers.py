"""Responses of Django from what the engine answers or refuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import resolve_url
from django.urls import get_script_prefix

from dutchdoor.django.asked import asked_of
from dutchdoor.django.configuration import gate, is_embedded, signs_in_here
from dutchdoor.errors import DutchdoorError
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.refusal import refusal
from dutchdoor.web.http import Header
from dutchdoor.web.sign_in_page import CONFIRM_PATH

__all__ = ["refused", "response_of", "set_cookies"]


def response_of(status: int, headers: Iterable[Header], body: bytes) -> HttpResponse:
    """Return the response with these parts. Django keeps one line of each header, and cookies by themselves."""
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    cookies = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name == "set-cookie":
            cookies.append(value)
        else:
            response[name] = f"{response[name]}, {value}" if name in response else value
    set_cookies(response, cookies)
    return response


def set_cookies(response: HttpResponseBase, values: Iterable[str]) -> None:
    """Add cookies, given as the values of `Set-Cookie` headers."""
    for value in values:
        response.cookies.load(value)


def refused(request: Any, error: DutchdoorError) -> HttpResponse:
    """Return the answer to a refused request: a problem document; for a browser that opens a page and must sign in, the
    way to the log-in of the project (`LOGIN_URL`) and back.
    """
    held = gate().gate
    # The sign-in of a service that only verifies is elsewhere.
    page = resolve_url(settings.LOGIN_URL) if is_embedded() and not held.sign_in_page else ""
    confirm = engine_of(held).site.base_path + CONFIRM_PATH if signs_in_here() else ""
    prefix = get_script_prefix().rstrip("/")
    answer = refusal(error, asked_of(request), held, prefix, sign_in_page=page, confirm_page=confirm)
    return response_of(answer.status, answer.headers, answer.body)
