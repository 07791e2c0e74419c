"""A Flask application with accounts and log-in, in one file.

    pip install 'dutchdoor[flask]'
    python examples/flask_app.py

Then: curl -c jar localhost:5000/auth/register --json '{"email": "ada@example.com", "password": "a door in two halves"}'
"""

from __future__ import annotations

from flask import Flask

from dutchdoor.flask import Auth, current_principal, current_user, login_required

app = Flask(__name__)
auth = Auth(app, "sqlite:///example.db", master_key="example.keys", product="The example")


@app.get("/")
def index() -> dict[str, str]:
    return {"hello": current_user.display_name or "stranger"}


@app.get("/hello")
@login_required
def hello() -> dict[str, str | None]:
    return {"hello": current_user.email}


@app.post("/orders")
@auth.require(role="customer")
def order() -> dict[str, str]:
    return {"ordered_by": current_principal.subject}


if __name__ == "__main__":
    app.run(port=5000)
