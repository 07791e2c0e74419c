"""Who is measured: how each is started, signed in to, and asked.

Each has one server process on one core: gunicorn with one worker of four threads for Django, uvicorn with uvloop and
httptools for the others. The answer to an authenticated request is `{"user_id": ..., "ok": true}` everywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Answer, Request, ask

HERE = Path(__file__).parent
EMAIL, PASSWORD = "bench@example.com", "correct horse"
OUR_PASSWORD = "correct horse battery staple"

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Refresh(NamedTuple):
    """How a refresh token is found in an answer's body, and presented."""

    token: Callable[[bytes], str]
    present: Callable[[str], Request]


class View(NamedTuple):
    """One way to be signed in: `session` asks the server's storage, `token` carries a signature."""

    kind: str
    login: Request
    credential: Callable[[Answer], Mapping[str, str]]
    me: str
    refresh: Refresh | None = None


class Contender(NamedTuple):
    """A server to start with `{port}` filled in, in an environment that `environ` adds to."""

    column: str
    name: str
    command: tuple[str, ...]
    views: tuple[View, ...]
    environ: Mapping[str, str] = {}
    folder: Path | None = HERE / "peers"
    """Where to run it; None for an empty folder."""
    before: tuple[str, ...] = ()
    """A command to run first, on an empty database."""
    once_up: Callable[[int], None] = lambda port: None
    """What to do over HTTP before anything is measured."""
    hashes_with: str = ""
    """The library whose Argon2id it uses, for the rate that its core could reach."""
    measures: frozenset[str] = frozenset({"me", "login", "refresh"})

    @property
    def python(self) -> str:
        return self.command[0]


def _python(environment: str) -> str:
    return str(HERE / ".venvs" / environment / "bin" / "python")


def _uvicorn(python: str, app: str) -> tuple[str, ...]:
    return (
        *(python, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "{port}"),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    )


def _cookie(answer: Answer) -> Mapping[str, str]:
    return {"cookie": answer.cookies}


def _bearer(field: str) -> Callable[[Answer], Mapping[str, str]]:
    return lambda answer: {"authorization": f"Bearer {answer.json()[field]}"}


def _post(path: str, sent: Mapping[str, str]) -> Request:
    return Request("POST", path, JSON, json.dumps(sent))


def _form(path: str) -> Request:
    return Request("POST", path, FORM, "username=bench%40example.com&password=correct+horse")


# --- the peers -------------------------------------------------------------------------------------------------------

_DJANGO = {"username": "bench", "password": PASSWORD}

DJANGO = Contender(
    column="Django",
    name="Django sessions (database); djangorestframework-simplejwt, rotating with blacklist",
    command=(
        *(_python("django"), "-m", "gunicorn", "django_app:application", "--bind", "127.0.0.1:{port}"),
        *("--workers", "1", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "60"),
        *("--log-level", "error"),
    ),
    before=(_python("django"), "django_app.py"),
    hashes_with="argon2-cffi",
    views=(
        View("session", _post("/login", _DJANGO), _cookie, "/me"),
        View(
            "token",
            _post("/jwt/login", _DJANGO),
            _bearer("access"),
            "/jwt/me",
            Refresh(lambda body: json.loads(body)["refresh"], lambda token: _post("/jwt/refresh", {"refresh": token})),
        ),
    ),
)

FASTAPI_USERS = Contender(
    column="fastapi-users",
    name="fastapi-users, database strategy and JWT strategy",
    command=_uvicorn(_python("fastapi-users"), "fastapi_users_app:app"),
    hashes_with="argon2-cffi",
    views=(
        View("session", _form("/db/login"), _bearer("access_token"), "/db/me"),
        View("token", _form("/jwt/login"), _bearer("access_token"), "/jwt/me"),
    ),
)

FASTAPI_JWT = Contender(
    column="FastAPI + PyJWT",
    name="FastAPI and PyJWT by hand, as in the tutorials: no database, no refresh, nothing can be ended",
    command=_uvicorn(_python("fastapi-jwt"), "fastapi_jwt_app:app"),
    hashes_with="argon2-cffi",
    views=(View("token", _form("/token"), _bearer("access_token"), "/me"),),
)


def _nobody(_answer: Answer) -> Mapping[str, str]:
    # What a session's cookie weighs, so that the limit reads as many bytes as the others.
    return {"cookie": "dd_session=" + "x" * 75}


RAW_ASGI = Contender(
    column="raw ASGI",
    name="an ASGI application that always gives the same answer: the limit",
    command=_uvicorn(sys.executable, "raw_asgi:app"),
    views=(
        View("session", Request("GET", "/me"), _nobody, "/me"),
        View("token", Request("GET", "/me"), _nobody, "/me"),
    ),
    measures=frozenset({"me"}),
)

# --- ours ------------------------------------------------------------------------------------------------------------

OURS = "dutchdoor"


def _our_views(me: str) -> tuple[View, ...]:
    account = {"email": EMAIL, "password": OUR_PASSWORD}
    return (
        View("session", _post("/auth/login", {**account, "mode": "session"}), _cookie, me),
        View(
            "token",
            _post("/auth/login", {**account, "mode": "hybrid", "transport": "body"}),
            _bearer("access_token"),
            me,
            Refresh(
                lambda body: json.loads(body)["refresh_token"],
                lambda token: _post("/auth/refresh", {"refresh_token": token}),
            ),
        ),
    )


def _register(port: int) -> None:
    answer = ask(port, _post("/auth/register", {"email": EMAIL, "password": OUR_PASSWORD}))
    if answer.status != 201:
        raise RuntimeError(f"registering answered {answer.status}: {answer.body[:300]!r}")


OURS_EMBEDDED = Contender(
    column=OURS,
    name="dutchdoor embedded in an application (ours.py), no hash, every refresh rotating",
    command=_uvicorn(sys.executable, "benchmarks.ours:app"),
    folder=HERE.parent,
    environ={"ROTATION": "strict"},
    views=_our_views("/me"),
    once_up=_register,
)

OURS_WINDOW = OURS_EMBEDDED._replace(
    name="the same with the default rotation, in whose window a repeated refresh converges on one token",
    environ={"ROTATION": "convergent"},
    measures=frozenset({"refresh"}),
)

OURS_SERVER = Contender(
    column=OURS,
    name="dutchdoor serve, as it is",
    command=(
        *(str(Path(sys.executable).parent / "dutchdoor"), "serve", "--host", "127.0.0.1", "--port", "{port}"),
        *("--database", "sqlite:///{database}"),
    ),
    folder=None,
    environ={"DUTCHDOOR_MASTER_KEY_FILE": "{database}.keys"},
    views=_our_views("/auth/me"),
    once_up=_register,
    hashes_with="cryptography",
)

WITHOUT_HASH = (OURS_EMBEDDED, OURS_WINDOW, DJANGO, FASTAPI_USERS, FASTAPI_JWT, RAW_ASGI)
WITH_HASH = (OURS_SERVER, DJANGO, FASTAPI_USERS, FASTAPI_JWT)
