"""A plain WSGI service of its own, that knows who is asking by the access token alone: no framework at all.

    pip install dutchdoor
    dutchdoor serve --audience api                      # elsewhere: the authority, at http://localhost:8000
    python examples/verifier_wsgi.py                    # this service, at http://localhost:8100

Under `gunicorn --preload` or any other server that forks, each worker follows the authority by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import make_server

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable

# It connects at the first request, not before. Where nothing runs between two requests (functions, uWSGI without
# threads), add follow="on demand".
verifier = Verifier(os.environ.get("AUTHORITY", "http://localhost:8000"), audience="api")

Start = Callable[[str, list[tuple[str, str]]], object]


def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Greet the client that proves who it is."""
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer":
        return answer(start, "401 Unauthorized", {"code": "not_authenticated"}, ("WWW-Authenticate", "Bearer"))
    try:
        principal = verifier(token.strip())
    except InvalidToken as refusal:
        challenge = f'Bearer error="invalid_token", error_description="{refusal.code}"'
        return answer(start, "401 Unauthorized", {"code": refusal.code}, ("WWW-Authenticate", challenge))
    except Unavailable as trouble:
        # Never a 401: an outage of the authority must not sign people out.
        again = str(round(trouble.retry_after))
        return answer(start, "503 Service Unavailable", {"code": trouble.code}, ("Retry-After", again))
    return answer(start, "200 OK", {"hello": principal.subject, "roles": principal.roles})


def answer(start: Start, status: str, content: object, *headers: tuple[str, str]) -> list[bytes]:
    start(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *headers])
    return [json.dumps(content).encode()]


if __name__ == "__main__":
    with make_server("127.0.0.1", 8100, app) as server:
        server.serve_forever()
