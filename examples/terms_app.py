"""A FastAPI application whose people accept its terms of use before they are signed in, in one file.

    pip install 'dutchdoor[fastapi]' uvicorn
    python examples/terms_app.py

Then register at http://localhost:8000/auth/register.
"""

from __future__ import annotations

import sqlite3
from html import escape

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dutchdoor import SignInStep
from dutchdoor.fastapi import Auth, CurrentUser

VERSION = "2026-03"
"""Of the terms. With another one, everyone is asked again at the next sign-in."""
PAGE = """<!doctype html><html lang="en"><title>Terms of use</title><h1>Terms of use</h1><p>Hello {email}. Be kind.</p>
<form method="post" action="/auth/login/step">
  <input type="hidden" name="method" value="terms"><input type="hidden" name="next" value="{next}">
  <button name="response" value="{version}">I accept</button>
</form></html>"""

rows = sqlite3.connect("terms.db", check_same_thread=False, isolation_level=None)
rows.execute("CREATE TABLE IF NOT EXISTS accepted (subject TEXT PRIMARY KEY, version TEXT NOT NULL)")


def has_to_accept(subject: str) -> bool:
    has = rows.execute("SELECT 1 FROM accepted WHERE subject = ? AND version = ?", (subject, VERSION)).fetchone()
    return has is None


def accept(subject: str, response: str) -> str | None:
    if response != VERSION:  # a page that was open when the terms changed
        return None
    rows.execute("INSERT OR REPLACE INTO accepted VALUES (?, ?)", (subject, response))
    return ""


app = FastAPI()
terms = SignInStep("terms", page="/terms", asks=has_to_accept, takes=accept)
auth = Auth(app, "sqlite:///example.db", master_key="example.keys", steps=[terms], home="/hello")


@app.get("/terms")
async def show_terms(request: Request, next: str = "") -> Response:
    waiting = await auth.waiting(request)
    if waiting is None:
        return RedirectResponse("/auth/login", 303)
    return HTMLResponse(PAGE.format(email=escape(waiting.email or ""), next=escape(next), version=VERSION))


@app.get("/hello")
async def hello(user: CurrentUser) -> dict[str, str | None]:
    return {"hello": user.email}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
