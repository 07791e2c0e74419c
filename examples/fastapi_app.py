"""A FastAPI application with accounts and log-in, in one file.

    pip install 'dutchdoor[fastapi]' uvicorn
    python examples/fastapi_app.py

Then: curl -c jar localhost:8000/auth/register --json '{"email": "ada@example.com", "password": "a door in two halves"}'
"""

from __future__ import annotations

import uvicorn
from fastapi import Depends, FastAPI

from dutchdoor.fastapi import Auth, CurrentPrincipal, CurrentUser, OptionalUser

app = FastAPI()
auth = Auth(app, "sqlite:///example.db", master_key="example.keys", product="The example")


@app.get("/")
async def index(user: OptionalUser) -> dict[str, str]:
    return {"hello": user.display_name if user else "stranger"}


@app.get("/hello")
async def hello(user: CurrentUser) -> dict[str, str | None]:
    return {"hello": user.email}


@app.post("/orders", dependencies=[Depends(auth.require(role="customer"))])
async def order(principal: CurrentPrincipal) -> dict[str, str]:
    return {"ordered_by": principal.subject}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
