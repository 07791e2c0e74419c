"""Users in a model of SQLAlchemy, in real databases: SQLite by both kinds of session, PostgreSQL by asyncpg."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import argon2
import bcrypt
import pytest
import werkzeug.security
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from flask import Flask
from sqlalchemy import ForeignKey, String, create_engine, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    mapped_column,
    relationship,
    scoped_session,
    selectinload,
    sessionmaker,
)
from standins import HOME

import dutchdoor.flask
from dutchdoor import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Misconfigured, WrongCredentials
from dutchdoor.services.browser import Browser
from dutchdoor.sqlalchemy import SQLAlchemyUsers

PASSWORD = "a door in two halves"


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    password_hash: Mapped[str | None] = mapped_column(String(200))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_admin: Mapped[bool] = mapped_column(default=False)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    team: Mapped[Team | None] = relationship()


class Named(Base):
    __tablename__ = "named"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    secret: Mapped[str]


class Short(Base):
    __tablename__ = "short"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    password_hash: Mapped[str] = mapped_column(String(60))


class Pair(Base):
    __tablename__ = "pairs"
    one: Mapped[int] = mapped_column(primary_key=True)
    two: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    password_hash: Mapped[str]


class Database:
    """A database with the tables, and what makes its sessions."""

    def __init__(self, sessions: Any) -> None:
        self.sessions = sessions

    async def add(self, row: Any) -> Any:
        if isinstance(self.sessions, async_sessionmaker):
            async with self.sessions(expire_on_commit=False) as session, session.begin():
                session.add(row)
        else:
            with self.sessions(expire_on_commit=False) as session, session.begin():
                session.add(row)
        return row

    async def hash_of(self, model: Any = User) -> str:
        column = model.password_hash if model is User else model.secret
        if isinstance(self.sessions, async_sessionmaker):
            async with self.sessions() as session:
                return (await session.execute(select(column))).scalar_one()
        with self.sessions() as session:
            return session.execute(select(column)).scalar_one()


@pytest.fixture(params=["sqlite", "sqlite async", pytest.param("postgresql", marks=pytest.mark.long)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/users.db")
        Base.metadata.create_all(engine)
        yield Database(sessionmaker(engine))
        engine.dispose()
        return
    url = f"sqlite+aiosqlite:///{tmp_path}/users.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+asyncpg://")
    made = create_async_engine(url)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    yield Database(async_sessionmaker(made))
    await made.dispose()


def users_of(database: Database, model: Any = User, **named: Any) -> Any:
    return SQLAlchemyUsers(database.sessions, model, hasher=PasswordHasher(CHEAPEST), **named)


async def sign_in(auth: Auth, login: str = "ada@example.com", password: str = PASSWORD) -> Any:
    signed_in, _ = await auth.directory.sign_in.by_password(login, password, Browser(HOME), mode="hybrid")
    return signed_in


def django_hash(password: str) -> str:
    return PBKDF2PasswordHasher().encode(password, "saltsaltsalt", 1000)


HASHES: dict[str, Callable[[str], str]] = {
    "pwdlib, argon2-cffi, passlib": argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash,
    "passlib bcrypt": lambda password: bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode(),
    "werkzeug": lambda password: werkzeug.security.generate_password_hash(password, "scrypt:16384:8:1"),
    "werkzeug pbkdf2": lambda password: werkzeug.security.generate_password_hash(password, "pbkdf2:sha256:1000"),
    "django": django_hash,
}


@pytest.mark.parametrize("hashed", HASHES.values(), ids=HASHES)
async def test_a_hash_of_another_library_signs_in_and_is_upgraded(
    database: Database, hashed: Callable[[str], str]
) -> None:
    """The right password alone signs in; a hash that is not ours is replaced in the same column, once."""
    ada = await database.add(User(email="ada@example.com", password_hash=hashed(PASSWORD)))
    old = await database.hash_of()
    async with Auth("memory:", users=users_of(database)) as auth:
        with pytest.raises(WrongCredentials):
            await sign_in(auth, password="another")
        assert await database.hash_of() == old
        assert (await sign_in(auth)).account.subject == str(ada.id)
        new = await database.hash_of()
        assert new.startswith("$argon2id$v=19$")
        await sign_in(auth)
        assert await database.hash_of() == new
        with pytest.raises(WrongCredentials):
            await sign_in(auth, password="another")


async def test_the_row_is_what_a_route_gets(database: Database) -> None:
    """`load` returns the row, with what the options load, and None for one that is gone or not active."""
    named = {
        "active": "is_active",
        "options": [selectinload(User.team)],
        "roles": lambda user: ["admin"] * user.is_admin,
    }
    users = users_of(database, **named)
    hashed = HASHES["django"](PASSWORD)
    row = User(email="ada@example.com", password_hash=hashed, is_admin=True, team=Team(name="blue"))
    await database.add(row)
    await database.add(User(email="bob@example.com", password_hash=hashed, is_active=False))
    async with Auth("memory:", users=users) as auth:
        signed_in = await sign_in(auth)
        principal = await auth.authority.verify(signed_in.access_token)
        assert principal.roles == ("admin",)
        found = await auth.directory.external.user_of(principal)  # type: ignore[union-attr]
        assert (found.email, found.team.name) == ("ada@example.com", "blue")
        for login in ("bob@example.com", "none@example.com", "ADA@example.com"):
            with pytest.raises(WrongCredentials):
                await sign_in(auth, login)


async def test_attributes_keys_and_conditions_are_the_models_own(database: Database) -> None:
    """A UUID as key, other names, and a condition of one's own for what was typed."""
    row = await database.add(Named(name="Ada", secret=HASHES["django"](PASSWORD)))
    condition = lambda typed: func.lower(Named.name) == typed.lower()  # noqa: E731
    users = users_of(database, Named, login=condition, password="secret")
    async with Auth("memory:", users=users) as auth:
        assert (await sign_in(auth, "aDA")).account.subject == str(row.id)
        assert await auth.directory.external.load("no uuid") is None  # type: ignore[union-attr]


async def test_a_login_of_two_rows_signs_in_to_neither(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Without a unique index one login may be two people; the log says so. A row without a hash is no one's."""
    for hashed in (HASHES["django"](PASSWORD), HASHES["django"]("another")):
        await database.add(User(email="ada@example.com", password_hash=hashed))
    await database.add(User(email="sso@example.com", password_hash=None))
    async with Auth("memory:", users=users_of(database)) as auth:
        for login in ("ada@example.com", "sso@example.com"):
            with pytest.raises(WrongCredentials):
                await sign_in(auth, login)
    assert "a login belongs to two rows of User" in caplog.text and "ada@" not in caplog.text


async def test_an_upgrade_never_undoes_a_change_of_the_password(database: Database) -> None:
    """The stronger hash replaces the hash that was checked, and no newer one."""
    await database.add(User(email="ada@example.com", password_hash=HASHES["django"]("newer")))
    users = users_of(database)
    before = await database.hash_of()
    await users._replace(1, HASHES["django"](PASSWORD), PASSWORD)
    assert await database.hash_of() == before


async def test_without_upgrade_nothing_is_written(database: Database) -> None:
    """Another program may read the same column."""
    await database.add(User(email="ada@example.com", password_hash=HASHES["werkzeug"](PASSWORD)))
    old = await database.hash_of()
    async with Auth("memory:", users=users_of(database, upgrade=False)) as auth:
        await sign_in(auth)
    assert await database.hash_of() == old


def test_flask_gets_the_row_in_the_session_of_its_request(tmp_path: Path) -> None:
    """With a `scoped_session`, as Flask-SQLAlchemy has it, the row is attached: its team is loaded, a change saved."""
    engine = create_engine(f"sqlite:///{tmp_path}/users.db")
    Base.metadata.create_all(engine)
    db = scoped_session(sessionmaker(engine))
    db.add(User(email="ada@example.com", password_hash=HASHES["django"](PASSWORD), team=Team(name="blue")))
    db.commit()
    db.remove()
    app = Flask("shop")
    app.teardown_appcontext(lambda _: db.remove())
    auth = dutchdoor.flask.Auth(app, "memory:", users=SQLAlchemyUsers(db, User, hasher=PasswordHasher(CHEAPEST)))
    current_user: User = auth.current_user

    @app.get("/team")
    @dutchdoor.flask.login_required
    def team() -> dict[str, Any]:
        current_user.is_admin = True
        db.commit()
        return {"team": current_user.team.name if current_user.team else None}

    client = app.test_client()
    signed_in = {"email": "ada@example.com", "password": PASSWORD, "mode": "session"}
    assert client.post("/auth/login", json=signed_in).status_code == 200
    assert client.get("/team").json == {"team": "blue"}
    assert db.execute(select(User.is_admin)).scalar_one() is True
    db.remove()
    auth.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("sessions", "model", "named", "says"),
    [
        (lambda: None, User, {}, "the first argument makes sessions"),
        (sessionmaker(), dict, {}, "is no model of SQLAlchemy"),
        (sessionmaker(), User, {"login": "username"}, "User has no attribute 'username'"),
        (sessionmaker(), User, {"password": "hash"}, "User has no attribute 'hash'"),
        (sessionmaker(), User, {"active": "enabled"}, "User has no attribute 'enabled'"),
        (sessionmaker(), User, {"roles": "roles"}, "User has no attribute 'roles'"),
        (sessionmaker(), Pair, {}, "the primary key of Pair is not one column"),
        (sessionmaker(), Short, {}, "password_hash holds 60 characters"),
    ],
)
def test_what_does_not_fit_is_said_at_the_start(sessions: Any, model: Any, named: dict[str, Any], says: str) -> None:
    """A wrong attribute or key is an error at the start, and not at the first sign-in."""
    with pytest.raises(Misconfigured, match=says):
        SQLAlchemyUsers(sessions, model, **named)


def test_a_missing_sqlalchemy_is_named() -> None:
    """Without the package, the import names the extra."""
    code = "import sys; sys.modules['sqlalchemy'] = None; import dutchdoor.sqlalchemy"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'dutchdoor[sqlalchemy]'" in ran.stderr.splitlines()[-1]


def test_plain_sessions_take_no_greenlet() -> None:
    """Without greenlet, which SQLAlchemy brings for asynchronous sessions alone, plain sessions work."""
    code = """import sys; sys.modules["greenlet"] = None
from sqlalchemy import Column, Integer, String
from sqlalchemy.orm import declarative_base, sessionmaker
from dutchdoor.sqlalchemy import SQLAlchemyUsers
class User(declarative_base()):
    __tablename__ = "users"
    id, email, password_hash = Column(Integer, primary_key=True), Column(String), Column(String)
SQLAlchemyUsers(sessionmaker(), User)"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
