"""Which other origins' scripts may read our answers: an exact list, empty by default.

CORS as in the Fetch standard. There are no patterns: `https://*.example.com` is one forgotten sub-domain away from
everybody, and matching by prefix or suffix is how `https://example.com.evil.net` gets in. Whoever is not listed gets no
CORS header at all, so there is nothing to combine with credentials. The administration, the poll of verifiers and the
check for proxies never get one, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable

from dutchdoor.web.http import Header, Request, Response, listed_origin

__all__ = ["Cors"]

_METHODS = b"GET, POST, DELETE"
_HEADERS = b"authorization, content-type, prefer, x-csrf-token"
_EXPOSED = b"preference-applied, retry-after, www-authenticate"
_PREFLIGHT_KEPT_FOR = b"600"  # seconds; short, so that taking an origin off the list works soon

_OPEN = ("/auth/", "/oauth2/", "/.well-known/")
_NEVER = ("/auth/revocations/", "/auth/check")

_VARY: Header = (b"vary", b"origin")


class Cors:
    """The list. `origins` is also what `origin.judge` takes as `listed`."""

    __slots__ = ("_allowed", "origins")

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """Check the list.

        Raises:
            Misconfigured: an entry is not an exact origin, see `listed_origin`.
        """
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
        if not self._allowed:
            return []
        allowed = self._allow(request)
        return [_VARY] if allowed is None else [_VARY, *allowed, (b"access-control-expose-headers", _EXPOSED)]

    def preflight(self, request: Request) -> Response | None:
        """Answer a preflight; None if the request is none, or nothing is listed. The answer needs no more CORS headers.

        It is decided before cookies or tokens are looked at: browsers send a preflight without them.
        """
        if not self._allowed or request.method != "OPTIONS":
            return None
        if request.header(b"origin") is None or request.header(b"access-control-request-method") is None:
            return None
        allowed = self._allow(request)
        if allowed is None:
            return Response(403, [_VARY])
        return Response(
            204,
            [
                _VARY,
                *allowed,
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _HEADERS),
                (b"access-control-max-age", _PREFLIGHT_KEPT_FOR),
            ],
        )

    def _allow(self, request: Request) -> list[Header] | None:
        origin = request.header(b"origin")
        if origin is None or not request.path.startswith(_OPEN) or request.path.startswith(_NEVER):
            return None
        return self._allowed.get(origin)
