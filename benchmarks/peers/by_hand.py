"""What people build by hand: FastAPI + PyJWT + a blocklist in Redis, and Starlette + sessions in Redis.

As articles write them: HS256, one secret, `blocked:{jti}` until the token expires; a random id in a cookie that names
JSON with two weeks to live, renewed by each use. Passwords are left out: each pattern hashes them alike.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from jwt.exceptions import InvalidTokenError
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

KEY = "a benchmark's key, 50 characters and no secret at all"
LIFETIME = 1800
TWO_WEEKS = 14 * 86400
bearer = OAuth2PasswordBearer(tokenUrl="token")


class Tokens:
    """PyJWT with a blocklist."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def issue(self, subject: str) -> str:
        now = int(time.time())
        claims = {"sub": subject, "iat": now, "exp": now + LIFETIME, "jti": secrets.token_urlsafe(16)}
        return jwt.encode(claims, KEY, algorithm="HS256")

    async def user(self, request: Request) -> dict[str, Any]:
        token = await bearer(request)
        try:
            claims: dict[str, Any] = jwt.decode(token or "", KEY, algorithms=["HS256"])
        except InvalidTokenError:
            raise HTTPException(401) from None
        if await self.redis.exists(f"blocked:{claims['jti']}"):
            raise HTTPException(401)
        return claims

    async def log_out(self, claims: dict[str, Any]) -> None:
        await self.redis.set(f"blocked:{claims['jti']}", 1, ex=max(1, claims["exp"] - int(time.time())))


class Sessions:
    """A random id that names JSON in Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def start(self, subject: str) -> str:
        session_id = secrets.token_urlsafe(32)
        kept = {"user": subject, "at": time.time(), "agent": "Firefox on Linux", "address": "127.0.0.1"}
        await self.redis.set(f"session:{session_id}", json.dumps(kept), ex=TWO_WEEKS)
        return session_id

    async def user(self, request: Request) -> dict[str, Any]:
        kept = await self.redis.getex(f"session:{request.cookies.get('session', '')}", ex=TWO_WEEKS)
        if kept is None:
            raise HTTPException(401)
        found: dict[str, Any] = json.loads(kept)
        return found

    async def log_out(self, session_id: str) -> None:
        await self.redis.delete(f"session:{session_id}")


def tokens() -> FastAPI:
    app, own = FastAPI(), Tokens(Redis.from_url(os.environ["BY_HAND_REDIS"]))
    User = Annotated[dict[str, Any], Depends(own.user)]  # noqa: N806 - a type

    @app.post("/login")
    async def login():
        return {"access_token": own.issue("ada")}

    async def me(claims):
        return {"user": claims["sub"]}

    async def logout(claims):
        await own.log_out(claims)
        return {}

    me.__annotations__ = logout.__annotations__ = {"claims": User}
    app.get("/me")(me)
    app.post("/logout")(logout)
    return app


def sessions() -> Starlette:
    own = Sessions(Redis.from_url(os.environ["BY_HAND_REDIS"]))

    async def login(_request: Request) -> JSONResponse:
        answer = JSONResponse({})
        answer.set_cookie("session", await own.start("ada"), httponly=True, samesite="lax", max_age=TWO_WEEKS)
        return answer

    async def me(request: Request) -> JSONResponse:
        return JSONResponse({"user": (await own.user(request))["user"]})

    async def logout(request: Request) -> JSONResponse:
        await own.log_out(request.cookies["session"])
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/login", login, methods=["POST"]),
            Route("/me", me),
            Route("/logout", logout, methods=["POST"]),
        ]
    )
