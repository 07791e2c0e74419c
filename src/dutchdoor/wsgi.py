"""dutchdoor around a WSGI application without a framework, or of a framework that has no adapter here.

    auth = Auth("sqlite:///app.db")

    def hello(environ, start_response):
        user = current_user(environ)
        ...

    app = auth.around(hello)

What a guard raises, and `around` answers: 401 or 403 with a problem document, 503 while the store is out of reach.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from dutchdoor.errors import NotAuthenticated
from dutchdoor.guard.on_wsgi import OnWsgi
from dutchdoor.guard.refusal import next_path
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.user import User
from dutchdoor.guard.wsgi import Environ, StartResponse, around, engine_around, visit_of
from dutchdoor.model.durations import Duration
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData
from dutchdoor.model.spelling import spelt

__all__ = [
    "Auth",
    "Principal",
    "SessionData",
    "User",
    "csrf_token",
    "current_principal",
    "current_user",
    "next_path",
    "optional_principal",
    "optional_user",
    "session_data",
]

Application = Callable[[Any, Any], Iterable[bytes]]

_ANYONE = Requirement()


class Auth(OnWsgi):
    """Authentication for a WSGI application. `auth.around(app)` is what a server runs."""

    def around(self, app: Application) -> Application:
        """Return an `app` with this in front of it: the paths of the API are answered, and all others are the
        application's.
        """
        return engine_around(around(app, self._gate), self._gate)

    @spelt
    def require(
        self, *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
    ) -> Callable[[Application], Application]:
        """Return a decorator for a WSGI application: it is called only if the caller meets the requirement.

        Args:
            role: a role that the account has.
            scope: words that the scope of the sign-in contains.
            fresh: the greatest age of the last proof: "5m", a timedelta, or seconds.
            factors: how many kinds of proof the sign-in took: 1 or 2.

        Raises:
            Misconfigured: an argument is wrong.
        """
        requirement = Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors)

        def decorate(app: Application) -> Application:
            @functools.wraps(app)
            def guarded(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
                visit_of(environ).require(requirement)
                return app(environ, start_response)

            return guarded

        return decorate


def current_user(environ: Environ, csrf_field: str | None = None) -> User:
    """Return the account that sends the request; with users of your own, your object. `csrf_field` is what a form had
    in its field `csrf_token`; a script sends the header `X-CSRF-Token`. The first call for a request decides.

    Raises `NotAuthenticated` without a proof, and what `Auth.principal` raises.
    """
    visit = visit_of(environ)
    user: User | None = visit.user(csrf_field)
    if user is None:
        raise visit.asked.unproven()
    return user


def optional_user(environ: Environ, csrf_field: str | None = None) -> User | None:
    """Return the account that sends the request; None without a proof, or with one that is not valid. Raises
    `Forbidden` and `Unavailable`.
    """
    try:
        user: User | None = visit_of(environ).user(csrf_field)
    except NotAuthenticated:
        return None
    return user


def current_principal(environ: Environ, csrf_field: str | None = None) -> Principal:
    """Return what the proof says. It takes no look-up where a token is the proof. Raises as `current_user` does."""
    return visit_of(environ).require(_ANYONE, csrf_field)


def optional_principal(environ: Environ, csrf_field: str | None = None) -> Principal | None:
    """Return what the proof says, or None. Raises `Forbidden` and `Unavailable`."""
    try:
        known = visit_of(environ).identify(csrf_field)
    except NotAuthenticated:
        return None
    return None if known is None else known.principal


def session_data(environ: Environ, csrf_field: str | None = None) -> SessionData:
    """Return the data that is kept on the server for the caller's session, or for a visitor who has not signed in. It
    behaves as a dict. What changed is stored when the application calls `start_response`.

    Raises `Misconfigured` in a service that only verifies, `Forbidden` and `Unavailable`.
    """
    return visit_of(environ).session(csrf_field)


def csrf_token(environ: Environ) -> str:
    """Return the token that the forms of a page carry in their field `csrf_token`, and its scripts in the header
    `X-CSRF-Token`; "" where no cookie is the proof.
    """
    return visit_of(environ).csrf_token()
