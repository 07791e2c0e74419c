"""The table from exceptions to HTTP: RFC 9457 problem documents, and RFC 6749 errors under /oauth2/.

`code` is stable and for programs; `detail` is for people and may change. Without `type`, which means `about:blank`,
`title` is the status in words. A 401 has a challenge as in RFC 6750, section 3: without an error code if the client
sent no token, and with one if the token is invalid. A step-up follows RFC 9470.

An unexpected exception gives a 500 with only an id, which is also in the log. The log gets the type and the place of
the exception, but not its text: the exception of a library may quote a password.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import traceback
from typing import Any, NamedTuple

import msgspec

from dutchdoor.errors import (
    Conflict,
    DeviceProofRequired,
    DpopRequired,
    DutchdoorError,
    Forbidden,
    InvalidDpopProof,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    NotFound,
    RateLimited,
    Refused,
    SessionLimitReached,
    SignInUnfinished,
    StepUpRequired,
    Superseded,
    Taken,
    Unavailable,
    UseDpopNonce,
)
from dutchdoor.jose.dpop import ALGORITHMS
from dutchdoor.web.http import (
    BadRequest,
    CrossSite,
    CsrfRefused,
    Header,
    MethodNotAllowed,
    OAuthRefused,
    Response,
    TooLarge,
    UnknownVerifier,
    UnsupportedMediaType,
)

__all__ = ["OAUTH_PREFIX", "problem"]

OAUTH_PREFIX = "/oauth2/"

_log = logging.getLogger("dutchdoor.web")


class _Row(NamedTuple):
    """The status and the challenge ("" for none) of an exception, and its RFC 6749 error with its status."""

    status: int
    challenge: str
    oauth: str
    oauth_status: int


# A subclass without a row uses the row of its parent. `DutchdoorError` has no row: an error without one is a bug.
_TABLE: dict[type[DutchdoorError], _Row] = {
    NotAuthenticated: _Row(401, "bearer", "invalid_client", 401),
    InvalidToken: _Row(401, "invalid_token", "invalid_grant", 400),
    DeviceProofRequired: _Row(401, "bearer", "invalid_grant", 400),
    DpopRequired: _Row(401, "invalid_token", "invalid_dpop_proof", 400),
    InvalidDpopProof: _Row(401, "invalid_dpop_proof", "invalid_dpop_proof", 400),
    UseDpopNonce: _Row(401, "use_dpop_nonce", "use_dpop_nonce", 400),
    UnknownVerifier: _Row(401, "invalid_token", "invalid_client", 401),
    StepUpRequired: _Row(401, "insufficient_user_authentication", "invalid_grant", 400),
    Forbidden: _Row(403, "insufficient_scope", "unauthorized_client", 400),
    # No challenge: more rights would not help the client.
    CrossSite: _Row(403, "", "invalid_request", 403),
    CsrfRefused: _Row(403, "", "invalid_request", 403),
    Refused: _Row(403, "", "invalid_request", 403),
    RateLimited: _Row(429, "", "temporarily_unavailable", 429),
    InvalidInput: _Row(422, "", "invalid_request", 400),
    Taken: _Row(409, "", "invalid_request", 400),
    Superseded: _Row(409, "", "invalid_grant", 400),
    SessionLimitReached: _Row(409, "", "invalid_grant", 400),
    Conflict: _Row(409, "", "invalid_request", 400),
    NotFound: _Row(404, "", "invalid_request", 404),
    Unavailable: _Row(503, "", "temporarily_unavailable", 503),
    BadRequest: _Row(400, "", "invalid_request", 400),
    TooLarge: _Row(413, "", "invalid_request", 413),
    UnsupportedMediaType: _Row(415, "", "invalid_request", 415),
    MethodNotAllowed: _Row(405, "", "invalid_request", 405),
    OAuthRefused: _Row(400, "", "", 400),
}

# Fixed titles, because those of the standard library differ between Python versions.
_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_REALM = 'realm="dutchdoor"'
_PROBLEM: Header = (b"content-type", b"application/problem+json")
_JSON: Header = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


def problem(error: Exception, *, path: str = "") -> Response:
    """Convert an exception to a response: an RFC 6749 error if `path` is under /oauth2/, else a problem document.

    The response never clears a cookie: an unavailable store must not sign users out.
    """
    row = _row(error)
    if row is None or not isinstance(error, DutchdoorError):
        return _unexpected(error, path)
    if path.startswith(OAUTH_PREFIX):
        return _oauth(error, row)
    document: dict[str, Any] = {
        "title": _TITLES[row.status],
        "status": row.status,
        "code": error.code,
        "detail": str(error),
    }
    headers = [_PROBLEM, *_headers(error)]
    if isinstance(error, InvalidInput) and error.field:
        document["field"] = error.field
    elif isinstance(error, (RateLimited, Unavailable)):
        document["retry_after"] = _whole_seconds(error.retry_after)
    elif isinstance(error, StepUpRequired):
        document.update(_step_up(error))
    elif isinstance(error, SignInUnfinished):
        document.update(token=error.token, methods=error.methods, enrol=error.enrol)
        if error.step:
            document["step_required"] = error.step
        if error.codes:
            document["recovery_codes"] = error.codes
    if row.challenge:
        headers.append((b"www-authenticate", _challenge(error, row.challenge)))
    return Response(row.status, headers, _encode(document))


def _row(error: Exception) -> _Row | None:
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    return None


def _headers(error: DutchdoorError) -> list[Header]:
    if isinstance(error, (RateLimited, Unavailable)):
        return [(b"retry-after", b"%d" % _whole_seconds(error.retry_after))]
    if isinstance(error, DeviceProofRequired) and error.clearing is not None:
        return [(b"set-cookie", error.clearing[1])]
    if isinstance(error, UseDpopNonce):
        return [(b"dpop-nonce", error.nonce.encode("ascii"))]
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allow).encode("ascii"))]
    return []


def _whole_seconds(seconds: float) -> int:
    """Round up, so that a client that retries at that second is not too early. At least 1 second, at most a day."""
    return min(max(1, math.ceil(seconds)), 86400) if math.isfinite(seconds) else 86400


def _challenge(error: DutchdoorError, name: str) -> bytes:
    if name == "bearer":
        return f"Bearer {_REALM}".encode("ascii")
    if isinstance(error, (DpopRequired, InvalidDpopProof, UseDpopNonce)):
        return f'DPoP {_REALM}, error="{name}", algs="{" ".join(ALGORITHMS)}"'.encode("ascii")
    challenge = f'Bearer {_REALM}, error="{name}"'
    if isinstance(error, StepUpRequired):
        challenge += "".join(f', {name}="{value}"' for name, value in _step_up(error).items())
    return challenge.encode("ascii")


def _step_up(error: StepUpRequired) -> dict[str, int | str]:
    """What a step-up must bring: `max_age` and `acr_values` of RFC 9470, and `factors` of our own."""
    wanted: dict[str, int | str] = {} if error.max_age is None else {"max_age": int(error.max_age)}
    return wanted if error.factors == 1 else {**wanted, "acr_values": "aal2", "factors": error.factors}


# --- RFC 6749, section 5.2 -------------------------------------------------------------------------------------------

_NOT_IN_A_DESCRIPTION = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


def _oauth(error: DutchdoorError, row: _Row) -> Response:
    word = error.error if isinstance(error, OAuthRefused) else row.oauth
    document = {"error": word, "error_description": _NOT_IN_A_DESCRIPTION.sub("'", str(error))}
    headers = [_JSON, *_headers(error)]
    if row.oauth_status == 401:  # noqa: PLR2004
        # The challenge has the scheme that the client used (RFC 6749, section 5.2).
        scheme = "Bearer" if isinstance(error, UnknownVerifier) else "Basic"
        headers.append((b"www-authenticate", f"{scheme} {_REALM}".encode("ascii")))
    return Response(row.oauth_status, headers, _encode(document))


# --- what we did not raise -------------------------------------------------------------------------------------------


def _unexpected(error: Exception, path: str) -> Response:
    incident = secrets.token_hex(8)
    _log.error("incident %s\n%s", incident, _without_texts(error))
    if path.startswith(OAUTH_PREFIX):
        return Response(500, [_JSON], _encode({"error": "server_error", "error_description": f"incident {incident}"}))
    document = {"title": _TITLES[500], "status": 500, "code": "internal", "incident": incident}
    return Response(500, [_PROBLEM], _encode(document))


def _without_texts(error: BaseException) -> str:
    """Format types and places of an exception and its causes, and the reasons of dutchdoor's own errors."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines.extend(line.rstrip() for line in traceback.format_tb(current.__traceback__, limit=-20))
        own = f": {current.reason}" if isinstance(current, DutchdoorError) and current.reason else ""
        lines.append(f"{type(current).__module__}.{type(current).__qualname__}{own}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n".join(lines)
