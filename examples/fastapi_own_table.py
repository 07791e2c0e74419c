"""A FastAPI application whose users are a table of its own: open, signed-in, role and WebSocket routes.

    pip install 'dutchdoor[fastapi,sqlalchemy]' uvicorn websockets
    python examples/fastapi_own_table.py

Then: curl localhost:8000/users --json '{"email": "ada@example.com", "password": "a door in two halves"}'
      curl -c jar localhost:8000/auth/login --json '{"email": "ada@example.com", "password": "a door in two halves"}'
      curl -b jar localhost:8000/hello
      sqlite3 users.db "UPDATE users SET is_editor = 1"
      curl -b jar localhost:8000/hello localhost:8000/drafts
"""

from __future__ import annotations

from typing import Annotated

import uvicorn
from fastapi import Body, Depends, FastAPI, HTTPException, WebSocket
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from dutchdoor.fastapi import Auth
from dutchdoor.sqlalchemy import SQLAlchemyUsers


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    is_editor: Mapped[bool] = mapped_column(default=False)


engine = create_engine("sqlite:///users.db")
Base.metadata.create_all(engine)
session = sessionmaker(engine)
users = SQLAlchemyUsers(session, User, roles=lambda user: ["editor"] if user.is_editor else [])
app = FastAPI()
auth = Auth(app, "sqlite:///sessions.db", users=users)
CurrentUser = Annotated[User, Depends(auth.current_user)]
OptionalUser = Annotated[User | None, Depends(auth.optional_user)]


@app.post("/users", status_code=201)
async def register(email: Annotated[str, Body()], password: Annotated[str, Body(min_length=12)]) -> None:
    user = User(email=email, password_hash=await users.hasher.hash(password))
    try:
        with session.begin() as database:
            database.add(user)
    except IntegrityError:
        raise HTTPException(409, "This address has an account.") from None


@app.get("/")
async def index(user: OptionalUser) -> dict[str, str]:
    return {"hello": user.email if user else "stranger"}


@app.get("/hello")
async def hello(user: CurrentUser) -> dict[str, str]:
    return {"hello": user.email}


@app.get("/drafts", dependencies=[Depends(auth.require(role="editor"))])
async def drafts(user: CurrentUser) -> dict[str, str]:
    return {"drafts_of": user.email}


@app.websocket("/echo")
async def echo(socket: WebSocket, user: CurrentUser) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{user.email}: {text}")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
