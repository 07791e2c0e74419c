"""A FastAPI application whose people sign in by passkeys, by Google, or by a password, in one file.

    pip install 'dutchdoor[fastapi]' uvicorn
    GOOGLE_ID=... GOOGLE_SECRET=... uvicorn --app-dir examples passkeys_app:app

Then open http://localhost:8000/hello. At Google, the address to come back to is
http://localhost:8000/auth/issuers/google/callback.
"""

from os import environ

from fastapi import FastAPI

from dutchdoor import issuers
from dutchdoor.fastapi import Auth, CurrentUser

app = FastAPI()
google = issuers.google(client_id=environ["GOOGLE_ID"], client_secret=environ["GOOGLE_SECRET"])
auth = Auth(app, issuers=[google])


@app.get("/hello")
async def hello(user: CurrentUser) -> dict[str, str | None]:
    return {"hello": user.email}
