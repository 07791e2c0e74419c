"""The id of a request: with it the lines of the proxy, of this server and of the application are found together.

A configured proxy gives it in X-Request-ID. From any other sender the header is ignored, and an id is generated. The
response has it in the same header.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

from dutchdoor.web.forwarded import Edge
from dutchdoor.web.http import Request

__all__ = ["CURRENT", "current_request_id", "request_id"]

# Log injection: a proxy may pass on what its client sent. No space, quote or control character can end a field.
_WELL_FORMED = re.compile(rb"[A-Za-z0-9_.-]{8,128}")

CURRENT: ContextVar[Request | None] = ContextVar("dutchdoor_request", default=None)
"""The request that the current task answers."""


def request_id(request: Request, edge: Edge) -> str:
    """Return the id that a configured proxy gave to the request, if it is well-formed, or a new one."""
    given = request.by_name.get(b"x-request-id")
    if given is not None and _WELL_FORMED.fullmatch(given) and edge.came_through_proxy(request):
        return given.decode("ascii")
    return secrets.token_hex(16)


def current_request_id() -> str:
    """Return the id of the request that the current task answers, "" outside of a request.

    A timer or a task that a request started for all requests runs on in its context: it belongs to no request.
    """
    request = CURRENT.get()
    return "" if request is None or request.answered else request.id
