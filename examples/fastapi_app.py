"""A FastAPI application with accounts, log-in and pages of its own, in one file.

    pip install 'dutchdoor[app]' fastapi uvicorn
    python examples/fastapi_app.py

Then: curl -c jar localhost:8000/auth/register --json '{"email": "ada@example.com", "password": "a door in two halves"}'
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request

from dutchdoor import Auth, Principal
from dutchdoor.errors import NotAuthenticated

auth = Auth("sqlite:///example.db", master_key="example.keys", product="The example")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with auth:  # a wrong setting is found here, and not at the first request
        yield


app = FastAPI(lifespan=lifespan)
# Answers 401, 403 or 503 where dutchdoor raises. Never a 401 for an outage: it must not sign people out.
app.add_middleware(auth.error_middleware)


async def current(request: Request) -> Principal:
    """Who this is, by cookie or bearer token."""
    principal = await auth.principal(request)
    if principal is None:
        raise NotAuthenticated
    return principal


Current = Annotated[Principal, Depends(current)]


@app.get("/hello")
async def hello(principal: Current) -> dict[str, str]:
    return {"hello": principal.email or principal.subject}


@app.post("/orders")
async def order(principal: Current) -> dict[str, str]:
    if not principal.has_role("customer"):
        raise HTTPException(403, "Only customers order.")
    return {"ordered_by": principal.subject}


app.mount("/", auth.asgi())  # last: it answers each path that no route above takes

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
