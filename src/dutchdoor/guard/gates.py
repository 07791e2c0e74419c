"""A gate finds who sends a request: here by a verifier that follows a server elsewhere, in `embedded` by the engine in
this process.

An adapter sees one difference: a service that only verifies reads no cookie, because the cookie of another host never
reaches it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from typing import Any, Protocol

from msgspec import Struct

from dutchdoor.errors import InvalidDpopProof, InvalidToken, Misconfigured
from dutchdoor.guard.unloaded import NOT_KEPT, Unloaded
from dutchdoor.guard.user import User
from dutchdoor.jose.dpop import DpopProof
from dutchdoor.model.base_path import whole_path
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData
from dutchdoor.verifier import Verifier
from dutchdoor.web.dpop import DPOP_SCHEME, proof_in
from dutchdoor.web.http import BadRequest, Header, Request, canonical_host, is_loopback

__all__ = ["AsgiApp", "Gate", "Known", "Message", "Receive", "Scope", "Send", "Verifying"]

_log = logging.getLogger("dutchdoor")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Known(Struct, frozen=True):
    """Who sent a request, and what proved it."""

    principal: Principal
    user: User | None = None
    """The account, where the proof brought it along: a cookie does, a token does not."""
    token: str | None = None
    """The access token that was the proof; None for a cookie."""


class Gate(Protocol):
    """Finds who sends a request, and whether that proof still holds."""

    clock: Callable[[], float]
    """The time of day, in seconds since 1970."""
    application: AsgiApp | None
    """Answers the paths of the API; None in a service that only verifies."""
    paths: tuple[str, ...]
    """The paths of the API. One that ends with a slash stands for all below it."""
    sign_in_page: str
    """Where a browser is sent that opens a page without a session; "" if nowhere."""
    confirm_page: str
    """Where a browser is sent whose proof is too old or too weak; "" for the sign-in page, which is the application's
    own then."""
    reload_page: str
    """Where a browser is sent that could not prove its key, because it came from another site; "" where no cookie is
    read."""
    reads_cookies: bool
    """Whether a cookie may be the proof, so that a form must carry a CSRF token."""
    has_own_users: bool
    """Whether users are the application's own: objects that it loads."""
    unloaded: Unloaded
    """What stands in the scope until session data is loaded."""

    def owns(self, path: str, root_path: str = "") -> bool:
        """Return whether the API answers a path. `root_path` is where the application is mounted."""
        ...

    def described(self) -> dict[str, Any]:
        """Return the OpenAPI document of these paths, with the ways to prove who one is."""
        ...

    async def identify(self, asked: Request, *, websocket: bool, csrf_field: str | None) -> Known | None:
        """Return who sent a request; None if it carries no proof. Raises what `Auth.principal` raises."""
        ...

    def identify_at_once(self, asked: Request, *, csrf_field: str | None) -> tuple[bool, Known | None]:
        """Do what `identify` does in a thread without an event loop. (False, None) if the engine's loop must do it."""
        ...

    async def of_session(self, session_id: str) -> Known | None:
        """Return who signed in to a session, whose id the server itself has kept. None in a service that only verifies.
        Raises `NotAuthenticated` if the session has ended, and `Unavailable`.
        """
        ...

    async def user(self, known: Known) -> Any:
        """Return the `User` behind a proof, or the application's own object where it has users of its own. Raises
        `NotAuthenticated` if there is none any more, and `Unavailable`.
        """
        ...

    def user_at_once(self, known: Known) -> Any:
        """Do what `user` does in a thread without an event loop. None if the engine's loop must do it."""
        ...

    async def check(self, known: Known) -> None:
        """Check a proof once more, for a connection that stays open. Raises what `identify` raises."""
        ...

    def check_at_once(self, known: Known) -> bool:
        """Do what `check` does in a thread without an event loop. False if the engine's loop must do it."""
        ...

    async def position(self) -> Hashable:
        """Return something that changes whenever a proof may have been revoked."""
        ...

    async def session_data(self, asked: Request, known: Known | None) -> SessionData:
        """Return the data of the caller's session, or of the visitor whose cookie a request carries.

        Raises:
            Misconfigured: this service only verifies.
            Unavailable: the store is out of reach.
        """
        ...

    async def save(self, asked: Request, data: SessionData) -> list[Header]:
        """Store what a request changed. Returns the headers for its response.

        Raises:
            Forbidden: a page of another site caused the request, and it would store a visitor's data.
            TooMuchData: it is larger than the policy allows.
            TypeError: a value is not JSON.
            Unavailable: the store is out of reach.
        """
        ...

    def csrf_token(self, known: Known) -> str:
        """Return the CSRF token for forms and scripts of a page; "" where the proof needs none."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...


_ONLY_TOKENS: dict[str, Any] = {
    "paths": {},
    "components": {
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}, "dpop": DPOP_SCHEME}
    },
}


class Verifying:
    """The gate of a service that only verifies access tokens."""

    application: AsgiApp | None = None
    paths: tuple[str, ...] = ()
    sign_in_page = confirm_page = reload_page = ""
    reads_cookies = has_own_users = False
    unloaded = NOT_KEPT

    def __init__(self, verifier: Verifier) -> None:
        self.verifier, self.clock = verifier, time.time

    def owns(self, path: str, root_path: str = "") -> bool:  # noqa: ARG002
        return False

    def described(self) -> dict[str, Any]:
        return _ONLY_TOKENS

    async def identify(self, asked: Request, *, websocket: bool, csrf_field: str | None) -> Known | None:  # noqa: ARG002
        token, proof = self._presented(asked)
        if token is None:
            return None
        principal = await self.verifier.check(token, proof)
        self.verifier.seen(token, principal, asked.peer)
        return Known(principal, token=token)

    def identify_at_once(self, asked: Request, *, csrf_field: str | None) -> tuple[bool, Known | None]:  # noqa: ARG002
        token, proof = self._presented(asked)
        if token is None:
            return True, None
        principal = self.verifier(token, proof)
        self.verifier.seen(token, principal, asked.peer)
        return True, Known(principal, token=token)

    def _presented(self, asked: Request) -> tuple[str | None, DpopProof | None]:
        """Return the access token and, if it came by the scheme DPoP, the proof of its key; None without a token.
        Raises `InvalidToken`.
        """
        try:
            token, by_dpop = asked.access_token()
            return token, proof_in(asked, *self._place_of(asked)) if by_dpop else None
        except BadRequest as error:
            raise InvalidToken(error.reason or str(error), message=str(error)) from None

    def _place_of(self, asked: Request) -> tuple[str, str]:
        """Return the origin and the path under which the client sent a request. Raises `InvalidDpopProof`."""
        path = whole_path(asked.path, asked.mount)
        if self.verifier.public_url is not None:
            scheme, _, rest = self.verifier.public_url.partition("://")
            host, slash, before = rest.partition("/")
            return f"{scheme}://{host}", whole_path(path, slash + before)  # which a proxy may have stripped
        host = canonical_host(asked.header(b"host") or "", asked.scheme)
        if is_loopback(host):
            return f"{asked.scheme}://{host}", path
        # A `Host` header is what the client says: a service that took its word would take the proofs of another one.
        _log.warning("a DPoP token was refused: set public_url, the URL of this service (Verifier, Auth)")
        raise InvalidDpopProof("this service does not know its URL: its operator has to set public_url")

    async def of_session(self, session_id: str) -> Known | None:  # noqa: ARG002
        return None

    async def user(self, known: Known) -> Any:
        return User.named(known.principal)

    def user_at_once(self, known: Known) -> Any:
        return User.named(known.principal)

    async def check(self, known: Known) -> None:
        await self.verifier.check_again(known.token or "")

    def check_at_once(self, known: Known) -> bool:
        self.verifier.again(known.token or "")
        return True

    async def position(self) -> Hashable:
        return self.verifier.applied_seq

    async def session_data(self, asked: Request, known: Known | None) -> SessionData:  # noqa: ARG002
        raise Misconfigured(NOT_KEPT.why)

    async def save(self, asked: Request, data: SessionData) -> list[Header]:  # noqa: ARG002 - there is none
        return []

    def csrf_token(self, known: Known) -> str:  # noqa: ARG002 - no browser adds a token by itself
        return ""

    async def open(self) -> None:
        await self.verifier.__aenter__()

    async def close(self) -> None:
        await self.verifier.aclose()
