"""crudauth, asked in its own process. Its sessions are in the database (`database`), or in the memory of one process
(`memory`), which it uses if no other is named. SQLITE_PATH names the file.
"""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import Annotated

from crudauth import BearerTransport, CRUDAuth, DatabaseStore, Principal, SessionTransport
from crudauth.models import AuthUserMixin
from fastapi import Depends, FastAPI
from in_process import SignIn, bearer, serve_asgi
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

engine = create_async_engine("sqlite+aiosqlite:///" + os.environ["SQLITE_PATH"])
new_session = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def set_pragmas(connection, _record) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class Base(DeclarativeBase):
    pass


class User(Base, AuthUserMixin):
    __tablename__ = "users"


async def database():
    async with new_session() as session:
        yield session


store = DatabaseStore(new_session) if sys.argv[1] == "database" else None
auth = CRUDAuth(
    session=database,
    user_model=User,
    SECRET_KEY="a benchmark's key, 50 characters and no secret at all",
    transports=[SessionTransport(max_sessions_per_user=100), BearerTransport(access_ttl=3600)],
    database_store=store,
    warn_on_memory_backend=False,
)


@asynccontextmanager
async def lifespan(_app: FastAPI):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    if store is not None:
        await store.create_tables()
    await auth.initialize()
    yield
    await auth.shutdown()


bare, app = FastAPI(), FastAPI(lifespan=lifespan)
app.include_router(auth.router)


@bare.get("/me")
async def anyone():
    return {"user_id": "0", "ok": True}


@app.get("/mine")
async def me(me: Annotated[Principal, Depends(auth.current_user())]):
    return {"user_id": str(me.user_id), "ok": True}


ACCOUNT = {"username": "bench", "password": "correct horse 9"}
serve_asgi(
    bare,
    app,
    {
        "cookie": SignIn("/login", ACCOUNT, lambda answer: answer.cookie(), "/mine", form=True),
        "bearer": SignIn("/token", ACCOUNT, bearer("access_token"), "/mine", form=True),
    },
    SignIn("/register", {**ACCOUNT, "email": "bench@example.com"}, lambda _: {}),
)
