"""dutchdoor in Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.guarded.ours import REGISTER, WAYS, settings
from benchmarks.peers.in_process import serve_asgi
from dutchdoor.starlette import Auth

auth = Auth(None, **settings())


async def anyone(_: Request) -> JSONResponse:
    return JSONResponse({"user_id": "0", "ok": True})


@auth.require()
async def me(request: Request) -> JSONResponse:
    return JSONResponse({"user_id": request.user.id, "ok": True})


bare = Starlette(routes=[Route("/me", anyone)])
app = Starlette(routes=[Route("/me", me)])
auth.attach(app)

if __name__ == "__main__":
    serve_asgi(bare, app, WAYS, REGISTER)
