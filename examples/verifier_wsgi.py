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

from dutchdoor.wsgi import Auth, current_principal

# It connects at the first request, not before. Where nothing runs between two requests (functions, uWSGI without
# threads), add follow="on demand".
auth = Auth(issuer=os.environ.get("AUTHORITY", "http://localhost:8000"), audience="api")


def hello(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Greet the client that proves who it is."""
    principal = current_principal(environ)
    start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps({"hello": principal.subject, "roles": principal.roles}).encode()]


app = auth.around(hello)

if __name__ == "__main__":
    with make_server("127.0.0.1", 8100, app) as server:
        server.serve_forever()
