"""The request that Django has read, as the engine takes it."""

from __future__ import annotations

from typing import Any

from dutchdoor.guard.wsgi import request_in
from dutchdoor.web.http import Request
from dutchdoor.web.scope import request_of

__all__ = ["TEST_PEER", "asked_of", "to_read"]

TEST_PEER = "testclient"
"""The peer of a request of Django's test client. It is no address, so no connection has it."""
_TEST_HOST, _TEST_PORT = "testserver", 80


def asked_of(request: Any) -> Request:
    """Return the request behind a `django.http.HttpRequest`."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        asked = request_of(scope)
        return _from_test_client(asked) if _is_of_a_test(scope, asked) else asked
    meta = request.META
    if "REQUEST_METHOD" not in meta:  # made by hand, such as the one that the test client signs in with
        return Request("GET", "/", b"", [], "", "http")
    asked = request_in(
        {
            **{name: value for name, value in meta.items() if isinstance(value, str)},
            "wsgi.url_scheme": request.scheme,
        }
    )
    # A test client sends no Host, and its body is a class of its own: no client can claim that.
    is_of_a_test = "HTTP_HOST" not in meta and type(meta.get("wsgi.input")).__module__ == "django.test.client"
    return _from_test_client(asked) if is_of_a_test else asked


def to_read(asked: Request) -> Request:
    """Return a request with the same proofs that only reads.

    To know who sends a request is one question; whether a page of another site caused it is another, and Django's own
    protection answers that one for views.
    """
    return Request(
        "GET",
        asked.path,
        asked.query,
        asked.headers,
        asked.peer,
        asked.scheme,
        port=asked.port,
        mount=asked.mount,
        client_method=asked.method,
    )


def _is_of_a_test(scope: Any, asked: Request) -> bool:
    # The port of a server is a number, but for the test client.
    return isinstance((scope.get("server") or ("", 0))[1], str) and asked.header(b"host") in {None, _TEST_HOST}


def _from_test_client(asked: Request) -> Request:
    # It keeps cookies that a response has cleared, as empty ones.
    cookies = b"; ".join(piece for piece in asked.cookie().split(b"; ") if piece.partition(b"=")[2] not in {b"", b'""'})
    headers = [header for header in asked.headers if header[0] not in {b"host", b"cookie"}]
    headers.append((b"host", _TEST_HOST.encode()))
    if cookies:
        headers.append((b"cookie", cookies))
    return Request(
        asked.method, asked.path, asked.query, headers, TEST_PEER, asked.scheme, port=_TEST_PORT, mount=asked.mount
    )
