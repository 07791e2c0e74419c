"""CORS: an exact list of the other origins whose scripts may read responses, empty by default.

CORS as in the Fetch standard. Patterns are not supported: with `https://*.example.com`, an attacker needs only one
forgotten subdomain, and with a prefix match `https://example.com.evil.net` gets in. An origin that is not listed gets
no CORS header at all. The admin API, the poll of verifiers and the check for proxies never send CORS headers.

Any page may read the keys and the metadata, without credentials.

A preflight for an application behind forward authentication carries no credentials. `/auth/check` would refuse it, and
the browser would not send the real request. With `pass_preflights`, such a preflight passes, and the application
answers it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dutchdoor.errors import Misconfigured
from dutchdoor.web.http import Header, Request, Response, forwarded_method, listed_origin

__all__ = ["CHECK_PATH", "Cors"]

_METHODS = b"GET, POST, DELETE"
_HEADERS = ("authorization", "content-type", "dpop", "prefer", "x-csrf-token")
_EXPOSED = b"dpop-nonce, preference-applied, retry-after, www-authenticate"
_PREFLIGHT_KEPT_FOR = b"600"  # seconds; short, so that removing an origin takes effect soon

_OPEN = ("/auth/", "/oauth2/", "/.well-known/")
CHECK_PATH = "/auth/check"
_NEVER = ("/auth/revocations/", CHECK_PATH)

_PUBLIC = frozenset({"/.well-known/jwks.json", "/.well-known/oauth-authorization-server"})

_VARY: Header = (b"vary", b"origin")
_ANYONE: Header = (b"access-control-allow-origin", b"*")
"""Without Access-Control-Allow-Credentials, a browser hides responses to requests with cookies from the page."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Cors:
    """The list of origins. `origins` is also the argument `listed` of `origin.judge`."""

    __slots__ = ("_allowed", "_headers", "_pass_preflights", "origins")

    def __init__(
        self, origins: Iterable[str] = (), *, headers: Iterable[str] = (), pass_preflights: bool = False
    ) -> None:
        """Check the list. `headers` are further request headers that pages of these origins may send.
        `pass_preflights` says whether `/auth/check` lets preflights pass.

        Raises:
            Misconfigured: an origin is not exact (see `listed_origin`), or a header is not a valid name.
        """
        names = [*_HEADERS, *sorted({_header(name) for name in headers} - set(_HEADERS))]
        self._headers = ", ".join(names).encode("ascii")
        self._pass_preflights = pass_preflights
        self.origins = frozenset(listed_origin(origin) for origin in origins)
        self._allowed: dict[str, list[Header]] = {
            origin: [
                (b"access-control-allow-origin", origin.encode("ascii")),
                (b"access-control-allow-credentials", b"true"),
            ]
            for origin in self.origins
        }

    def headers(self, request: Request) -> list[Header]:
        """Return the CORS headers of the response to this request.

        If any origin is listed, every response has `Vary: Origin`. Otherwise a cache could send the response for one
        origin to another.
        """
        vary = [_VARY] if self._allowed else []
        allowed = self._allow(request)
        if allowed is not None:
            return [*vary, *allowed, (b"access-control-expose-headers", _EXPOSED)]
        return [*vary, _ANYONE] if request.path in _PUBLIC else vary

    def preflight(self, request: Request) -> Response | None:
        """Answer a preflight. Returns None for another request, or if no origin is listed.

        The response needs no further CORS headers. It does not depend on cookies or tokens, which a preflight lacks.
        """
        public = request.path in _PUBLIC
        if request.method != "OPTIONS" or not (self._allowed or public) or not _asks_first(request):
            return None
        allowed = self._allow(request)
        if allowed is not None:
            methods, headers = _METHODS, self._headers
        elif public:
            allowed, methods, headers = [_ANYONE], b"GET", b"*"
        else:
            return Response(403, [_VARY])
        return Response(
            204,
            [
                *([_VARY] if self._allowed else []),
                *allowed,
                (b"access-control-allow-methods", methods),
                (b"access-control-allow-headers", headers),
                (b"access-control-max-age", _PREFLIGHT_KEPT_FOR),
            ],
        )

    def passes(self, request: Request) -> bool:
        """Whether `/auth/check` lets this preflight pass. The caller must check that a configured proxy sent it."""
        return (
            self._pass_preflights
            and request.path == CHECK_PATH
            and forwarded_method(request) == "OPTIONS"
            and _asks_first(request)
        )

    def _allow(self, request: Request) -> list[Header] | None:
        origin = request.header(b"origin")
        if origin is None or not request.path.startswith(_OPEN) or request.path.startswith(_NEVER):
            return None
        return self._allowed.get(origin)


def _asks_first(request: Request) -> bool:
    """Whether this is a preflight: it has two headers that an OPTIONS request of a page itself does not have."""
    return request.header(b"origin") is not None and request.header(b"access-control-request-method") is not None


def _header(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Misconfigured(
            f"{name!r} is not the name of a request header. Use a name such as traceparent, no pattern."
        )
    return name.lower()
