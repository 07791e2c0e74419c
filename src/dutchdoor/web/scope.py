"""The request in an ASGI scope. It needs no framework, so a service that only verifies tokens can use it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from dutchdoor.model.base_path import whole_path
from dutchdoor.web.http import Request

__all__ = ["below", "path_in", "request_of"]

_SCHEMES = {"ws": "http", "wss": "https"}
"""For each WebSocket scheme, the scheme of the page that may open the WebSocket."""


def path_in(scope: MutableMapping[str, Any]) -> str:
    """Return the path below the one that the application is mounted at."""
    return _below_mount(scope["path"], scope.get("root_path", ""))


def _below_mount(path: str, root_path: str) -> str:
    # Whole segments: where an application is mounted at `/a` and its server does not repeat that, `/auth` stays.
    return path[len(root_path) :] if path == root_path or path.startswith(f"{root_path}/") else path


def below(base_path: str, path: str, root_path: str = "") -> str | None:
    """Return what follows the base path in the path of a request; None for a path outside. Without a base path, it is
    what follows `root_path`, where the application is mounted.
    """
    if not base_path:
        return _below_mount(path, root_path)
    whole = whole_path(path, root_path)
    return whole[len(base_path) :] if whole.startswith(f"{base_path}/") else None


def request_of(scope: MutableMapping[str, Any]) -> Request:
    """Return the request of an HTTP or WebSocket scope."""
    peer, server = scope.get("client"), scope.get("server")
    scheme: str = scope.get("scheme", "http")
    return Request(
        scope.get("method", "GET"),  # the scope of a WebSocket has no method
        path_in(scope),
        scope.get("query_string", b""),
        scope["headers"],
        peer[0] if peer else "",
        _SCHEMES.get(scheme, scheme),
        port=server[1] if server else None,
        mount=scope.get("root_path", ""),
    )
