"""The limit: the sign-in page of dutchdoor from its template, and nothing else: no request is read, no header set."""

from __future__ import annotations

from dutchdoor.texts.languages import ENGLISH
from dutchdoor.web.pages.rendering import render

VALUES = {"registration": True, "own_users": False, "kept": {"email": "", "next": ""}, "error": None}
TYPE = (b"content-type", b"text/html; charset=utf-8")


async def app(scope, receive, send) -> None:
    if scope["type"] == "http":
        body = render("login", ENGLISH, **VALUES)
        headers = [TYPE, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
