"""The request in an ASGI scope. It needs no framework, so a service that only verifies tokens can use it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from dutchdoor.web.http import Request

__all__ = ["path_in", "request_of"]

_SCHEMES = {"ws": "http", "wss": "https"}
"""For each WebSocket scheme, the scheme of the page that may open the WebSocket."""


def path_in(scope: MutableMapping[str, Any]) -> str:
    """Return the path below the one that the application is mounted at."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def request_of(scope: MutableMapping[str, Any]) -> Request:
    """Return the request of an HTTP or WebSocket scope."""
    peer = scope.get("client")
    scheme: str = scope.get("scheme", "http")
    return Request(
        scope.get("method", "GET"),  # the scope of a WebSocket has no method
        path_in(scope),
        scope.get("query_string", b""),
        scope["headers"],
        peer[0] if peer else "",
        _SCHEMES.get(scheme, scheme),
    )
