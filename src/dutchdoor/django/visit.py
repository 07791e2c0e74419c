"""One request, who sends it, and what its response must set.

The proof is a session cookie of ours or a bearer token. A request without either may have a session of Django's that
`login()` bound to one of ours: the test client's `force_login` makes such a session, and no response sets its cookie.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asgiref.sync import sync_to_async
from django.utils.functional import SimpleLazyObject

from dutchdoor.django.asked import TEST_PEER, asked_of, to_read
from dutchdoor.django.awaiting import awaited
from dutchdoor.django.configuration import gate
from dutchdoor.django.cookie_alone import check_alone
from dutchdoor.errors import DutchdoorError, Misconfigured, NotAuthenticated
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.gates import Gate, Known
from dutchdoor.guard.requirement import Requirement
from dutchdoor.model.principal import Principal
from dutchdoor.web.http import CsrfRefused, Request
from dutchdoor.web.origin import SAFE_METHODS

if TYPE_CHECKING:
    from dutchdoor.services.presenting import SignedIn

__all__ = ["BOUND", "OWNER", "Visit", "visit_of"]

T = TypeVar("T")

BOUND: Final = "_dutchdoor"
"""The key of Django's session data with the id of our session. The id is not secret, and the data is on the server."""
OWNER: Final = "_dutchdoor_subject"
"""The key with the subject of that session: whose data it is, also after the session has ended."""
_ATTRIBUTE: Final = "_dutchdoor"


def visit_of(request: Any) -> Visit:
    """Return the visit of a request of Django or REST framework. A request that passed no middleware gets a new one."""
    request = getattr(request, "_request", request)
    visit: Visit | None = getattr(request, _ATTRIBUTE, None)
    if visit is None:
        visit = Visit(request)
        setattr(request, _ATTRIBUTE, visit)
    return visit


class Visit:
    """One request."""

    __slots__ = (
        "_asked",
        "_error",
        "_found",
        "_is_proof_read",
        "_known",
        "_proof",
        "_request",
        "gate",
        "has_passed",
        "signed_in",
        "signed_out",
        "stamp",
        "user",
    )

    def __init__(self, request: Any) -> None:
        self._request, self.gate = request, gate()
        self._asked: Request | None = None
        self._found = False
        self._known: Known | None = None
        self._error: DutchdoorError | None = None
        self._is_proof_read = False
        self._proof: Known | None = None
        self.has_passed = False
        """Whether the request has passed the middleware."""
        self.signed_in: SignedIn | None = None
        """What the response must put into a cookie."""
        self.signed_out = False
        """Whether the response must clear our cookies."""
        self.user: Any = None
        """Django's user, once it was asked for."""
        self.stamp: str | None = None
        """What stood for the password of Django's user when the request came; None until that user was read."""

    @property
    def asked(self) -> Request:
        """The request, as the engine takes it."""
        if self._asked is None:
            self._asked = asked_of(self._request)
        return self._asked

    @property
    def error(self) -> DutchdoorError | None:
        """Why the proof of this request was refused, if it was."""
        return self._error

    # Who

    def known(self) -> Known | None:
        """Return who sends this request, found once; None without a proof.

        Raises:
            NotAuthenticated: the proof is not valid, such as the cookie of a session that has ended.
            Unavailable: the store is out of reach.
        """
        if not self._found:
            try:
                self._known = self._of_test() or self._proven() or self._bound()
            except DutchdoorError as error:
                self._error = error
            self._found = True
        return self._result()

    async def aknown(self) -> Known | None:
        """Do what `known` does, without blocking the event loop."""
        if not self._found:
            try:
                self._known = await self._aidentified()
            except DutchdoorError as error:
                self._error = error
            self._found = True
        return self._result()

    async def _aidentified(self) -> Known | None:
        known = (await sync_to_async(self._of_test)() if self._is_of_test else None) or await self._aproven()
        if known is not None or not self._may_be_bound():
            return known
        session_id = await self._request.session.aget(BOUND)
        return None if session_id is None else await self.arun(_named(self.gate.gate, session_id, self.asked))

    def _proven(self) -> Known | None:
        """Return who the cookie or the token names."""
        if not self._is_proof_read:
            self._proof, self._is_proof_read = self.gate.identify(to_read(self.asked), None), True
        return self._proof

    async def _aproven(self) -> Known | None:
        if not self._is_proof_read:
            self._proof, self._is_proof_read = await self._aidentify(to_read(self.asked)), True
        return self._proof

    async def read_proof(self) -> None:
        """Find who the cookie or the token names, so that plain attributes of the request need not wait."""
        with suppress(DutchdoorError):  # it is raised where someone asks
            await self._aproven()

    def session_of_proof(self) -> str | None:
        """Return the id of the session that the cookie or the token names; None without one. Raises `Unavailable`."""
        if self._is_of_test:
            return None
        try:
            known = self._proven()
        except NotAuthenticated:
            return None
        return None if known is None else known.principal.session_id

    async def asession_of_proof(self) -> str | None:
        """Do what `session_of_proof` does, without blocking the event loop."""
        if self._is_of_test:
            return None
        try:
            known = await self._aproven()
        except NotAuthenticated:
            return None
        return None if known is None else known.principal.session_id

    async def _aidentify(self, asked: Request) -> Known | None:
        gate = self.gate.gate
        if gate.application is None:  # a verifier works in any event loop
            return await gate.identify(asked, websocket=False, csrf_field=None)
        found, known = self.gate.identify_at_once(asked, None)
        return known if found else await self.arun(gate.identify(asked, websocket=False, csrf_field=None))

    def _result(self) -> Known | None:
        if self._error is not None:
            raise self._error
        return self._known

    def _bound(self) -> Known | None:
        """Return who signed in to Django's session of this request."""
        if not self._may_be_bound():
            return None
        session_id = self._request.session.get(BOUND)
        return None if session_id is None else self.run(_named(self.gate.gate, session_id, self.asked))

    @property
    def _is_of_test(self) -> bool:
        return self.asked.peer == TEST_PEER

    def _of_test(self) -> Known | None:
        """Return who has signed in by `force_login` or `login` of the test client. They set no cookie of ours, and an
        earlier one may still be there.
        """
        if not self._is_of_test:
            return None
        try:
            return self._bound()
        except NotAuthenticated:
            return None

    def _may_be_bound(self) -> bool:
        return self.gate.gate.application is not None and getattr(self._request, "session", None) is not None

    @property
    def seen(self) -> Known | None:
        """Who sends this, if that was asked already and the proof is valid."""
        return self._known

    @property
    def was_asked(self) -> bool:
        """Whether the response depends on the proof."""
        return self._found

    def principal(self) -> Principal | None:
        """Return what the proof says; None without a valid proof. Raises `Unavailable`."""
        known = self.valid()
        return None if known is None else known.principal

    def valid(self) -> Known | None:
        """Return who sends this request; None also for a proof that is not valid, such as the cookie of a session that
        has ended. Raises `Unavailable`.
        """
        try:
            return self.known()
        except NotAuthenticated:
            return None

    def become(self, known: Known | None) -> None:
        """Take note of a log-in or a log-out during this request."""
        self._found, self._known, self._error = True, known, None
        self._is_proof_read, self._proof = True, known
        self._request.principal = SimpleLazyObject(self.principal)  # a view may have read the one before

    # May they

    def is_from_own_page(self) -> bool:
        """Return whether the request carries a valid token, which no page of another site can send, or our CSRF token
        of its session. Django need not check it then.
        """
        try:
            # A token was checked already, and the proof of its key is taken once.
            return _is_token(self._proven()) or self.gate.identify(self.asked, None) is not None
        except DutchdoorError:
            return False

    async def ais_from_own_page(self) -> bool:
        """Do what `is_from_own_page` does, without blocking the event loop."""
        try:
            return _is_token(await self._aproven()) or await self._aidentify(self.asked) is not None
        except DutchdoorError:
            return False

    def require(self, requirement: Requirement) -> Principal:
        """Return the principal, if it meets a requirement and no page of another site sent the request. Raises what the
        requirement's `check` raises, what `known` raises, and `CsrfRefused`.
        """
        self._must_have_passed()
        known = self.known()
        if self._is_unprotected(known) and self.gate.identify(self.asked, None) is None:
            raise CsrfRefused("no token")
        return self._checked(known, requirement)

    async def arequire(self, requirement: Requirement) -> Principal:
        """Do what `require` does, without blocking the event loop."""
        self._must_have_passed()
        known = await self.aknown()
        if self._is_unprotected(known) and await self._aidentify(self.asked) is None:
            raise CsrfRefused("no token")
        return self._checked(known, requirement)

    def _must_have_passed(self) -> None:
        if not self.has_passed:
            raise Misconfigured(
                "This view has a guard, but its request passed no middleware of dutchdoor. Add "
                '"dutchdoor.django.middleware.DutchdoorMiddleware" to MIDDLEWARE, after AuthenticationMiddleware.'
            )

    def _is_unprotected(self, known: Known | None) -> bool:
        """Return whether a cookie authenticates an unsafe request that Django did not check for a page of another site:
        the view is exempt, or its middleware is missing.
        """
        if known is None or known.token is not None or self.asked.method in SAFE_METHODS:
            return False
        request = self._request
        return not getattr(request, "csrf_processing_done", False) and not getattr(
            request, "_dont_enforce_csrf_checks", False
        )

    def _checked(self, known: Known | None, requirement: Requirement) -> Principal:
        if known is None:
            raise self.asked.unproven()
        requirement.check(known.principal, self.gate.gate.clock())
        return known.principal

    # The engine

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the engine's thread. Raises what it raises."""
        return self.gate.run(work)

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the engine's thread, and await it here."""
        return await awaited(self.gate, work)


async def _named(gate: Gate, session_id: str, asked: Request) -> Known | None:
    """Return who signed in to a session that Django's names. Raises `NotAuthenticated` and `StepUpRequired`."""
    known = await gate.of_session(session_id)
    if known is not None:
        auth = engine_of(gate)
        await check_alone(auth, known)
        await auth.look_at_use(asked, known.principal)
    return known


def _is_token(known: Known | None) -> bool:
    return known is not None and known.token is not None
