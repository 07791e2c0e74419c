"""An application that embeds dutchdoor and answers `/me` as the peers do. uvicorn serves `benchmarks.ours:app`.

SQLITE_PATH names the file, ROTATION the policy's rotation. Here and nowhere in the product the password hash can be
left out (HASH=none, one SHA-256 as in every peer), and limits are out of reach: this measures the work, not a 429.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

from msgspec.json import encode

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import PasswordHasher
from dutchdoor.errors import NotAuthenticated
from dutchdoor.model.policy import Policy
from dutchdoor.model.rate_limits import Limit, Limits


class NoHash(PasswordHasher):
    """One SHA-256, so that a log-in costs what the framework and the storage cost."""

    async def hash(self, password: str) -> str:
        return hashlib.sha256(password.encode()).hexdigest()

    async def verify(self, password: str, encoded: str) -> bool:
        return hmac.compare_digest(await self.hash(password), encoded)

    def needs_rehash(self, encoded: str) -> bool:
        return False


def unlimited() -> Limits:
    names = Limits.__struct_fields__
    return Limits(**{name: Limit(name=name, count=10**9, per_seconds=1.0, burst=10**9) for name in names})


path = os.environ["SQLITE_PATH"]
strict = os.environ.get("ROTATION") == "strict"
auth = Auth(
    f"sqlite:///{path}",
    master_key=f"{path}.keys",
    policy=Policy(rotation="strict", refresh_window=0.0) if strict else Policy(),
    limits=unlimited(),
    hasher=NoHash() if os.environ["HASH"] == "none" else None,
)
door = auth.asgi()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/me":
        await me(scope, send)
    else:
        await door(scope, receive, send)


async def me(scope: dict[str, Any], send: Any) -> None:
    try:
        principal = await auth.principal(scope)
    except NotAuthenticated:
        principal = None
    status = 401 if principal is None else 200
    body = b"{}" if principal is None else encode({"user_id": principal.subject, "ok": True})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
