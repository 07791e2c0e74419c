"""Every example runs as it stands."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from starlette.testclient import TestClient

EXAMPLES = Path(__file__).parents[2] / "examples"
ADA = {"email": "ada@example.com", "password": "a door in two halves"}


def test_the_fastapi_example_signs_in_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application mounts the whole API beside routes of its own, which know who is asking and may refuse."""
    monkeypatch.chdir(tmp_path)
    app = runpy.run_path(str(EXAMPLES / "fastapi_app.py"))["app"]
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 50000)) as client:
        assert client.get("/hello").status_code == 401
        assert client.post("/auth/register", json=ADA).status_code == 201
        csrf = client.post("/auth/login", json={**ADA, "mode": "session"}).json()["csrf_token"]
        assert client.get("/hello").json() == {"hello": "ada@example.com"}
        assert client.post("/orders").status_code == 403
        assert client.post("/orders", headers={"X-CSRF-Token": csrf}).json() == {"detail": "Only customers order."}
        assert client.post("/auth/logout", headers={"X-CSRF-Token": csrf}).status_code == 200
        assert client.get("/hello").status_code == 401
