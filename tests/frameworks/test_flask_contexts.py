"""Flask's contexts: an application context that outlives a request, and a stream without a view around it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response, session, stream_with_context
from flask.testing import FlaskClient

from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.flask import Auth, current_user, login_required

PASSWORD = "a door in two halves"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = Flask("app")
    auth = Auth(app, f"sqlite:///{tmp_path}/app.db", hasher=PasswordHasher(CHEAPEST))
    app.add_url_rule("/hello", view_func=login_required(lambda: {"email": current_user.email}), endpoint="hello")
    app.add_url_rule("/who", view_func=lambda: {"email": current_user.email}, endpoint="who")
    app.add_url_rule("/seen", view_func=lambda: {"seen": session.setdefault("seen", current_user.email)}, endpoint="s")
    yield app
    auth.close()


def signed_in(app: Flask, email: str) -> tuple[FlaskClient, str]:
    client = app.test_client()
    who = {"email": email, "password": PASSWORD}
    assert client.post("/auth/register", json=who).status_code == 201
    return client, client.post("/auth/login", json={**who, "mode": "session"}).json["csrf_token"]  # type: ignore[index]


def test_a_context_that_stays_mixes_no_users(app: Flask) -> None:
    """`app.app_context().push()` in a module gives all requests of a thread one `g`: each is still answered as its own
    sender, and one without a proof as no one.
    """
    with app.app_context():
        ada, token = signed_in(app, "ada@example.com")
        bob, _ = signed_in(app, "bob@example.com")
        for client, email in ((ada, "ada@example.com"), (bob, "bob@example.com"), (ada, "ada@example.com")):
            assert client.get("/hello").json == {"email": email} == client.get("/who").json
            assert client.get("/seen").json == {"seen": email}
        nobody = app.test_client()
        assert nobody.get("/hello").status_code == 401 and nobody.get("/who").json == {"email": None}
        assert ada.post("/auth/logout", headers={"x-csrf-token": token}).status_code == 200
        assert ada.get("/hello").status_code == 401


def test_a_stream_that_asks_who_sent_the_request_ends_with_the_session(app: Flask) -> None:
    """A generator may be the first to ask for the user: what it yields after a log-out is not sent."""
    goes_on = threading.Event()

    @app.get("/stream")
    def stream() -> Response:
        def pieces() -> Iterator[str]:
            yield f"{current_user.email}\n"
            goes_on.wait(60)
            yield "news"

        return Response(stream_with_context(pieces()), mimetype="text/plain")

    ada, token = signed_in(app, "ada@example.com")
    sent = iter(ada.get("/stream", buffered=False).response)
    assert next(sent) == b"ada@example.com\n"
    assert ada.post("/auth/logout", headers={"x-csrf-token": token}).status_code == 200
    goes_on.set()
    assert list(sent) == []
