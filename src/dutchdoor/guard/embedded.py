"""The gate of an application that embeds `Auth`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from dutchdoor.auth import Auth
from dutchdoor.errors import Forbidden, NotAuthenticated, SessionInDoubt
from dutchdoor.guard.gates import AsgiApp, Known
from dutchdoor.guard.unloaded import NOT_LOADED
from dutchdoor.guard.user import User
from dutchdoor.model.session_data import SessionData
from dutchdoor.model.sessions import check_live
from dutchdoor.web.api import Call, Caller
from dutchdoor.web.http import BadRequest, Header, Request
from dutchdoor.web.origin import SAFE_METHODS
from dutchdoor.web.sign_in_page import RELOAD_PATH, read_sign_in_page

__all__ = ["Embedded"]

VARY: Final = (b"vary", b"Cookie")


class Embedded:
    """The gate of an application that embeds `Auth`."""

    reads_cookies = True
    unloaded = NOT_LOADED

    def __init__(self, auth: Auth, *, sign_in_page: str | None = None) -> None:
        self.sign_in_page = auth.site.sign_in_page if sign_in_page is None else read_sign_in_page(sign_in_page)
        ours = self.sign_in_page == auth.site.sign_in_page
        self.confirm_page = auth.site.confirm_page if ours else ""
        self.reload_page = auth.site.base_path + RELOAD_PATH
        self.auth, self.owns = auth, auth.owns
        self.described, self.paths = auth.described, auth.own_paths.all
        self.application: AsgiApp = auth.asgi()
        self._external = auth.directory.external
        self.has_own_users = self._external is not None

    def clock(self) -> float:
        return self.auth.authority.clock()

    async def identify(self, asked: Request, *, websocket: bool, csrf_field: str | None) -> Known | None:
        return self._known(asked, await self.auth.caller(asked, websocket=websocket, csrf_field=csrf_field))

    def identify_at_once(self, asked: Request, *, csrf_field: str | None) -> tuple[bool, Known | None]:
        found, caller = self.auth.caller_at_once(asked, csrf_field=csrf_field)
        return found, self._known(asked, caller)

    def _known(self, asked: Request, caller: Caller | None) -> Known | None:
        """Return what is known of the caller of a request."""
        if caller is None:
            return None
        if caller.by_cookie:
            account = caller.account if self._external is None else None
            return Known(caller.principal, None if account is None else User.of(account))
        return Known(caller.principal, token=asked.credentials()[1])

    async def of_session(self, session_id: str) -> Known | None:
        held = await self.auth.authority.recall(session_id)
        if held is None:
            raise NotAuthenticated("the session is gone")
        check_live(held.session, held.account, self.auth.authority.clock())
        if self.auth.authority.must_prove(session_id):
            raise SessionInDoubt("the session is in doubt")
        return Known(held.principal, User.of(held.account) if self._external is None else None)

    async def user(self, known: Known) -> Any:
        if self._external is not None:
            return await self._external.user_of(known.principal)
        if known.user is not None:
            return known.user
        authority, principal = self.auth.authority, known.principal
        if principal.session_id is not None:  # mostly in memory
            held = await authority.recall(principal.session_id)
            account = None if held is None or held.session.subject != principal.subject else held.account
        else:
            account = await authority.store.account(principal.subject)
        if account is None or not account.active:
            raise NotAuthenticated("the account is disabled or removed")
        return User.of(account)

    def user_at_once(self, known: Known) -> Any:
        if self._external is not None:
            return self._external.user_at_once(known.principal)
        if known.user is not None:
            return known.user
        principal = known.principal
        held = None if principal.session_id is None else self.auth.authority.recall_at_once(principal.session_id)
        # What is remembered is live. For all else, `user` finds out why.
        return User.of(held.account) if held is not None and held.session.subject == principal.subject else None

    async def check(self, known: Known) -> None:
        authority = self.auth.authority
        if known.token is not None:
            await authority.verify_again(known.token)
        elif known.principal.session_id is not None:
            await self.of_session(known.principal.session_id)

    def check_at_once(self, known: Known) -> bool:
        authority, session_id = self.auth.authority, known.principal.session_id
        if known.token is not None:
            return authority.verify_again_at_once(known.token) is not None
        if session_id is None:
            return True
        return authority.recall_at_once(session_id) is not None and not authority.must_prove(session_id)

    async def position(self) -> Hashable:
        fencing = self.auth.authority.fencing
        await fencing.follow()
        return fencing.node.log_epoch, fencing.node.applied_seq

    async def session_data(self, asked: Request, known: Known | None) -> SessionData:
        data = self.auth.authority.data
        principal = None if known is None else known.principal
        if principal is not None and principal.session_id is not None:
            return await data.of_session(principal.session_id, principal.subject)
        return await data.of_visitor(self.auth.visitor(asked))

    async def save(self, asked: Request, data: SessionData) -> list[Header]:
        if not data.session_id and asked.method not in SAFE_METHODS and data.changes():
            self._judge(asked)
        cookies, policy = self.auth.site.cookies, self.auth.authority.policy
        match await self.auth.authority.data.save(data):
            case "set" if data.token is not None:
                return [VARY, cookies.visitor.set(data.token.text(), max_age=policy.visitor_data_for)]
            case "clear":
                return [VARY, cookies.visitor.cleared]
        return [VARY]

    def _judge(self, asked: Request) -> None:
        """Refuse a page of another site. Its form arrives without the visitor's cookie, so the answer would replace
        that by the cookie of a visitor whose data the page has chosen. Raises `Forbidden`.
        """
        try:
            self.auth.site.edge.admit(asked)
        except BadRequest as error:
            raise Forbidden(error.reason, message=str(error)) from None
        Call(self.auth.api, asked, {}).judge(asked.method, by_cookie=False, handshake=False)

    def csrf_token(self, known: Known) -> str:
        session_id = known.principal.session_id
        return "" if known.token is not None or session_id is None else self.auth.csrf_token(session_id)

    async def open(self) -> None:
        await self.auth.open()

    async def close(self) -> None:
        await self.auth.close()
