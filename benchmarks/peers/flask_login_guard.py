"""Flask-Login over Flask-Session, asked in its own process: sessions and users are in SQLite, through Flask-SQLAlchemy.

A bearer token is looked up by Flask-Login's `request_loader`, as its documentation shows. `python flask_login_guard.py
signed` leaves Flask-Session out: then Flask's signed cookie is the session, which nobody can end.
SQLITE_PATH names the file.
"""

from __future__ import annotations

import os
import secrets
import sys

from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from in_process import SignIn, bearer, serve_wsgi
from sqlalchemy import event

bare, app = Flask("bare"), Flask("app")
app.config.update(
    SECRET_KEY="a benchmark's key, 50 characters and no secret at all",
    SQLALCHEMY_DATABASE_URI="sqlite:///" + os.environ["SQLITE_PATH"],
)
db = SQLAlchemy(app)


class User(UserMixin, db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80))


class ApiKey(db.Model):
    key = db.Column(db.String(64), primary_key=True)
    user_id = db.Column(db.ForeignKey(User.id))


with app.app_context():

    @event.listens_for(db.engine, "connect")
    def set_pragmas(connection, _record) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    if sys.argv[1] == "session":
        app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db)
        Session(app)
    db.create_all()
    db.session.add(User(name="bench"))
    db.session.commit()

login_manager = LoginManager(app)


@login_manager.user_loader
def load_user(user_id):
    return db.session.get(User, int(user_id))


@login_manager.request_loader
def load_user_from_request(sent):
    scheme, _, key = sent.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    return db.session.scalars(db.select(User).join(ApiKey).where(ApiKey.key == key)).first()


@bare.get("/me")
def anyone():
    return {"user_id": "0", "ok": True}


@app.get("/me")
@login_required
def me():
    return {"user_id": current_user.id, "ok": True}


@app.post("/login")
def login():
    user = db.session.scalars(db.select(User).where(User.name == request.json["username"])).one()
    login_user(user)
    return {"ok": True}


@app.post("/token")
def token():
    user = db.session.scalars(db.select(User).where(User.name == request.json["username"])).one()
    key = ApiKey(key=secrets.token_urlsafe(32), user_id=user.id)
    db.session.add(key)
    db.session.commit()
    return {"token": key.key}


ACCOUNT = {"username": "bench"}
serve_wsgi(
    bare,
    app,
    {
        "cookie": SignIn("/login", ACCOUNT, lambda answer: answer.cookie()),
        "bearer": SignIn("/token", ACCOUNT, bearer("token")),
    },
)
