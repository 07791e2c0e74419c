"""The limit: an ASGI application that looks at nothing and always gives the answer the others give."""

from __future__ import annotations

BODY = b'{"user_id":"0190f3a2c1d84b6e9f70","ok":true}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))],
}


async def app(scope, receive, send) -> None:
    if scope["type"] == "http":
        await send(START)
        await send({"type": "http.response.body", "body": BODY})
