"""An application that is loaded, and its verifier used, before the server forks: `gunicorn --preload`."""

from __future__ import annotations

import os

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable

verify = Verifier(os.environ["ISSUER"], key=os.environ["KEY"])
# Used in the parent: it has a thread, a connection and a lease by now, none of which its children may take for theirs.
verify(os.environ["TOKEN"])
PARENT = os.getpid()


def application(environ, start_response):
    try:
        verify(environ["HTTP_AUTHORIZATION"].removeprefix("Bearer "))
        status = "200 OK"
    except InvalidToken:
        status = "401 Unauthorized"
    except Unavailable:
        status = "503 Service Unavailable"
    start_response(status, [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {PARENT}".encode()]
