"""A FastAPI service that knows who sends a request by the access token alone.

    pip install dutchdoor fastapi uvicorn
    dutchdoor serve --audience api                      # elsewhere: the server that signs, at http://localhost:8000
    python examples/verifier_fastapi.py                 # this service, at http://localhost:8100

A log-out at the server is a log-out here when its answer says `fenced`, and no request waits for the server.
"""

from __future__ import annotations

import os

import uvicorn
from fastapi import FastAPI

from dutchdoor.fastapi import Auth, CurrentPrincipal

app = FastAPI()
# DUTCHDOOR_VERIFIER_KEY holds what `dutchdoor verifier add` printed; a server on this machine needs none.
auth = Auth(app, issuer=os.environ.get("AUTHORITY", "http://localhost:8000"), audience="api")


@app.get("/hello")
async def hello(principal: CurrentPrincipal) -> dict[str, str | list[str]]:
    return {"hello": principal.subject, "roles": list(principal.roles)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8100)
