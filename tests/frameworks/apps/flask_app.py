"""The routes that the suite asks for, in Flask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, render_template_string, request, session
from settings import SETTINGS

from dutchdoor.flask import Auth, current_principal, current_user, login_required

app = Flask(__name__)
auth = Auth(app, **SETTINGS)


@app.get("/")
def index() -> dict[str, str]:
    return {"index": "the application's"}


@app.get("/who")
def who() -> dict[str, str | None]:
    return {"who": current_user.email}


@app.get("/hello")
@login_required
def hello() -> dict[str, Any]:
    return {
        "email": current_user.email,
        "id": current_user.id,
        "subject": current_principal.subject,
        "method": current_principal.method,
    }


@app.post("/order")
@login_required
def order() -> dict[str, Any]:
    return {"by": current_principal.subject, "what": request.form.get("what")}


@app.get("/admin")
@auth.require(role="admin")
def admin() -> dict[str, bool]:
    return {"admin": True}


@app.get("/scoped")
@auth.require(scope="orders:write")
def scoped() -> dict[str, bool]:
    return {"scoped": True}


@app.get("/fresh")
@auth.require(fresh="1s")
def fresh() -> dict[str, bool]:
    return {"fresh": True}


@app.get("/factors")
@auth.require(factors=2)
def factors() -> dict[str, bool]:
    return {"factors": True}


@app.get("/form")
def form() -> str:
    return render_template_string("{{ csrf_field() }}")


@app.get("/basket")
def basket() -> dict[str, Any]:
    return dict(session)


@app.post("/basket/<key>")
def add(key: str) -> dict[str, Any]:
    session.setdefault(key, []).append(request.get_data(as_text=True))
    return dict(session)


@app.post("/empty")
def empty() -> dict[str, Any]:
    session.clear()
    return dict(session)


@app.get("/stream")
@login_required
def stream() -> Response:
    def numbers() -> Iterator[str]:
        for number in range(10_000):
            yield f"{number}\n"
            time.sleep(0.01)

    return Response(numbers(), mimetype="text/plain")
