"""Which other origins' scripts may read our answers: an exact list, empty by default.

CORS as in the Fetch standard. There are no patterns: `https://*.example.com` is one forgotten sub-domain away from
everybody, and matching by prefix or suffix is how `https://example.com.evil.net` gets in. Whoever is not listed gets no
CORS header at all, so there is nothing to combine with credentials. The administration, the poll of verifiers and the
check for proxies never get one, whoever asks.

Keys and metadata are for everyone: any page may read them, without credentials.

A preflight for an application behind forward authentication is another matter. It carries no credentials, so
`/auth/check` would refuse it and the browser would never send the request itself. On request it passes, and the
application answers it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dutchdoor.errors import Misconfigured
from dutchdoor.web.http import Header, Request, Response, forwarded_method, listed_origin

__all__ = ["Cors"]

_METHODS = b"GET, POST, DELETE"
_HEADERS = ("authorization", "content-type", "prefer", "x-csrf-token")
_EXPOSED = b"preference-applied, retry-after, www-authenticate"
_PREFLIGHT_KEPT_FOR = b"600"  # seconds; short, so that taking an origin off the list works soon

_OPEN = ("/auth/", "/oauth2/", "/.well-known/")
_CHECK = "/auth/check"
_NEVER = ("/auth/revocations/", _CHECK)

_PUBLIC = frozenset({"/.well-known/jwks.json", "/.well-known/oauth-authorization-server"})

_VARY: Header = (b"vary", b"origin")
_ANYONE: Header = (b"access-control-allow-origin", b"*")
"""Without Access-Control-Allow-Credentials a browser shows a page no answer that it asked for with cookies."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Cors:
    """The list. `origins` is also what `origin.judge` takes as `listed`."""

    __slots__ = ("_allowed", "_headers", "_pass_preflights", "origins")

    def __init__(
        self, origins: Iterable[str] = (), *, headers: Iterable[str] = (), pass_preflights: bool = False
    ) -> None:
        """Check the list. `headers`: what pages of these origins may send besides what this API reads;
        `pass_preflights`: whether `/auth/check` lets preflights pass.

        Raises:
            Misconfigured: an origin is not exact, see `listed_origin`, or a header is not a name.
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
        """Give the headers that the answer to this request gets besides its own.

        `Vary: Origin` on every answer once anything is listed, or a cache hands one origin's answer to another.
        """
        vary = [_VARY] if self._allowed else []
        allowed = self._allow(request)
        if allowed is not None:
            return [*vary, *allowed, (b"access-control-expose-headers", _EXPOSED)]
        return [*vary, _ANYONE] if request.path in _PUBLIC else vary

    def preflight(self, request: Request) -> Response | None:
        """Answer a preflight; None if the request is none, or nobody is allowed. The answer needs no more CORS headers.

        It is decided before cookies or tokens are looked at: browsers send a preflight without them.
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
        """Whether a proxy asks at `/auth/check` about a preflight that passes. That it is a configured proxy is the
        caller's to know.
        """
        return (
            self._pass_preflights
            and request.path == _CHECK
            and forwarded_method(request) == "OPTIONS"
            and _asks_first(request)
        )

    def _allow(self, request: Request) -> list[Header] | None:
        origin = request.header(b"origin")
        if origin is None or not request.path.startswith(_OPEN) or request.path.startswith(_NEVER):
            return None
        return self._allowed.get(origin)


def _asks_first(request: Request) -> bool:
    """Whether this carries what a browser sends with every preflight, and a page's own OPTIONS request does not."""
    return request.header(b"origin") is not None and request.header(b"access-control-request-method") is not None


def _header(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Misconfigured(f"{name!r} is not the name of a request header. Write it as traceparent: no pattern.")
    return name.lower()
