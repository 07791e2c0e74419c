"""A FastAPI service of its own, that knows who is asking by the access token alone.

    pip install dutchdoor fastapi uvicorn
    dutchdoor serve --audience api                      # elsewhere: the authority, at http://localhost:8000
    python examples/verifier_fastapi.py                 # this service, at http://localhost:8100

Log-out at the authority is log-out here when its answer says `fenced`, and no request waits for the authority.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dutchdoor import Principal, Verifier
from dutchdoor.errors import InvalidToken, Unavailable

# DUTCHDOOR_VERIFIER_KEY holds what `dutchdoor verifier add` printed; a server on this machine asks for none.
verifier = Verifier(os.environ.get("AUTHORITY", "http://localhost:8000"), audience="api")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with verifier:  # starts to follow before the first request, and ends with the service
        yield


app = FastAPI(lifespan=lifespan)
bearer = HTTPBearer(auto_error=False)


async def current(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Principal:
    """Who this is. 401 with the reason's code: on `token_stale`, and on any other, a client refreshes once."""
    if sent is None:
        raise HTTPException(401, "Sign in to continue.", {"WWW-Authenticate": "Bearer"})
    try:
        return await verifier.check(sent.credentials)
    except InvalidToken as refusal:
        challenge = f'Bearer error="invalid_token", error_description="{refusal.code}"'
        raise HTTPException(401, {"code": refusal.code}, {"WWW-Authenticate": challenge}) from None
    except Unavailable as trouble:
        # Never a 401: an outage of the authority must not sign people out.
        raise HTTPException(503, str(trouble), {"Retry-After": str(round(trouble.retry_after))}) from None


Current = Annotated[Principal, Depends(current)]


@app.get("/hello")
async def hello(principal: Current) -> dict[str, str | list[str]]:
    return {"hello": principal.subject, "roles": list(principal.roles)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8100)
