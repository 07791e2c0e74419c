"""Which paths of an application are the API's, where the two are one program."""

from __future__ import annotations

from collections.abc import Iterable

from dutchdoor.web.api import Route
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.scope import below

__all__ = ["OwnPaths"]

_BELOW = ("/auth/", "/oauth2/", "/admin/api/")
"""What nearly all paths of the API begin with."""
_APPLICATIONS = {"/", "/docs", "/openapi.json", "/livez", "/readyz"}
"""Paths that an application around this has for itself, although a server of our own answers them."""


class OwnPaths:
    """The paths that an adapter leaves to the API: those of its routes, but not `/`, the description and the probes.

    Args:
        routes: the routes of the API.
        base_path: what stands before each path.
        console: whether all paths below `/admin` are the API's.
    """

    def __init__(self, routes: Iterable[Route], base_path: str, *, console: bool) -> None:
        self._base = base_path
        self._below = (*_BELOW, f"{CONSOLE_PATH}/") if console else _BELOW
        self._single = {route.path for route in routes if not route.path.startswith(self._below)} - _APPLICATIONS
        self.all = tuple(base_path + path for path in (*self._below, *sorted(self._single)))
        """Each with the base path: prefixes, which end in a slash, and single paths."""

    def owns(self, path: str, root_path: str) -> bool:
        """Whether a `path` is the API's. `root_path` is where the application is mounted."""
        own = below(self._base, path, root_path)
        return own is not None and (own.startswith(self._below) or own in self._single)
