"""better-auth-server, asked in its own process: `python better_auth_guard.py fastapi`, or litestar, flask, django.

Its sessions are in SQLite through its SQLAlchemy adapter. SQLITE_PATH names the file.
"""

# ruff: noqa: PLC0415 - each framework is imported only where it is asked for

from __future__ import annotations

import os
import sys

from better_auth import BetterAuth, EmailAndPassword, RateLimit
from better_auth.adapters.sqlalchemy import SQLAlchemyAdapter
from django_settings import KEY
from in_process import SENT, SignIn, bearer, serve_asgi, serve_wsgi
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

URL = "sqlite{}:///" + os.environ["SQLITE_PATH"]
engine = create_async_engine(URL.format("+aiosqlite"))


@event.listens_for(engine.sync_engine, "connect")
def set_pragmas(connection, _record) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


adapter = SQLAlchemyAdapter(engine)
auth = BetterAuth(
    secret="a benchmark's key, 50 characters and no secret at all",
    base_url="http://localhost:8000",
    adapter=adapter,
    email_and_password=EmailAndPassword(enabled=True),
    rate_limit=RateLimit(enabled=False),
)
# Made by an engine of its own: the other belongs to the loop that serves.
adapter.metadata.create_all(create_engine(URL.format("")))

SENT["origin"] = "http://localhost:8000"  # it asks for one wherever a cookie is sent
ACCOUNT = {"email": "bench@example.com", "password": "correct horse"}
WAYS = {
    "cookie": SignIn("/api/auth/sign-in/email", ACCOUNT, lambda answer: answer.cookie()),
    "bearer": SignIn("/api/auth/sign-in/email", ACCOUNT, bearer("token")),
}
REGISTER = SignIn("/api/auth/sign-up/email", {**ACCOUNT, "name": "Bench"}, lambda _: {})


def in_fastapi() -> None:
    from better_auth.integrations.fastapi import BetterAuthFastAPI
    from fastapi import Depends, FastAPI

    bare, app, ours = FastAPI(), FastAPI(), BetterAuthFastAPI(auth)
    app.include_router(ours.router)

    @bare.get("/me")
    async def anyone():
        return {"user_id": "0", "ok": True}

    @app.get("/me")
    async def me(result: dict = Depends(ours.require_session)):  # noqa: B008, FAST002 - as its documentation has it
        return {"user_id": result["user"]["id"], "ok": True}

    serve_asgi(bare, app, WAYS, REGISTER)


def in_litestar() -> None:
    from better_auth.integrations.litestar import BetterAuthLitestar
    from litestar import Litestar, get
    from litestar.di import NamedDependency, Provide

    ours = BetterAuthLitestar(auth)

    @get("/me")
    async def anyone() -> dict:
        return {"user_id": "0", "ok": True}

    async def me(result: NamedDependency[dict]) -> dict:
        return {"user_id": result["user"]["id"], "ok": True}

    me.__annotations__ = {"result": NamedDependency[dict], "return": dict}
    guarded = get("/me", dependencies={"result": Provide(ours.require_session)})(me)
    serve_asgi(Litestar([anyone]), Litestar([ours.router, guarded]), WAYS, REGISTER)


def in_flask() -> None:
    from better_auth.integrations.flask import BetterAuthFlask
    from flask import Flask

    bare, app, ours = Flask("bare"), Flask("app"), BetterAuthFlask(auth)
    app.register_blueprint(ours.blueprint)

    @bare.get("/me")
    def anyone():
        return {"user_id": "0", "ok": True}

    @app.get("/me")
    def me():
        return {"user_id": ours.require_session()["user"]["id"], "ok": True}

    serve_wsgi(bare, app, WAYS, REGISTER)


def in_django() -> None:
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY=KEY,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="urls",
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    )
    django.setup()
    from types import ModuleType

    from better_auth.integrations.django import BetterAuthDjango
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, JsonResponse
    from django.urls import path

    ours = BetterAuthDjango(auth)

    def me(request):
        result = ours.require_session(request)
        if isinstance(result, HttpResponse):
            return result
        return JsonResponse({"user_id": result["user"]["id"], "ok": True})

    urls = sys.modules["urls"] = ModuleType("urls")
    urls.urlpatterns = [
        *ours.urls,
        path("me", me),
        path("bare", lambda _: JsonResponse({"user_id": "0", "ok": True})),
    ]
    app = get_wsgi_application()
    serve_wsgi(app, app, {name: way._replace(bare="/bare") for name, way in WAYS.items()}, REGISTER)


{"fastapi": in_fastapi, "litestar": in_litestar, "flask": in_flask, "django": in_django}[sys.argv[1]]()
