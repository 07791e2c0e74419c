"""Flask: what the proxies stand for, and that a decorator keeps a view's type."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from typing import assert_type

from flask import Flask

from dutchdoor.flask import Anonymous, Auth, Principal, User, current_principal, current_user, login_required

app = Flask(__name__)
auth = Auth(app, "sqlite:///app.db")


@app.get("/user/<int:number>")
@login_required
def user(number: int) -> dict[str, str | None]:
    assert_type(current_principal, Principal)
    assert_type(current_user.email, str | None)
    if isinstance(current_user, Anonymous):
        return {}
    return {"id": current_user.id, "of": str(number)}


assert_type(user(5), dict[str, str | None])
user("5")  # type: ignore[arg-type]


@app.get("/reports")
@auth.require(role="admin")
def reports() -> str:
    return "reports"


assert_type(reports(), str)
account: User | Anonymous = current_user
