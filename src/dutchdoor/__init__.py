"""dutchdoor: authentication by sessions, JWTs, or the hybrid of both, over one model.

Three calls make an application's log-in:

    auth = Auth("sqlite:///app.db")                       # accounts, sessions and keys, in one file
    app.mount("/", auth.asgi())                           # /auth/register, /auth/login, /auth/logout ...
    principal = await auth.principal(request)             # who is this, whichever way they proved it

A service that only checks access tokens, wherever it runs, refuses those that were revoked as soon as log-out says so:

    verify = Verifier("https://auth.example.com", audience="api")
    principal = verify(token)                             # or `await verify.check(token)`

Whoever brings users of their own takes `auth.authority` and starts sessions from a `Verified` of their own making.
Everything raised on purpose is a `DutchdoorError`. What you can rely on is named here; the rest may move.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dutchdoor.auth import Auth
    from dutchdoor.errors import DutchdoorError
    from dutchdoor.model.http_client import Client
    from dutchdoor.model.policy import HIGH, RELAXED, STANDARD, Policy
    from dutchdoor.model.principal import Principal, Verified
    from dutchdoor.verifier import Verifier

__all__ = [
    "HIGH",
    "RELAXED",
    "STANDARD",
    "Auth",
    "Client",
    "DutchdoorError",
    "Policy",
    "Principal",
    "Verified",
    "Verifier",
]

_WHERE = {
    "Auth": "auth",
    "Client": "model.http_client",
    "DutchdoorError": "errors",
    "HIGH": "model.policy",
    "Policy": "model.policy",
    "Principal": "model.principal",
    "RELAXED": "model.policy",
    "STANDARD": "model.policy",
    "Verified": "model.principal",
    "Verifier": "verifier",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for (PEP 562): a service that only checks tokens loads nothing else.

    Raises:
        ImportError: a package of the extra `app` is not installed.
    """
    if name not in _WHERE:
        raise AttributeError(f"module 'dutchdoor' has no attribute {name!r}")
    try:
        module = import_module(f"dutchdoor.{_WHERE[name]}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("dutchdoor"):
            raise
        text = f"dutchdoor.{name} needs {exc.name}, which is not installed: pip install 'dutchdoor[app]'"
        raise ImportError(text, name=exc.name) from exc
    return getattr(module, name)
