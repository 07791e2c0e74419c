"""An application in Flask with users of its own, in a table."""

from __future__ import annotations

import os
import sqlite3
from typing import Any, NamedTuple

from flask import Flask, current_app
from settings import SETTINGS

from dutchdoor import ExternalUsers
from dutchdoor.flask import Auth, login_required


class Member(NamedTuple):
    id: int
    login: str


def row(statement: str, *values: str) -> Any:
    assert current_app.name == "ownusers_app"
    with sqlite3.connect("members.db") as members:
        return members.execute(statement, values).fetchone()


def authenticate(login: str, password: str) -> int | None:
    found = row("SELECT id FROM members WHERE login = ? AND password = ?", login, password)
    return found[0] if found else None


def load(subject: str) -> Member | None:
    found = row("SELECT id, login FROM members WHERE id = ?", subject)
    return Member(*found) if found else None


app = Flask(__name__)
settings = {name: given for name, given in SETTINGS.items() if name != "hasher"}
auth = Auth(app, **settings, users=ExternalUsers(authenticate=authenticate, load=load))
current_user: Member = auth.current_user


@app.get("/")
def index() -> dict[str, str]:
    return {"index": "the application's"}


@app.get("/hello")
@login_required
def hello() -> dict[str, Any]:
    return {"hello": current_user.login, "process": os.getpid()}
