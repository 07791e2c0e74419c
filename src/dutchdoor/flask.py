"""dutchdoor in Flask.

    app = Flask(__name__)
    auth = Auth(app)

    @app.get("/hello")
    @login_required
    def hello():
        return {"hello": current_user.email}

    @app.post("/reports")
    @auth.require(role="admin", fresh="5m")
    def report(): ...

A form that a page of yours sends carries `{{ csrf_field() }}`. `current_user` is a `User`, or an `Anonymous`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakSet

from dutchdoor.errors import DutchdoorError, Misconfigured, NotAuthenticated
from dutchdoor.guard.above_views import above_views
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.extra import extra
from dutchdoor.guard.on_wsgi import OnWsgi
from dutchdoor.guard.refusal import loads_again, next_path, refusal
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.threads import SyncGate
from dutchdoor.guard.user import Anonymous, User
from dutchdoor.guard.wsgi import FORMS, engine_around, navigates, prove_first, readable, request_in, while_valid
from dutchdoor.model.audit_entry import AuditEvent
from dutchdoor.model.durations import Duration
from dutchdoor.model.principal import Principal
from dutchdoor.model.spelling import spelt

with extra("flask"):
    from flask import Flask, Request, Response, current_app, has_request_context, request
    from flask.sessions import SecureCookieSessionInterface
    from markupsafe import Markup
    from werkzeug.local import LocalProxy

    from dutchdoor.guard.on_flask import KeptSessions, NoSessions

if TYPE_CHECKING:
    from dutchdoor.auth import Auth as Engine
    from dutchdoor.guard.gates import Gate, Known
    from dutchdoor.stores.base import Store
    from dutchdoor.verifier import Verifier
    from dutchdoor.web.http import Request as Asked

__all__ = [
    "Anonymous",
    "AuditEvent",
    "Auth",
    "Principal",
    "User",
    "csrf_token",
    "current_principal",
    "current_user",
    "login_required",
    "next_path",
]

P = ParamSpec("P")
R = TypeVar("R")

_EXTENSION = "dutchdoor"
_FOUND, _USER = "_dutchdoor", "_dutchdoor_user"
"""Attributes of a request: who sends it, and the user."""
_ANYONE = Requirement()
_BEHIND_GUARDS: WeakSet[Callable[..., Any]] = WeakSet()
"""The views that guards call. None of them is the view of a route."""
_ANONYMOUS = Anonymous()


class Auth(OnWsgi):
    """Authentication for a Flask application.

    Args:
        app: the application; or None, and `init_app` later.
        database: a URL, a store, or a `dutchdoor.Auth` that is made already. A file `dutchdoor.db` if it is not given.
        issuer: the URL of the server that signs tokens, for a service that only verifies them.
        audience: who tokens are for.
        options: the settings of `dutchdoor.Auth`; with `issuer`, those of `dutchdoor.Verifier`.

    Raises:
        Misconfigured: a setting is unknown or wrong, or the application has an `Auth` already.
    """

    @spelt
    def __init__(
        self,
        app: Flask | None = None,
        database: str | Store | Engine | Verifier | None = None,
        *,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        self._around: Callable[[], AbstractContextManager[object]] = nullcontext
        super().__init__(database, issuer=issuer, audience=audience, **options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Attach this to an `app`. Raises `Misconfigured` for what is no application, or one that has an `Auth`."""
        if not isinstance(app, Flask):
            raise Misconfigured(f"Auth(app): {app!r} is not an application of Flask.")
        if _EXTENSION in app.extensions:
            raise Misconfigured("This application has an Auth already. One Auth serves all of its routes.")
        app.extensions[_EXTENSION] = self._gate
        self._around = app.app_context
        self._prepare(self._gate.gate)
        app.wsgi_app = engine_around(app.wsgi_app, self._gate)  # type: ignore[assignment,method-assign] # Flask's own way
        app.register_error_handler(DutchdoorError, _refused)
        app.before_request(_refuse_a_guard_above_the_route)
        app.before_request(_load_again)
        app.after_request(_ended_with_session)
        app.context_processor(_helpers)
        if isinstance(app.session_interface, SecureCookieSessionInterface):  # Flask's own, and not the application's
            self._keep_sessions(app)

    def _keep_sessions(self, app: Flask) -> None:
        """Let `flask.session` be data that the server keeps."""
        gate = self._gate
        if gate.gate.application is None:
            app.session_interface = NoSessions()
            return

        def sender(asked: Asked) -> Known | None:
            try:
                # A test's `session_transaction` has no request around it.
                return _known() if has_request_context() else gate.identify(asked, None)
            except NotAuthenticated:  # such as the cookie of a session that has ended
                return None

        app.session_interface = KeptSessions(gate, sender, _refused)

    def _prepare(self, gate: Gate) -> None:
        """Let functions of the application run in its context, as `db.session` of Flask-SQLAlchemy wants it."""
        if gate.application is not None:
            engine_of(gate).call_inside(self._around)

    @spelt
    def require(
        self, *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator for a view: it is called only if the caller meets the requirement.

        Args:
            role: a role that the account has.
            scope: words that the scope of the sign-in contains.
            fresh: the greatest age of the last proof: "5m", a timedelta, or seconds.
            factors: how many kinds of proof the sign-in took: 1 or 2.

        Raises:
            Misconfigured: an argument is wrong.
        """
        return _guard(Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors))

    @property
    def current_user(self) -> Any:
        """The same as `current_user`, with a type that you give: `current_user: MyUser = auth.current_user`. It stands
        for the user of each request, so one line for the whole module is enough.
        """
        return current_user


_IN_CLASS = "Write in the class: decorators = [{}]."


@above_views("login_required", on_class=_IN_CLASS.format("login_required"))
def login_required(view: Callable[P, R]) -> Callable[P, R]:
    """Return a `view` that is called only for a caller who is signed in."""
    return _guard(_ANYONE)(view)


def csrf_token() -> str:
    """Return the token that a form carries in its field `csrf_token`, and a script in the header `X-CSRF-Token`."""
    known = _known()
    return "" if known is None else _gate().gate.csrf_token(known)


def _guard(requirement: Requirement) -> Callable[[Callable[P, R]], Callable[P, R]]:
    @above_views("auth.require(...)", on_class=_IN_CLASS.format("auth.require(...)"))
    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        _BEHIND_GUARDS.update(filter(inspect.isfunction, _with_inner(view)))

        @functools.wraps(view)
        def guarded(*args: P.args, **named: P.kwargs) -> R:
            known = _known()
            if known is None:
                raise request_in(request.environ).unproven()
            requirement.check(known.principal, _gate().gate.clock())
            if _gate().gate.has_own_users:  # one who is gone is refused now, and not at the next request
                _loaded(known)
            answer: R = current_app.ensure_sync(view)(*args, **named)
            return answer

        return guarded

    return decorate


def _with_inner(view: Any) -> Iterator[Any]:
    """Return a view and those in it, which other decorators have wrapped: the route may stand below them."""
    while view is not None:
        yield view
        view = getattr(view, "__wrapped__", None)


def _refuse_a_guard_above_the_route() -> None:
    """Refuse a view whose guard stands above its route: Flask calls what the route got, which has no guard."""
    view = current_app.view_functions.get(request.endpoint or "")
    if view is not None and view in _BEHIND_GUARDS:
        raise Misconfigured(f"The guard of {request.endpoint!r} stands above its route. Write it below @app.get(...).")


def _load_again() -> None:
    """Have a browser that came from another site load its page again, if its key is to be proved."""
    if navigates(request.environ) and _gate().gate.reload_page and loads_again(request_in(request.environ)):
        prove_first(_known)


def _gate() -> SyncGate:
    gate: SyncGate | None = current_app.extensions.get(_EXTENSION)
    if gate is None:
        raise Misconfigured("This view has a guard, but the application has no Auth. Create it: auth = Auth(app).")
    return gate


def _known() -> Known | None:
    """Who sends this request, found once. Raises what `Auth.principal` raises."""
    # Not in `g`: that lives as long as the application context, which `app.app_context().push()` in a module makes one
    # for all requests. Each would be served as the first one's user.
    kept = vars(_this_request())
    if _FOUND not in kept:
        try:
            kept[_FOUND] = _identified()
        except DutchdoorError as error:
            kept[_FOUND] = error
    found: Known | DutchdoorError | None = kept[_FOUND]
    if isinstance(found, DutchdoorError):
        raise found
    return found


def _this_request() -> Request:
    this: Request = request._get_current_object()  # type: ignore[attr-defined] # noqa: SLF001 - the object, not a proxy
    return this


def _identified() -> Known | None:
    asked = request_in(request.environ)
    field = None
    if request.mimetype in FORMS and "Cookie" in request.headers and "X-CSRF-Token" not in request.headers:
        field = request.form.get("csrf_token")
    return _gate().identify(asked, field)


def _user() -> Any:
    try:
        known = _known()
        return _ANONYMOUS if known is None else _loaded(known)
    except NotAuthenticated:  # such as the cookie of a session that has ended
        return _ANONYMOUS


def _loaded(known: Known) -> Any:
    """The user of this request, found once: each use of `current_user` asks."""
    kept = vars(_this_request())
    if _USER not in kept:
        kept[_USER] = _gate().user(known)
    return kept[_USER]


def _principal() -> Principal | None:
    try:
        known = _known()
    except NotAuthenticated:
        return None
    return None if known is None else known.principal


current_user: User | Anonymous = LocalProxy(_user)  # type: ignore[assignment] # it behaves as one
"""The account that sends this request, or an `Anonymous`. With users of your own, `auth.current_user` is the same."""
current_principal: Principal = LocalProxy(_principal)  # type: ignore[assignment]
"""What the proof says. It is false where there is no proof."""


def _helpers() -> dict[str, Any]:
    return {"csrf_token": csrf_token, "csrf_field": _csrf_field, "current_user": current_user}


def _csrf_field() -> Markup:
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(csrf_token())


def _ended_with_session(response: Response) -> Response:
    """Have a stream end with the session that asked for it, also if only the stream itself finds out who that is."""
    kept, gate = vars(_this_request()), _gate()

    def check() -> None:
        known = kept.get(_FOUND)
        if known is not None and not isinstance(known, DutchdoorError):
            gate.check(known)

    # A file that anyone may read is left to the server, which has a faster way to send it.
    if response.is_streamed and not (response.direct_passthrough and kept.get(_FOUND) is None):
        pieces: Iterable[Any] = response.response
        response.response = while_valid(pieces, check, is_bounded="Content-Length" in response.headers)
    return response


def _refused(error: Exception) -> Response:
    if isinstance(error, Misconfigured) or not isinstance(error, DutchdoorError):
        raise error
    answer = refusal(error, request_in(request.environ), _gate().gate, request.script_root)
    return Response(answer.body, status=answer.status, headers=readable(answer.headers))
