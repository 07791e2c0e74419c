"""Requests, responses and HTTP errors, shared by all adapters.

No framework, no I/O, no clock. An adapter (ASGI, Django, Flask) creates a `Request`, passes it on and writes the
`Response`. A busy server creates both for every request, so they are plain slots, and headers are parsed on demand.

HTTP semantics follow RFC 9110, origins RFC 6454. Not supported: streaming (bodies are small and limited, `body.py`),
and origins with schemes other than http and https.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from dutchdoor.errors import DutchdoorError, Forbidden, InvalidToken, Misconfigured, NotAuthenticated
from dutchdoor.texts import mark

__all__ = [
    "AmbiguousCookie",
    "BadRequest",
    "CrossSite",
    "CsrfRefused",
    "Header",
    "MethodNotAllowed",
    "OAuthRefused",
    "Request",
    "Response",
    "TooLarge",
    "UnknownVerifier",
    "UnsupportedMediaType",
    "canonical_host",
    "forwarded_method",
    "is_loopback",
    "json_response",
    "listed_origin",
]

Header = tuple[bytes, bytes]
"""A header's name in lower case, and its value."""


class Request:
    """One request.

    `method`, `path` (percent-decoded), `query` (raw), `headers` (names in lower case), `peer` (address of the other end
    of the connection, "" if it has none), `scheme`, `body`. `Edge.admit` sets `client`, `scheme` and `host`, and no
    code may rely on these three before. `mount` is what stands before `path` in the URL, and `client_method` the method
    that the client sent, where `method` stands for less. `id` is described in `request_id.py`; `answered` says that the
    work is done. `renewed` sets the cookie that was exchanged on the way, whatever the answer: without it the browser
    would present the old one.
    """

    __slots__ = (
        "_by_name",
        "answered",
        "body",
        "client",
        "client_method",
        "headers",
        "host",
        "id",
        "method",
        "mount",
        "path",
        "peer",
        "port",
        "query",
        "renewed",
        "scheme",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Sequence[Header],
        peer: str,
        scheme: str,
        body: bytes = b"",
        port: int | None = None,
        mount: str = "",
        client_method: str = "",
    ) -> None:
        self.method = method
        self.client_method = client_method or method
        self.path = path
        self.query = query
        self.headers = headers
        self.peer = peer
        self.scheme = scheme
        self.body = body
        self.port = port
        self.mount = mount
        self.client = peer
        self.host = self.id = ""
        self.answered = False
        self.renewed: Header | None = None
        self._by_name: dict[bytes, bytes] | None = None

    @property
    def by_name(self) -> dict[bytes, bytes]:
        """The headers by name, with the last value of a repeated one. Use `header` or `header_list` for values."""
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = dict(self.headers)
        return by_name

    @property
    def origin(self) -> str:
        """The origin that this request was sent to, as a browser writes it: `https://auth.example.com`."""
        return f"{self.scheme}://{self.host}"

    def header(self, name: bytes) -> str | None:
        """Return the value of a single header without surrounding white space (RFC 9110, 5.5), or None.

        Request smuggling: with two Authorization or Host headers, a proxy may read one and the server the other.

        Raises:
            BadRequest: the header was sent more than once.
        """
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = dict(self.headers)
        value = by_name.get(name)
        if value is None:
            return None
        if len(by_name) != len(self.headers) and sum(1 for sent, _ in self.headers if sent == name) != 1:
            raise BadRequest(
                mark("The header %(name)s was sent more than once.", name=name.decode("ascii")), code="repeated_header"
            )
        return value.strip(b" \t").decode("latin-1")

    def header_list(self, name: bytes) -> str | None:
        """Return a header that is a list, with all its lines joined (RFC 9110, 5.3)."""
        by_name = self.by_name
        value = by_name.get(name)
        if value is None:
            return None
        if len(by_name) != len(self.headers):
            value = b",".join(line for sent, line in self.headers if sent == name)
        return value.strip(b" \t").decode("latin-1")

    def cookie(self) -> bytes:
        """Return all Cookie headers as one line, b"" for none. HTTP/2 may send several (RFC 9113)."""
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = dict(self.headers)
        value = by_name.get(b"cookie")
        if value is None:
            return b""
        if len(by_name) != len(self.headers):
            return b"; ".join(line.strip(b" \t") for sent, line in self.headers if sent == b"cookie")
        return value.strip(b" \t")

    def credentials(self) -> tuple[str, str]:
        """Return the scheme of the Authorization header in lower case, and the rest (RFC 9110, 11.4). A missing part is
        "".

        Raises:
            BadRequest: the header was sent more than once.
        """
        scheme, _, rest = (self.header(b"authorization") or "").partition(" ")
        return scheme.lower(), rest.lstrip(" ")

    def access_token(self) -> tuple[str | None, bool]:
        """Return the access token of the Authorization header, or None, and whether it came by the scheme DPoP (RFC
        9449) rather than Bearer. Raises `InvalidToken`.
        """
        scheme, token = self.credentials()
        if scheme not in {"bearer", "dpop"}:
            return None, False
        if not token or " " in token:
            raise InvalidToken("malformed Authorization header")
        return token, scheme == "dpop"

    def unproven(self) -> NotAuthenticated:
        """Return the error for this request if it carries no proof."""
        scheme, _ = self.credentials()
        # `Authorization: Token x`, or the token alone. HTTP Basic may be that of a proxy, beside no sign-in.
        is_misspelt = scheme not in {"", "basic", "bearer", "dpop"}
        message = mark("Send the token in the header Authorization, after the word Bearer.") if is_misspelt else None
        return NotAuthenticated("no proof was sent", message=message)

    def bearer(self) -> str | None:
        """Return the bearer token (RFC 6750) of the Authorization header, or None. Raises `InvalidToken`."""
        scheme, token = self.credentials()
        if scheme != "bearer":
            return None
        if not token or " " in token:
            raise InvalidToken("malformed Authorization header")
        return token


class Response:
    """One response. `kind` decides its security headers (`headers.py`): no-store unless it is `public`.

    A long one is sent in `pieces` after its `body`. An error there cuts it off, which the client notices.
    """

    __slots__ = ("body", "headers", "kind", "pieces", "status")

    def __init__(
        self,
        status: int,
        headers: Iterable[Header] = (),
        body: bytes = b"",
        *,
        kind: Literal["api", "page", "public"] = "api",
        pieces: AsyncIterator[bytes] | None = None,
    ) -> None:
        self.status = status
        self.headers: list[Header] = list(headers)
        self.body, self.pieces = body, pieces
        self.kind: Literal["api", "page", "public"] = kind

    def beside(self, *more: Header) -> Response:
        """Return this with further headers. It is a copy: the same response may be on its way to others."""
        return Response(self.status, [*self.headers, *more], self.body, kind=self.kind, pieces=self.pieces)


_JSON: Header = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


def json_response(status: int, value: Any, headers: Iterable[Header] = ()) -> Response:
    """Return a response with `value` as JSON."""
    return Response(status, (_JSON, *headers), _encode(value))


# --- errors of a request ---------------------------------------------------------------------------------------------


class BadRequest(DutchdoorError):
    """The request contradicts itself or is malformed (400). `code` may be more specific."""

    code = "bad_request"
    message = mark("The request is malformed.")

    def __init__(self, message: str | None = None, *, code: str | None = None, reason: str = "") -> None:
        super().__init__(reason, message=message)
        if code is not None:
            self.code = code


class TooLarge(DutchdoorError):
    """The body is longer than the endpoint reads: `at_most` bytes."""

    code = "too_large"
    message = mark("The request is too large.")

    def __init__(self, reason: str, *, at_most: int) -> None:
        super().__init__(reason, message=mark("The body may have %(most)s bytes, and it has more.", most=str(at_most)))


class UnsupportedMediaType(DutchdoorError):
    """The endpoint does not read the media type of the body. `accepts` is the type that it reads."""

    code = "unsupported_media_type"
    message = mark("The media type of the body is not supported.")

    def __init__(self, reason: str = "", *, accepts: str = "application/json", message: str | None = None) -> None:
        wanted = mark("Send the body as %(type)s, and name this type in the header Content-Type.", type=accepts)
        super().__init__(reason, message=message or wanted)
        self.accepts = accepts


class MethodNotAllowed(DutchdoorError):
    """The path does not support the method. `allow` has the supported methods."""

    code = "method_not_allowed"
    message = mark("This path does not support this method.")

    def __init__(self, allow: Iterable[str]) -> None:
        self.allow = tuple(allow)
        wanted = mark("This path does not support this method. It supports %(methods)s.", methods=", ".join(self.allow))
        super().__init__(message=wanted)


class CrossSite(Forbidden):
    """A page of another site caused this request."""

    code = "cross_site"
    message = mark(
        "This request came from a page of another site, or does not say where from. Programs send JSON; pages send an "
        "Origin, which is that of this server or is listed in origins (--origin, DUTCHDOOR_ORIGIN)."
    )


class CsrfRefused(Forbidden):
    """A cookie authenticates this request, but its CSRF token is missing or wrong."""

    code = "csrf_token"
    message = mark("Send the token from GET /auth/csrf in the header X-CSRF-Token.")


class AmbiguousCookie(InvalidToken):
    """A cookie of this server has a form that the server never sets, or that parsers could read in two ways."""

    code = "ambiguous_cookie"
    message = mark("The cookies of this site contradict each other or cannot be read. Sign in again.")


class UnknownVerifier(InvalidToken):
    """The verifier key is unknown or was removed."""

    code = "unknown_verifier"
    message = mark("This verifier key is unknown or was removed. `dutchdoor verifier add` creates a key.")


class OAuthRefused(DutchdoorError):
    """A refusal under /oauth2/ with an error code of RFC 6749, section 5.2. `error` is that code."""

    code = "oauth_refused"
    message = mark("The request was refused.")

    def __init__(
        self,
        error: Literal["unsupported_grant_type", "unauthorized_client", "invalid_scope", "unsupported_token_type"],
        message: str | None = None,
    ) -> None:
        super().__init__(message=message)
        self.error = error
        self.code = error


def forwarded_method(request: Request) -> str:
    """Return the method of the request that a proxy asks about. Raises `BadRequest` unless there is exactly one."""
    said = {request.header(name) for name in (b"x-forwarded-method", b"x-original-method")} - {None}
    if len(said) != 1:
        raise BadRequest(
            mark("The proxy must send the method of the request in X-Forwarded-Method."), code="forwarded_method"
        )
    return str(said.pop()).upper()


# --- names of hosts and sites ----------------------------------------------------------------------------------------

_HOST = re.compile(r"(?:([a-z0-9_][a-z0-9_.-]{0,254})|\[([0-9a-f:.]{2,45})\])(?::(0|[1-9][0-9]{0,4}))?", re.ASCII)
_DEFAULT_PORT = {"http": "80", "https": "443"}


@lru_cache(maxsize=256)
def canonical_host(host: str, scheme: str) -> str:
    """Normalise a Host header (`Auth.Example.com.:443`) to the form of a browser's origin (`auth.example.com`).

    Lower case, no trailing dot, no default port, IPv6 compressed in brackets. Nothing is decoded or looked up. An
    invalid host gives "", which is in no list.
    """
    found = _HOST.fullmatch(host.lower())
    if found is None:
        return ""
    name, v6, port = found.groups()
    if v6 is not None:
        try:
            name = f"[{ipaddress.IPv6Address(v6).compressed}]"
        except ValueError:
            return ""
    else:
        name = name.removesuffix(".")
        if not name or name.startswith(".") or name.endswith(".") or ".." in name:
            return ""
    if port is None or port == _DEFAULT_PORT.get(scheme):
        return name
    return f"{name}:{port}" if 0 < int(port) < 65536 else ""  # noqa: PLR2004


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a canonical host, with or without port, is always this machine: localhost, 127.0.0.0/8, [::1].

    `anything.localhost` is not, because some resolvers ask the network for it. Names that resolve to 127.0.0.1 are not
    either: they would allow DNS rebinding.
    """
    name = host.rpartition(":")[0] if re.search(r":[0-9]+\Z", host) and not host.endswith("]") else host
    if name in {"localhost", "[::1]"}:
        return True
    try:
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False


def listed_origin(origin: str) -> str:
    """Check a configured origin, such as `https://app.example.com`, and return it.

    Raises:
        Misconfigured: the origin is a pattern or `null`, has a path, is not in the form of a browser (it would never
            match), or is plain HTTP to another machine (an attacker on the network path could act as this origin).
    """
    scheme, colon, host = origin.partition("://")
    known = colon and scheme in _DEFAULT_PORT
    canonical = f"{scheme}://{canonical_host(host, scheme)}" if known and canonical_host(host, scheme) else ""
    if not canonical:
        raise Misconfigured(
            f"{origin!r} is not an origin. Use a form such as https://app.example.com: no path, no pattern.",
        )
    if canonical != origin:
        raise Misconfigured(
            f"A browser never sends {origin!r} as an origin. Use {canonical!r}.",
        )
    if scheme == "http" and not is_loopback(host):
        raise Misconfigured(
            f"{origin!r} is plain HTTP: an attacker on the network could act as this origin. Use https.",
        )
    return origin
