"""`flask.session` over data that the server keeps: read when a view first touches it, stored before the response."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin

from dutchdoor.errors import DutchdoorError
from dutchdoor.guard.threads import SyncGate
from dutchdoor.guard.unloaded import NOT_KEPT
from dutchdoor.guard.wsgi import request_in
from dutchdoor.model.session_data import Form, SessionData
from dutchdoor.web.http import Request as Asked

if TYPE_CHECKING:
    from flask import Flask, Request, Response

    from dutchdoor.guard.gates import Known

__all__ = ["KeptSession", "KeptSessions", "NoSessions"]

_TAGGED: Final = TaggedJSONSerializer()
_FORM: Final = Form(_TAGGED.tag, _TAGGED._untag_scan)  # noqa: SLF001 - `loads` parses text as well, and ours is parsed
"""Tuples, dates, `Markup`, UUIDs and bytes come back as they were, as they do from Flask's own cookie."""


class KeptSession(SessionMixin):
    """The session data of one request."""

    def __init__(self, asked: Asked, load: Callable[[], SessionData]) -> None:
        self.asked, self._load = asked, load
        self.data: SessionData | None = None
        """None until it is touched."""

    def _touched(self) -> SessionData:
        if self.data is None:
            self.data = self._load()
            self.data.form = _FORM
            self.new = self.data.record is None
        return self.data

    def __getitem__(self, key: str) -> Any:
        return self._touched()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._touched()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._touched()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._touched()

    def __iter__(self) -> Iterator[str]:
        return iter(self._touched())

    def __len__(self) -> int:
        return len(self._touched())

    @property
    def modified(self) -> bool:
        """Whether something changed, nested values too: it is found by comparing. Setting this changes nothing."""
        return self.data is not None and bool(self.data.changes())

    @modified.setter
    def modified(self, value: bool) -> None: ...

    @property
    def permanent(self) -> bool:
        """True: the policy decides how long data is kept. Setting this changes nothing."""
        return True

    @permanent.setter
    def permanent(self, value: bool) -> None: ...


class KeptSessions(SessionInterface):
    """Opens and stores the session data of each request.

    Args:
        gate: finds and stores it.
        sender: returns who sends a request; None for a visitor.
        refused: makes the response for an error.
    """

    def __init__(
        self,
        gate: SyncGate,
        sender: Callable[[Asked], Known | None],
        refused: Callable[[Exception], Response],
    ) -> None:
        self._gate, self._sender, self._refused = gate, sender, refused

    def open_session(self, app: Flask, request: Request) -> KeptSession:  # noqa: ARG002
        asked = request_in(request.environ)

        def load() -> SessionData:
            known = self._sender(asked)
            return self._gate.session_data(asked, known)

        return KeptSession(asked, load)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:  # noqa: ARG002
        data = session.data if isinstance(session, KeptSession) else None
        if data is None or data.is_closed or not isinstance(session, KeptSession):
            return
        try:
            headers = self._gate.save(session.asked, data)
        except DutchdoorError as error:  # too late for Flask's own handlers
            refused = self._refused(error)
            response.status, response.headers = refused.status, refused.headers
            response.response = refused.response
            return
        for name, value in headers:
            response.headers.add(name.decode("ascii"), value.decode("ascii"))


class NoSessions(SecureCookieSessionInterface):
    """The sessions of a service that only verifies: none. With a secret key, Flask's own signed cookie."""

    def open_session(self, app: Flask, request: Request) -> Any:
        if app.secret_key:
            return super().open_session(app, request)
        return KeptSession(request_in(request.environ), NOT_KEPT.refuse)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if not isinstance(session, KeptSession):
            super().save_session(app, session, response)
