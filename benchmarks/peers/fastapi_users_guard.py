"""fastapi-users, asked in its own process: the database strategy by cookie, the JWT strategy by bearer token."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_users_app import app
from in_process import SignIn, bearer, serve_asgi

ACCOUNT = {"username": "bench@example.com", "password": "correct horse"}
bare = FastAPI()


@bare.get("/me")
async def anyone():
    return {"user_id": "0", "ok": True}


serve_asgi(
    bare,
    app,
    {
        "cookie": SignIn("/cookie/login", ACCOUNT, lambda answer: answer.cookie(), "/cookie/me", form=True),
        "bearer": SignIn("/jwt/login", ACCOUNT, bearer("access_token"), "/jwt/me", form=True),
    },
)
