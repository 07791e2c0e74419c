"""What a framework without an event loop asks of the engine, and where the answer comes from."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from dutchdoor.flask import Auth, current_user, login_required
from dutchdoor.guard.threads import SyncGate

ADA = {"email": "ada@example.com", "password": "a door in two halves"}


@pytest.mark.parametrize("mode", ["session", "hybrid"])
def test_a_request_in_use_never_waits_for_the_engines_thread(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends a request, and the account behind it, come from memory in the request's own thread, by cookie and by
    token: a hop to the engine's thread and back costs more than all the rest.
    """
    app = Flask("app")
    auth = Auth(app, "memory:")

    @app.get("/hello")
    @login_required
    def hello() -> dict[str, str | None]:
        return {"hello": current_user.email}

    client = app.test_client()
    assert client.post("/auth/register", json=ADA).status_code == 201
    asked = {"mode": "session"} if mode == "session" else {"mode": "hybrid", "transport": "body"}
    signed_in: Any = client.post("/auth/login", json=ADA | asked).json
    headers = {"authorization": f"Bearer {signed_in['access_token']}"} if mode == "hybrid" else {}
    assert client.get("/hello", headers=headers).json == {"hello": ADA["email"]}
    with monkeypatch.context() as patched:
        patched.setattr(SyncGate, "run", lambda *_: pytest.fail("it entered the engine's thread"))
        assert client.get("/hello", headers=headers).json == {"hello": ADA["email"]}
    auth.close()
