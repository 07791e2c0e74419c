"""FastAPI and PyJWT the way the tutorials write it: HS256, users in a dict, no refresh, no way to end anything.

HASH=none puts SHA-256 in place of the password hash, HASH=argon2id is Argon2id as everywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jwt.exceptions import InvalidTokenError
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import BaseModel

KEY = "a benchmark's key, 50 characters and no secret at all"

argon2id = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19456, parallelism=1),))
no_hash = os.environ["HASH"] == "none"


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest() if no_hash else argon2id.hash(password)


def verify(password: str, stored: str) -> bool:
    return hmac.compare_digest(hashed(password), stored) if no_hash else argon2id.verify(password, stored)


class User(BaseModel):
    """A user as the tutorial has it."""

    username: str
    email: str
    disabled: bool = False
    password: str


USERS = {"bench@example.com": {"username": "bench", "email": "bench@example.com", "password": hashed("correct horse")}}

app = FastAPI()
bearer = OAuth2PasswordBearer(tokenUrl="token")


async def current_user(token: Annotated[str, Depends(bearer)]) -> User:
    try:
        subject = jwt.decode(token, KEY, algorithms=["HS256"]).get("sub")
    except InvalidTokenError:
        raise HTTPException(401) from None
    user = USERS.get(subject)
    if user is None:
        raise HTTPException(401)
    return User(**user)


@app.post("/token")
async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()]):
    user = USERS.get(form.username)
    if not user or not verify(form.password, user["password"]):
        raise HTTPException(401)
    claims = {"sub": form.username, "exp": int(time.time()) + 3600}
    return {"access_token": jwt.encode(claims, KEY, algorithm="HS256"), "token_type": "bearer"}


@app.get("/me")
async def me(user: Annotated[User, Depends(current_user)]):
    return {"user_id": user.username, "ok": True}
