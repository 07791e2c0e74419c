"""dutchdoor in Flask."""

from __future__ import annotations

from flask import Flask

from benchmarks.guarded.ours import REGISTER, WAYS, settings
from benchmarks.peers.in_process import serve_wsgi
from dutchdoor.flask import Auth, current_user, login_required

bare, app = Flask("bare"), Flask("app")
Auth(app, **settings())


@bare.get("/me")
def anyone() -> dict[str, object]:
    return {"user_id": "0", "ok": True}


@app.get("/me")
@login_required
def me() -> dict[str, object]:
    return {"user_id": current_user.id, "ok": True}


if __name__ == "__main__":
    serve_wsgi(bare, app, WAYS, REGISTER)
