"""fastapi-users as its documentation sets it up: the database strategy under /db, and under /cookie with its cookie
transport; the JWT strategy under /jwt.

SQLITE_PATH names the file. HASH=none puts SHA-256 in place of the password hash, HASH=argon2id is Argon2id as
everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, CookieTransport, JWTStrategy
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users.password import PasswordHelper
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import SQLAlchemyAccessTokenDatabase, SQLAlchemyBaseAccessTokenTableUUID
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

KEY = "a benchmark's key, 50 characters and no secret at all"
DAY = 86400


class NoHash:
    """One SHA-256, so that a log-in costs what the framework and the storage cost."""

    @classmethod
    def identify(cls, hash: str | bytes) -> bool:
        return True

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        return hashlib.sha256(password.encode() if isinstance(password, str) else password).hexdigest()

    def verify(self, password: str | bytes, hash: str | bytes) -> bool:
        return hmac.compare_digest(self.hash(password), hash if isinstance(hash, str) else hash.decode())

    def check_needs_rehash(self, hash: str | bytes) -> bool:
        return False


no_hash = os.environ["HASH"] == "none"
passwords = PasswordHelper(
    PasswordHash((NoHash() if no_hash else Argon2Hasher(time_cost=2, memory_cost=19456, parallelism=1),))
)


# --- tables ----------------------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class User(SQLAlchemyBaseUserTableUUID, Base):
    pass


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    pass


engine = create_async_engine("sqlite+aiosqlite:///" + os.environ["SQLITE_PATH"])
new_session = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def set_pragmas(connection, _record) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


# --- the documentation's dependencies --------------------------------------------------------------------------------


class Users(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = KEY
    verification_token_secret = KEY


async def database() -> AsyncGenerator[AsyncSession]:
    async with new_session() as session:
        yield session


async def user_rows(session: Annotated[AsyncSession, Depends(database)]):
    yield SQLAlchemyUserDatabase(session, User)


async def token_rows(session: Annotated[AsyncSession, Depends(database)]):
    yield SQLAlchemyAccessTokenDatabase(session, AccessToken)


async def users(rows: Annotated[SQLAlchemyUserDatabase, Depends(user_rows)]):
    yield Users(rows, passwords)


def database_strategy(rows: Annotated[SQLAlchemyAccessTokenDatabase, Depends(token_rows)]) -> DatabaseStrategy:
    return DatabaseStrategy(rows, lifetime_seconds=DAY)


def jwt_strategy() -> JWTStrategy:
    return JWTStrategy(secret=KEY, lifetime_seconds=DAY)


by_database = AuthenticationBackend("db", BearerTransport("db/login"), database_strategy)
by_jwt = AuthenticationBackend("jwt", BearerTransport("jwt/login"), jwt_strategy)
by_cookie = AuthenticationBackend("cookie", CookieTransport(), database_strategy)
with_database = FastAPIUsers[User, uuid.UUID](users, [by_database])
with_jwt = FastAPIUsers[User, uuid.UUID](users, [by_jwt])
with_cookie = FastAPIUsers[User, uuid.UUID](users, [by_cookie])


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with new_session() as session:
        session.add(User(email="bench@example.com", hashed_password=passwords.hash("correct horse"), is_active=True))
        await session.commit()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.include_router(with_database.get_auth_router(by_database), prefix="/db")
app.include_router(with_jwt.get_auth_router(by_jwt), prefix="/jwt")
app.include_router(with_cookie.get_auth_router(by_cookie), prefix="/cookie")


@app.get("/db/me")
async def me_by_database(user: Annotated[User, Depends(with_database.current_user(active=True))]):
    return {"user_id": str(user.id), "ok": True}


@app.get("/jwt/me")
async def me_by_jwt(user: Annotated[User, Depends(with_jwt.current_user(active=True))]):
    return {"user_id": str(user.id), "ok": True}


@app.get("/cookie/me")
async def me_by_cookie(user: Annotated[User, Depends(with_cookie.current_user(active=True))]):
    return {"user_id": str(user.id), "ok": True}
