"""dutchdoor in FastAPI."""

from __future__ import annotations

from fastapi import FastAPI

from benchmarks.guarded.ours import REGISTER, WAYS, settings
from benchmarks.peers.in_process import serve_asgi
from dutchdoor.fastapi import Auth, CurrentUser

bare, app = FastAPI(), FastAPI()
Auth(app, **settings())


@bare.get("/me")
async def anyone() -> dict[str, object]:
    return {"user_id": "0", "ok": True}


@app.get("/me")
async def me(user: CurrentUser) -> dict[str, object]:
    return {"user_id": user.id, "ok": True}


if __name__ == "__main__":
    serve_asgi(bare, app, WAYS, REGISTER)
