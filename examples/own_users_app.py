"""A FastAPI application that keeps its users in a table of its own.

    pip install 'dutchdoor[fastapi]' argon2-cffi uvicorn
    python examples/own_users_app.py ada      # asks for a password, adds the user, and serves

Then: curl -c jar localhost:8000/auth/login --json '{"email": "ada", "password": "...", "mode": "session"}'
"""

from __future__ import annotations

import getpass
import sqlite3
import sys
from typing import Annotated, Any, NamedTuple

import argon2
import uvicorn
from fastapi import Depends, FastAPI

from dutchdoor import ExternalUsers
from dutchdoor.fastapi import Auth


class Member(NamedTuple):
    id: int
    login: str


hasher = argon2.PasswordHasher()
NO_ONE = (None, hasher.hash("an unknown login takes as long as a wrong password"))


def row(statement: str, *values: str) -> Any:
    with sqlite3.connect("members.db") as members:
        members.execute("CREATE TABLE IF NOT EXISTS members (id INTEGER PRIMARY KEY, login TEXT UNIQUE, hash TEXT)")
        return members.execute(statement, values).fetchone()


def authenticate(login: str, password: str) -> int | None:
    subject, known = row("SELECT id, hash FROM members WHERE login = ?", login) or NO_ONE
    try:
        hasher.verify(known, password)
    except argon2.exceptions.VerifyMismatchError:
        return None
    return subject


def load(subject: str) -> Member | None:
    found = row("SELECT id, login FROM members WHERE id = ?", subject)
    return Member(*found) if found else None


app = FastAPI()
auth = Auth(app, "sqlite:///own_users.db", users=ExternalUsers(authenticate=authenticate, load=load))
CurrentUser = Annotated[Member, Depends(auth.current_user)]


@app.get("/hello")
async def hello(user: CurrentUser) -> dict[str, str]:
    return {"hello": user.login}


if __name__ == "__main__":
    for login in sys.argv[1:]:
        row("INSERT INTO members (login, hash) VALUES (?, ?)", login, hasher.hash(getpass.getpass()))
    uvicorn.run(app, host="127.0.0.1", port=8000)
