"""What every adapter shares: a request, a response, and what may be wrong with a request before anything is decided.

No framework, no I/O, no clock. An adapter (ASGI, Django, Flask) builds a `Request`, hands it over and writes the
`Response`. Both are built for every request of a busy server, so they are plain slots, and nothing is parsed that
nobody asks for.

HTTP semantics are RFC 9110, origins RFC 6454. Left out on purpose: streaming (bodies are small and bounded, `body.py`),
and origins of other schemes than http and https (a list of exact web origins is what a browser can be held to).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from dutchdoor.errors import DutchdoorError, Forbidden, InvalidToken, Misconfigured

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
    """One request, as far as it has been believed.

    `method`, `path` (percent-decoded), `query` (raw), `headers` (names in lower case), `peer` (address of the other end
    of the connection, "" if it has none), `scheme`, `body`. `client`, `scheme` and `host` are what the connection says
    until `Edge.admit` has judged them; nothing may decide by them before.
    """

    __slots__ = ("_by_name", "body", "client", "headers", "host", "method", "path", "peer", "query", "scheme")

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Sequence[Header],
        peer: str,
        scheme: str,
        body: bytes = b"",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.peer = peer
        self.scheme = scheme
        self.body = body
        self.client = peer
        self.host = ""
        self._by_name: dict[bytes, bytes] | None = None

    @property
    def by_name(self) -> dict[bytes, bytes]:
        """The headers by name. Of a repeated one it holds the last: ask `header` or `header_list` for a value."""
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = dict(self.headers)
        return by_name

    @property
    def origin(self) -> str:
        """The origin this request was sent to, as a browser spells it: `https://auth.example.com`."""
        return f"{self.scheme}://{self.host}"

    def header(self, name: bytes) -> str | None:
        """Give the value of a header that may be sent once, without the white space around it (RFC 9110, 5.5), or None.

        Two Authorization or Host headers are how a proxy is made to see one caller and the server another.

        Raises:
            BadRequest: it was sent more than once.
        """
        by_name = self._by_name
        if by_name is None:
            by_name = self._by_name = dict(self.headers)
        value = by_name.get(name)
        if value is None:
            return None
        if len(by_name) != len(self.headers) and sum(1 for sent, _ in self.headers if sent == name) != 1:
            raise BadRequest(f"The header {name.decode('ascii')} was sent more than once.", code="repeated_header")
        return value.strip(b" \t").decode("latin-1")

    def header_list(self, name: bytes) -> str | None:
        """Give a header that is a list and may be sent in several lines: they are one list (RFC 9110, 5.3)."""
        by_name = self.by_name
        value = by_name.get(name)
        if value is None:
            return None
        if len(by_name) != len(self.headers):
            value = b",".join(line for sent, line in self.headers if sent == name)
        return value.strip(b" \t").decode("latin-1")

    def cookie(self) -> bytes:
        """Give all that was sent as cookies as one line, b"" if nothing was. HTTP/2 may send several (RFC 9113)."""
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
        """Give the scheme of the Authorization header in lower case, and what stands after it (RFC 9110, 11.4); "" for
        what is missing.

        Raises:
            BadRequest: it was sent more than once.
        """
        scheme, _, rest = (self.header(b"authorization") or "").partition(" ")
        return scheme.lower(), rest.lstrip(" ")


class Response:
    """One response. `kind` names the security headers it gets (`headers.py`): no-store unless it is `public`."""

    __slots__ = ("body", "headers", "kind", "status")

    def __init__(
        self,
        status: int,
        headers: Iterable[Header] = (),
        body: bytes = b"",
        *,
        kind: Literal["api", "page", "public"] = "api",
    ) -> None:
        self.status = status
        self.headers: list[Header] = list(headers)
        self.body = body
        self.kind: Literal["api", "page", "public"] = kind


_JSON: Header = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


def json_response(status: int, value: Any, headers: Iterable[Header] = ()) -> Response:
    """Answer with `value` as JSON."""
    return Response(status, (_JSON, *headers), _encode(value))


# --- what may be wrong with a request --------------------------------------------------------------------------------


class BadRequest(DutchdoorError):
    """The request contradicts itself or is not HTTP as we speak it. 400; `code` may say more exactly what is wrong."""

    code = "bad_request"
    message = "The request could not be understood."

    def __init__(self, message: str | None = None, *, code: str | None = None, reason: str = "") -> None:
        super().__init__(reason, message=message)
        if code is not None:
            self.code = code


class TooLarge(DutchdoorError):
    code = "too_large"
    message = "The request is larger than is accepted here."


class UnsupportedMediaType(DutchdoorError):
    """The body is of another type than this endpoint reads. `accepts` is the type it reads."""

    code = "unsupported_media_type"
    message = "The body is of a type that is not accepted here."

    def __init__(self, reason: str = "", *, accepts: str = "application/json") -> None:
        super().__init__(reason, message=f"Send the body as {accepts}.")
        self.accepts = accepts


class MethodNotAllowed(DutchdoorError):
    """`allow` are the methods there are."""

    code = "method_not_allowed"
    message = "This method is not available here."

    def __init__(self, allow: Iterable[str], reason: str = "") -> None:
        super().__init__(reason)
        self.allow = tuple(allow)


class CrossSite(Forbidden):
    """A browser sent this on behalf of another site."""

    code = "cross_site"
    message = "This request came from another site."


class CsrfRefused(Forbidden):
    """A cookie would have authenticated this, and the token that proves our own page sent it is missing or wrong."""

    code = "csrf_token"
    message = "Send the token from GET /auth/csrf in the header X-CSRF-Token."


class AmbiguousCookie(InvalidToken):
    """Our cookie came in a form that we never set, or that two parsers could read in two ways."""

    code = "ambiguous_cookie"
    message = "The cookies of this site contradict each other or cannot be read. Sign in again."


class UnknownVerifier(InvalidToken):
    """What was sent as a verifier key is none of ours, or was removed."""

    code = "unknown_verifier"
    message = "This verifier key is not known here, or was removed. `dutchdoor verifier add` makes one."


class OAuthRefused(DutchdoorError):
    """A refusal under /oauth2/ that RFC 6749, section 5.2, has a word for. `error` is that word."""

    code = "oauth_refused"
    message = "The request was refused."

    def __init__(
        self,
        error: Literal["unsupported_grant_type", "unauthorized_client", "invalid_scope", "unsupported_token_type"],
        message: str | None = None,
        *,
        reason: str = "",
    ) -> None:
        super().__init__(reason, message=message)
        self.error = error
        self.code = error


def forwarded_method(request: Request) -> str:
    """Give the method of the request that a proxy asks about. Raises `BadRequest` unless it says exactly one."""
    said = {request.header(name) for name in (b"x-forwarded-method", b"x-original-method")} - {None}
    if len(said) != 1:
        raise BadRequest("The proxy must say the method it asks about, in X-Forwarded-Method.", code="forwarded_method")
    return str(said.pop()).upper()


# --- names of hosts and sites ----------------------------------------------------------------------------------------

_HOST = re.compile(r"(?:([a-z0-9_][a-z0-9_.-]{0,254})|\[([0-9a-f:.]{2,45})\])(?::(0|[1-9][0-9]{0,4}))?", re.ASCII)
_DEFAULT_PORT = {"http": "80", "https": "443"}


@lru_cache(maxsize=256)
def canonical_host(host: str, scheme: str) -> str:
    """Spell a Host header (`Auth.Example.com.:443`) the one way a browser spells it in an origin (`auth.example.com`).

    Lower case, no trailing dot, no default port, IPv6 compressed in brackets. Nothing is decoded or looked up, and what
    is no host gives "", which no list holds.
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
    """Whether a canonical host, with or without port, can only be this machine: localhost, 127.0.0.0/8, [::1].

    `anything.localhost` is not: some resolvers ask the network for it. Neither are names that resolve to 127.0.0.1:
    accepting those is what DNS rebinding needs.
    """
    name = host.rpartition(":")[0] if re.search(r":[0-9]+\Z", host) and not host.endswith("]") else host
    if name in {"localhost", "[::1]"}:
        return True
    try:
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False


def listed_origin(origin: str) -> str:
    """Check an origin that an operator lists, such as `https://app.example.com`, and give it back.

    Raises:
        Misconfigured: it is a pattern, `null`, has a path, is not spelled as a browser spells it (it would never
            match), or is plain HTTP off loopback (whoever is on the path to it would have its rights).
    """
    scheme, colon, host = origin.partition("://")
    known = colon and scheme in _DEFAULT_PORT
    canonical = f"{scheme}://{canonical_host(host, scheme)}" if known and canonical_host(host, scheme) else ""
    if not canonical:
        raise Misconfigured(
            f"{origin!r} is not an origin. Write it as https://app.example.com: no path, no pattern.",
        )
    if canonical != origin:
        raise Misconfigured(
            f"A browser never sends {origin!r} as its origin. Write {canonical!r}.",
        )
    if scheme == "http" and not is_loopback(host):
        raise Misconfigured(
            f"{origin!r} is plain HTTP: anyone on the network could act for it. Use https.",
        )
    return origin
