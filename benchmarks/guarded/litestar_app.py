"""dutchdoor in Litestar."""

from __future__ import annotations

from litestar import Litestar, get

from benchmarks.guarded.ours import REGISTER, WAYS, settings
from benchmarks.peers.in_process import serve_asgi
from dutchdoor.litestar import Auth, CurrentUser


@get("/me")
async def anyone() -> dict[str, object]:
    return {"user_id": "0", "ok": True}


@get("/me")
async def me(current_user: CurrentUser) -> dict[str, object]:
    return {"user_id": current_user.id, "ok": True}


bare = Litestar([anyone])
app = Litestar([me], plugins=[Auth(**settings())])

if __name__ == "__main__":
    serve_asgi(bare, app, WAYS, REGISTER)
