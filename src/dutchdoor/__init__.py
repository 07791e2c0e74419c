"""dutchdoor: authentication with sessions, JWTs, or a hybrid of both.

Three calls give an application a log-in:

    auth = Auth("sqlite:///app.db")                       # accounts, sessions and keys, in one file
    app.mount("/", auth.asgi())                           # /auth/register, /auth/login, /auth/logout ...
    principal = await auth.principal(request)             # who sent this request, in any mode

A service that only verifies access tokens refuses revoked ones as soon as the log-out is confirmed:

    verify = Verifier("https://auth.example.com", audience="api")
    principal = verify(token)                             # or `await verify.check(token)`, and a `DpopProof` beside it

An application with users of its own passes `Auth(users=ExternalUsers(...))`. All errors
that dutchdoor raises deliberately are a `DutchdoorError`. The names in this module are the public API; others may
change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dutchdoor.auth import Auth
    from dutchdoor.errors import DutchdoorError
    from dutchdoor.jose.dpop import DpopProof
    from dutchdoor.model.audit_entry import AuditEvent
    from dutchdoor.model.http_client import Client
    from dutchdoor.model.policy import HIGH, RELAXED, STANDARD, Policy
    from dutchdoor.model.principal import Principal, Verified
    from dutchdoor.model.suspicion import Suspected
    from dutchdoor.services.external_users import ExternalUsers
    from dutchdoor.services.own_steps import SignInStep
    from dutchdoor.verifier import Verifier
    from dutchdoor.web.pages.branding import Branding

__all__ = [
    "HIGH",
    "RELAXED",
    "STANDARD",
    "AuditEvent",
    "Auth",
    "Branding",
    "Client",
    "DpopProof",
    "DutchdoorError",
    "ExternalUsers",
    "Policy",
    "Principal",
    "SignInStep",
    "Suspected",
    "Verified",
    "Verifier",
]

_WHERE = {
    "AuditEvent": "model.audit_entry",
    "Auth": "auth",
    "Branding": "web.pages.branding",
    "Client": "model.http_client",
    "DpopProof": "jose.dpop",
    "DutchdoorError": "errors",
    "ExternalUsers": "services.external_users",
    "HIGH": "model.policy",
    "Policy": "model.policy",
    "Principal": "model.principal",
    "RELAXED": "model.policy",
    "STANDARD": "model.policy",
    "SignInStep": "services.own_steps",
    "Suspected": "model.suspicion",
    "Verified": "model.principal",
    "Verifier": "verifier",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562), so that a service that only verifies tokens loads little.

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
