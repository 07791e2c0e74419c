"""A session in doubt, in an application that embeds the engine: its guards refuse, and its optional ones see no one."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from dutchdoor import Policy
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.fastapi import Auth, CurrentUser, OptionalUser

SHOP = "https://shop.example.com"
HOME, SYDNEY = "145.97.39.155", "1.128.0.1"
ADA = {"email": "ada@example.com", "password": "a door in two halves"}
app = FastAPI()
auth = Auth(
    app, "memory:", public_url=SHOP, policy=Policy(suspicion="standard"), hasher=PasswordHasher(CHEAPEST)
)  # fmt: skip


@app.get("/mine")
async def mine(user: CurrentUser) -> dict[str, str]:
    return {"id": user.id}


@app.get("/open")
async def for_all(user: OptionalUser) -> dict[str, bool]:
    return {"known": user is not None}


@app.websocket("/live")
async def live(socket: WebSocket, _user: CurrentUser) -> None:
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


def browser(peer: str, **more: Any) -> TestClient:
    return TestClient(app, base_url=SHOP, client=(peer, 5000), headers={"origin": SHOP}, **more)


def test_d09_a_session_in_doubt_is_no_ones_in_an_application() -> None:
    """A copy that is used on another continent is refused by a guard, and is a stranger's where a user is optional. The
    owner's WebSocket ends, and after the proof everything is as before.
    """
    with browser(HOME) as owner:
        owner.post("/auth/register", json=ADA)
        assert owner.post("/auth/login", json=ADA).status_code == 200
        csrf = owner.get("/auth/csrf").json()["csrf_token"]
        assert owner.get("/open").json() == {"known": True}
        with owner.websocket_connect("wss://shop.example.com/live") as socket:
            socket.send_text("before")
            assert socket.receive_text() == "before"
            thief = browser(SYDNEY)
            thief.cookies = owner.cookies
            refused = thief.get("/mine")
            assert (refused.status_code, refused.json()["code"]) == (401, "step_up_required")
            assert thief.get("/open").json() == {"known": False}
            socket.send_text("after")
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text()
            assert closed.value.code == 4401
        assert owner.get("/mine").status_code == 401
        proof = {"password": ADA["password"]}
        assert owner.post("/auth/reauthenticate", json=proof, headers={"x-csrf-token": csrf}).status_code == 200
        assert owner.get("/mine").status_code == 200
        assert thief.get("/mine").json()["code"] != "step_up_required"
