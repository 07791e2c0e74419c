"""`auth.require(...)` on the views of Django, and how a view refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.views import View

from dutchdoor.django.configuration import gate, listen
from dutchdoor.django.users import auser_of, user_of
from dutchdoor.django.visit import Visit, visit_of
from dutchdoor.errors import Misconfigured, NotAuthenticated
from dutchdoor.guard.above_views import above_views
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.requirement import Requirement
from dutchdoor.model.audit_entry import AuditEvent, EventName, check_events
from dutchdoor.model.durations import Duration
from dutchdoor.model.spelling import spelt

if TYPE_CHECKING:
    from dutchdoor.auth import Auth

__all__ = ["Attached"]

ListenerT = TypeVar("ListenerT", bound=Callable[[AuditEvent], object])
ViewT = TypeVar("ViewT", bound=Callable[..., Any])


_ON_CLASS = 'Write above the class: @method_decorator(auth.require(...), name="dispatch").'


class Attached:
    """What a project's settings attach to it. There is one: `dutchdoor.django.auth`."""

    @spelt
    def require(
        self, *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
    ) -> Callable[[ViewT], ViewT]:
        """Return a decorator for a view, plain or `async def`: it is called only if the caller meets the requirement.
        On a class, use Django's `method_decorator(auth.require(...), name="dispatch")`.

        Args:
            role: a role that the account has: the name of a group of Django's, or `admin`, which superusers have.
            scope: words that the scope of the sign-in contains.
            fresh: the greatest age of the last proof: "5m", a timedelta, or seconds.
            factors: how many kinds of proof the sign-in took: 1 or 2.

        Raises:
            Misconfigured: an argument is wrong.
        """
        requirement = Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors)

        @above_views(
            "auth.require(...)",
            on_class=_ON_CLASS,
        )
        def decorate(view: Any) -> Any:
            if iscoroutinefunction(view):

                @functools.wraps(view)
                async def aguarded(request: Any, *args: Any, **named: Any) -> Any:
                    await _visit(request).arequire(requirement)
                    _check(await auser_of(request))
                    return await view(request, *args, **named)

                return aguarded

            @functools.wraps(view)
            def guarded(request: Any, *args: Any, **named: Any) -> Any:
                _visit(request).require(requirement)
                _check(user_of(request))
                return view(request, *args, **named)

            return guarded

        return decorate

    def on(self, *names: EventName) -> Callable[[ListenerT], ListenerT]:
        """Do what `dutchdoor.Auth.on` does: return a decorator of a function that is called after these audit events.
        It runs in a thread. Raises `Misconfigured` for a wrong name.
        """
        check_events(names)

        def decorate(listener: ListenerT) -> ListenerT:
            listen(names, listener)
            return listener

        return decorate

    def end_all(self, subject: str, *, reason: str = "ended_by_application", wait: float = 1.0) -> float:
        """Do what `dutchdoor.Auth.end_all` does: revoke all sessions and tokens of a `subject`, for a `reason`, and
        `wait` until no verifier accepts them. Returns the seconds that are left at most.
        """
        return gate().run(self.engine.end_all(subject, reason=reason, wait=wait))

    def erase(self, subject: str, *, wait: float = 1.0) -> float:
        """Do what `dutchdoor.Auth.erase` does: erase what is kept of a `subject`, and `wait` until no verifier accepts
        its tokens. Returns the seconds that are left at most.
        """
        return gate().run(self.engine.erase(subject, wait=wait))

    def proved(self, request: Any, *methods: str) -> None:
        """Take note that the user of a request has just given a further proof, such as a code: the session starts anew,
        under another id. `auth.require(factors=2)` and `fresh=` then find it.

        Args:
            request: the request of Django, whose user has signed in.
            methods: how (RFC 8176): `otp`, `hwk`, `sms` and others; `pwd` for the password once more.

        Raises:
            NotAuthenticated: no one has signed in.
            Misconfigured: this service only verifies tokens.
        """
        engine_of(gate().gate)
        import_module("dutchdoor.django.logins").proved(request, methods)

    @property
    def engine(self) -> Auth:
        """The `dutchdoor.Auth` of this process. Raises `Misconfigured` in a service that only verifies."""
        return engine_of(gate().gate)

    def close(self) -> None:
        """Close the engine. The end of the process does it, too."""
        gate().close()


def _visit(request: Any) -> Visit:
    if isinstance(request, View):
        raise Misconfigured(
            f"auth.require(...) guards a view, and not a method of {type(request).__name__}. {_ON_CLASS}"
        )
    return visit_of(request)


def _check(user: Any) -> None:
    """Refuse a user who is inactive, gone or changed now, and not at the next request. Raises `NotAuthenticated`."""
    if not user.is_authenticated:
        raise NotAuthenticated("the user is inactive, gone, or has another password")
