"""A Starlette application with accounts and log-in, in one file.

    pip install 'dutchdoor[starlette]' uvicorn
    python examples/starlette_app.py

Then: curl -c jar localhost:8000/auth/register --json '{"email": "ada@example.com", "password": "a door in two halves"}'
"""

from __future__ import annotations

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dutchdoor.starlette import Auth

auth = Auth(None, "sqlite:///example.db", master_key="example.keys", product="The example")


async def index(request: Request) -> JSONResponse:
    return JSONResponse({"hello": request.user.display_name or "stranger"})


@auth.require()
async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"hello": request.user.email})


@auth.require(role="customer")
async def order(request: Request) -> JSONResponse:
    return JSONResponse({"ordered_by": request.user.id})


app = Starlette(routes=[Route("/", index), Route("/hello", hello), Route("/orders", order, methods=["POST"])])
auth.attach(app)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
