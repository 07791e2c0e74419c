"""A function behind an HTTP API of AWS's API Gateway (payload format 2.0) that knows who calls it by the access token.

    ISSUER=https://auth.example.com AUDIENCE=orders DUTCHDOOR_VERIFIER_KEY=ddv1_...   # `dutchdoor verifier add orders`

`handler` is the function itself, and `authorizer` a Lambda authorizer (simple responses) in front of other functions.
"""

from __future__ import annotations

import json
import os
from typing import Any

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable

# Outside of the handler: an environment keeps it from one call to the next. The first call reads keys and log.
verify = Verifier(os.environ["ISSUER"], audience=os.environ.get("AUDIENCE"), follow="on demand")


def bearer(event: dict[str, Any]) -> str:
    scheme, _, token = event.get("headers", {}).get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Greet the client that proves who it is."""
    try:
        principal = verify(bearer(event))
    except InvalidToken:
        return answer(401, {}, **{"www-authenticate": 'Bearer error="invalid_token"'})
    except Unavailable as trouble:  # never 401: an outage must not sign people out
        return answer(503, {}, **{"retry-after": str(round(trouble.retry_after) or 1)})
    return answer(200, {"hello": principal.subject, "roles": principal.roles})


def answer(status: int, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    headers |= {"content-type": "application/json", "cache-control": "no-store"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}


def authorizer(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Say who calls. Set the authorizer's cache to 0 seconds: a cached answer outlives a log-out."""
    try:
        principal = verify(bearer(event))
    except InvalidToken:
        raise Exception("Unauthorized") from None  # noqa: TRY002 - the text that API Gateway answers with 401
    return {"isAuthorized": True, "context": {"sub": principal.subject, "roles": " ".join(principal.roles)}}
