"""The ways in which a WSGI application can send a response (PEP 3333): all of it arrives, and none of it after the
log-out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.wsgi import Auth, current_user

ADA = {"email": "ada@example.com", "password": "a door in two halves"}
HERE = {"REMOTE_ADDR": "127.0.0.1"}
PLAIN = [("content-type", "text/plain")]


def lazily(environ: Any, start_response: Any) -> Iterator[bytes]:
    user = current_user(environ)
    start_response("200 OK", PLAIN)
    yield from (f"{user.email}\n".encode(), b"two\n")
    environ["between"]()
    yield b"three\n"


def lately(environ: Any, start_response: Any) -> Iterator[bytes]:
    """The user is asked for when the response has begun."""
    start_response("200 OK", PLAIN)
    yield b"ada@example.com\n"
    current_user(environ)
    yield b"two\n"
    environ["between"]()
    yield b"three\n"


def by_writing(environ: Any, start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", PLAIN)
    write(f"{current_user(environ).email}\n".encode())
    write(b"two\n")
    environ["between"]()
    write(b"three\n")
    return []


@pytest.mark.parametrize("app", [lazily, lately, by_writing])
def test_a_response_arrives_whole_and_ends_with_its_session(
    app: Callable[..., Iterable[bytes]], tmp_path: Path
) -> None:
    """Each piece arrives once and in order; after the log-out no further one does, however the application sends it."""
    auth = Auth(f"sqlite:///{tmp_path}/app.db", hasher=PasswordHasher(CHEAPEST))
    client = Client(auth.around(app), use_cookies=False)
    assert client.post("/auth/register", json=ADA, environ_overrides=HERE).status_code == 201
    answer = client.post("/auth/login", json={**ADA, "mode": "session"}, environ_overrides=HERE)
    cookies = "; ".join(line.partition(";")[0] for line in answer.headers.getlist("set-cookie"))
    token = answer.json["csrf_token"]  # type: ignore[index] # it is a dict

    def log_out() -> None:
        headers = {"cookie": cookies, "x-csrf-token": token}
        assert client.post("/auth/logout", headers=headers, environ_overrides=HERE).status_code == 200

    def got(between: Callable[[], None]) -> str:
        pieces: list[bytes] = []

        def start_response(_status: str, _headers: object, *_: object) -> Callable[[bytes], None]:
            return pieces.append

        environ = {
            "REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "localhost", "HTTP_COOKIE": cookies,
            "wsgi.url_scheme": "http", "between": between, **HERE,
        }  # fmt: skip
        try:
            pieces.extend(auth.around(app)(environ, start_response))
        except BrokenPipeError:  # a server takes it for a client that has gone
            assert app is by_writing
        return b"".join(pieces).decode()

    try:
        assert got(lambda: None) == "ada@example.com\ntwo\nthree\n"
        assert got(log_out) == "ada@example.com\ntwo\n"
    finally:
        auth.close()


def test_a_mount_that_begins_as_a_path_of_ours_hides_none(tmp_path: Path) -> None:
    """Mounted at `/a`, an application still has `/auth/...`: only whole segments of a path are cut off."""
    auth = Auth(f"sqlite:///{tmp_path}/app.db", hasher=PasswordHasher(CHEAPEST))
    mounted = DispatcherMiddleware(by_writing, {"/a": auth.around(by_writing)})
    try:
        answer = Client(mounted).get("/a/auth/me", environ_overrides={**HERE, "between": None})
        assert answer.status_code == 401
        assert "x-request-id" in answer.headers, "the API has answered, and not the application"
    finally:
        auth.close()
