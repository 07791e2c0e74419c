"""The test clients of frameworks: how to make one, and how it carries a proof.

A framework is one `_new_...` and one `_carry_...` here. Nothing of it is imported unless the application is of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from http.cookies import SimpleCookie
from importlib import import_module
from typing import Any

from dutchdoor.errors import Misconfigured

__all__ = ["carry", "is_django", "new_client"]


@contextlib.contextmanager
def new_client(app: Any, first: Any, *, is_wsgi: bool) -> Iterator[Any]:
    """Give a test client of the application's framework. `first` is the one that started the application, if any, and
    `is_wsgi` whether a server of WSGI runs it.
    """
    if hasattr(app, "test_client"):  # Flask
        yield app.test_client()
    elif is_django(app):
        yield import_module("django.test").Client()
    elif is_wsgi:
        library = import_module("httpx2")
        with library.Client(transport=library.WSGITransport(app=app), base_url="http://testserver") as client:
            yield client
    elif callable(app):
        with _asgi(app, first) as client:
            yield client
    else:
        raise Misconfigured(
            f"There is no test client for {app!r}. Give sign_in one of your own: sign_in(..., client=client)."
        )


def is_django(app: object) -> bool:
    """Return whether an application is what runs a project of Django, over WSGI or ASGI."""
    return type(app).__module__.startswith("django.core.handlers")


@contextlib.contextmanager
def _asgi(app: Any, first: Any) -> Iterator[Any]:
    """Starlette's TestClient, which FastAPI has too, and which serves any ASGI application."""
    made = import_module("starlette.testclient").TestClient(app)
    if first is None:
        with made:
            yield made
    else:
        # The application has started once, in the loop of the first client. It goes on there.
        made.portal = first.portal
        made.app_state.update(first.app_state)
        yield made


def carry(client: Any, headers: Mapping[str, str], set_cookie: Sequence[str]) -> None:
    """Have a client send headers with each request, and keep cookies. Raises `Misconfigured` for another client."""
    if hasattr(client, "build_request") and hasattr(client, "cookies"):  # httpx2, httpx, Starlette
        client.headers.update(headers)
        asked = client.build_request("GET", "/")
        answer = import_module(type(asked).__module__.partition(".")[0]).Response
        client.cookies.extract_cookies(
            answer(200, headers=[("set-cookie", each) for each in set_cookie], request=asked)
        )
    elif hasattr(client, "environ_base"):  # Flask
        client.environ_base.update(_as_environ(headers))
        domain = (client.application.config.get("SERVER_NAME") or "localhost").partition(":")[0]
        for name, value in _kept(set_cookie):
            client.set_cookie(name, value, domain=domain)
    elif hasattr(client, "defaults") and hasattr(client, "cookies"):  # Django
        client.defaults.update(_as_environ(headers))
        for name, value in _kept(set_cookie):
            client.cookies[name] = value
    else:
        raise Misconfigured(
            f"sign_in does not know clients of the type {type(client).__name__}. It takes one of httpx2, Starlette, "
            "Flask or Django; for another, send what sign_in.headers(email) returns."
        )


def _as_environ(headers: Mapping[str, str]) -> dict[str, str]:
    return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}


def _kept(set_cookie: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The cookies that are set, without those that are cleared."""
    for line in set_cookie:
        for name, cookie in SimpleCookie(line).items():
            if cookie["max-age"] != "0":
                yield name, cookie.value
