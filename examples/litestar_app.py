"""A Litestar application with accounts and log-in, in one file.

    pip install 'dutchdoor[litestar]' uvicorn
    python examples/litestar_app.py

Then: curl -c jar localhost:8000/auth/register --json '{"email": "ada@example.com", "password": "a door in two halves"}'
"""

from __future__ import annotations

import uvicorn
from litestar import Litestar, get, post

from dutchdoor.litestar import Auth, CurrentPrincipal, CurrentUser, OptionalUser

auth = Auth("sqlite:///example.db", master_key="example.keys", product="The example")


@get("/")
async def index(optional_user: OptionalUser) -> dict[str, str]:
    return {"hello": optional_user.display_name if optional_user else "stranger"}


@get("/hello")
async def hello(current_user: CurrentUser) -> dict[str, str | None]:
    return {"hello": current_user.email}


@post("/orders", guards=[auth.require(role="customer")])
async def order(current_principal: CurrentPrincipal) -> dict[str, str]:
    return {"ordered_by": current_principal.subject}


app = Litestar([index, hello, order], plugins=[auth])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
