"""Device Bound Session Credentials: challenges, bound cookies, and the two verbs of a browser.

Challenges and bound cookies are stamps (`model/stamps.py`): nothing is stored for them, and any node takes those of
another. A proof that is sent twice brings nothing new, because what it brings counts from the time of its challenge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from msgspec.structs import replace

from dutchdoor.errors import DeviceKeyRefused, DeviceProofRequired, NotAuthenticated
from dutchdoor.jose.dbsc import key_of, read_proof, text_of
from dutchdoor.model.audit_events import EventName, session_event
from dutchdoor.model.bindings import Binding
from dutchdoor.model.device_binding import (
    BOUND_FOR,
    CHALLENGE_FOR,
    FIRST_FOR,
    Challenge,
    Confirmed,
    Known,
    Late,
    OtherKey,
    Proof,
    Rival,
    Taken,
    Unusable,
    is_offered,
    is_within,
    judge,
    kept_for,
    on_refresh,
    on_registration,
)
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import is_id
from dutchdoor.model.rate_limits import Limit
from dutchdoor.model.sessions import Session, check_live
from dutchdoor.model.stamps import Stamps
from dutchdoor.services.endings import Found
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Log, Swap
from dutchdoor.texts import mark

__all__ = ["DEVICE_PROOFS", "ONE_OFFER", "Ask", "Bound", "DeviceBindings", "Ended", "Find"]

DEVICE_PROOFS: Final = Limit(name="device_proofs", count=60, per_seconds=600.0, burst=30)
"""Registrations and refreshes of one session. A browser needs two in ten minutes, and each that is refused writes an
event.
"""
ONE_OFFER: Final = Limit(name="device_offer", count=1, per_seconds=60.0, burst=1)
"""How often a session that is not bound yet is offered again. A browser registers a key for each offer, and the slowest
device should have registered one before it is asked for the next.
"""

Find = Callable[[], Awaitable[Found]]
"""Reads the session of the long-lived cookie. Raises `NotAuthenticated` if there is none, or it has ended."""
Admit = Callable[[Session], None]
"""Called with the session, once it is known to be that of the cookie; refuses the request by raising."""

_UNABLE: Final = mark(
    "You stay signed in only where a sign-in is bound to its device, and this browser does not bind it. Use another "
    "one, such as Chrome on Windows or macOS."
)


class Bound(NamedTuple):
    """A bound cookie for the browser."""

    session: Session
    cookie: str
    max_age: float
    """Seconds that the browser keeps it."""


class Ask(NamedTuple):
    """What the browser must sign first."""

    challenge: str
    why: str


class Ended(NamedTuple):
    """The browser should forget what it has registered."""


class DeviceBindings:
    """Binds the sessions of one authority to browsers."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.stamps = Stamps(authority.master, lambda: authority.issuer)

    # What browsers are asked and given

    def challenge_for(self, session: Session, *, anew: bool, cookie: str = "") -> str:
        """Return a challenge to register a key for this `session`; "" if the browser is not to be asked. `anew` says
        that the answer sets the cookie of a new sign-in; `cookie` is the bound cookie of the request.
        """
        policy, now = self.authority.policy.device_binding, self.authority.clock()
        has_cookie = cookie != "" and self._is_valid(cookie, session, now)
        if not is_offered(session, policy, now, anew=anew, has_cookie=has_cookie):
            return ""
        return self.stamps.made("register", session.id, now)

    def check(self, session: Session, cookie: str, *, demands: bool = True) -> None:
        """Refuse a request of a live session without the bound `cookie` that it needs ("" for none). `demands` says
        whether the policy `required` is for this request: browsers bind nothing without TLS.

        Raises:
            DeviceProofRequired: it needs a fresh proof, or cannot be bound and has to be.
        """
        policy, now = self.authority.policy.device_binding, self.authority.clock()
        if cookie != "" and self._is_valid(cookie, session, now):
            return  # whatever the session is bound to: this browser has proved its key
        verdict = judge(session, policy if demands else "optional", now, has_cookie=False)
        if verdict == "prove":
            raise DeviceProofRequired("the session is bound to a device, and the proof is missing or old")
        if verdict == "unbound":
            raise DeviceProofRequired(
                "device_binding is `required`, and the browser has bound nothing", message=_UNABLE
            )

    def asked(self, text: str, session_id: str) -> bool:
        """Whether a proof, `text`, answers a challenge to register a key for the session of a `session_id`, of any age.
        Raises `DeviceKeyRefused` for what is no such proof.
        """
        return self.stamps.time_of(read_proof(text, registers=True).challenge, "register", session_id) is not None

    # The verbs

    async def register(self, find: Find, text: str, *, client: Client, admit: Admit) -> Bound:
        """Take the key of a browser, by its proof, `text`, for the session that `find` reads.

        Raises:
            NotAuthenticated: there is no session, or it has ended.
            DeviceKeyRefused: the proof is not valid, or comes too late.
            Unavailable: the store is out of reach.
        """

        @retried(RACES, "binding the session")
        async def once() -> Bound:
            nonlocal admit
            session, account = await find()
            admit(session)
            admit = _pass
            now = self.authority.clock()
            proof = read_proof(text, registers=True)
            at = self.stamps.time_of(proof.challenge, "register", session.id)
            if at is None or not is_within(at, now, CHALLENGE_FOR):
                raise DeviceKeyRefused("its challenge is not one for this session, or too old")
            if proof.key is None or not proof.is_by(proof.key):
                raise DeviceKeyRefused("its signature is not valid")
            offered = Binding("offered", proof.alg, proof.key.kid, text_of(proof.key), int(at))
            match on_registration(session, offered, self.authority.policy.device_binding, now):
                case Taken(binding):
                    session = replace(session, binding=binding.text())
                    await self.authority.store.commit(Swap(session))
                case Known():
                    pass
                case Rival():
                    await self.authority.end_stolen(
                        session, account, client, now, "another key of a browser", name="device_key_conflict"
                    )
                    raise DeviceKeyRefused("another device holds this session, which has ended")
                case Late(why):
                    await self._record("device_key_refused", session, client, now, why)
                    raise DeviceKeyRefused(why)
                case Unusable(why):
                    raise DeviceKeyRefused(why)
            bound = self._bound(session, at, now)
            return bound._replace(max_age=min(FIRST_FOR, bound.max_age))

        return await once()

    async def named(self, known_as: str) -> Found:
        """Return the session that a browser knows as `known_as`, which is no secret, where it may not send its cookie.
        Raises `NotAuthenticated`.
        """
        store = self.authority.store
        found = await store.session(known_as) if is_id(known_as) else None
        if found is None:
            raise NotAuthenticated("no such session")
        session, account = found
        if session.end_reason == "replaced":  # perhaps by one that was proved inside of it
            others = await self.authority.sessions(session.subject)
            found = next(((each, account) for each in others if each.known_as == known_as), found)
        check_live(*found, self.authority.clock())
        return found

    async def refresh(
        self, find: Find, text: str, *, client: Client, admit: Admit, alone: bool = False
    ) -> Bound | Ask | Ended:
        """Give the browser of the session that `find` reads another bound cookie, for its proof, `text` ("" for none).
        `alone` says that its id is all that the browser has shown. A wrong proof is no event then: anyone could write
        them.

        Raises `Unavailable` when the store is out of reach, and what `admit` raises.
        """

        @retried(RACES, "confirming the key of a browser")
        async def once() -> Bound | Ask | Ended:
            nonlocal admit
            try:
                session, _ = await find()
            except NotAuthenticated:
                return Ended()
            admit(session)
            admit = _pass
            now = self.authority.clock()
            proved, at, why = self._read(session, text, now)
            match on_refresh(session, proved):
                case Challenge():
                    return Ask(self.stamps.made("refresh", session.known_as, now), why)
                case OtherKey():
                    if not alone:
                        await self._record("device_key_refused", session, client, now, "another key")
                    return Ask(self.stamps.made("refresh", session.known_as, now), why)
                case Confirmed(binding, is_new):
                    if is_new:
                        session = replace(session, binding=replace(binding, confirmed_at=int(now)).text())
                        record = session_event("session_bound", session, client, now, detail=binding.alg)
                        await self.authority.store.commit(Swap(session), Log(record))
                        self.authority.look_up_again(session.id)
                    return self._bound(session, at, now)
            return Ended()

        return await once()

    def _read(self, session: Session, text: str, now: float) -> tuple[Proof, float, str]:
        """Return what a proof shows, the time of its challenge, and why it shows nothing."""
        binding = None if session.binding is None else Binding.parse(session.binding)
        if not text or binding is None or not binding.is_of_browser:
            return "none", 0.0, "there is none yet"
        try:
            proof = read_proof(text, registers=False)
        except DeviceKeyRefused as refusal:
            return "none", 0.0, refusal.reason
        at = self.stamps.time_of(proof.challenge, "refresh", session.known_as)
        if at is None or not is_within(at, now, CHALLENGE_FOR):
            return "none", 0.0, "its challenge is not one for this session, or too old"
        is_right = proof.is_by(key_of(binding.jwk, binding.alg))
        return ("right", at, "") if is_right else ("wrong", at, "its signature is not by the key of this session")

    async def _record(self, name: EventName, session: Session, client: Client, now: float, why: str) -> None:
        record = session_event(name, session, client, now, detail=why, outcome="refused")
        await self.authority.store.commit(Log(record))

    # Bound cookies

    def _bound(self, session: Session, at: float, now: float) -> Bound:
        at = min(at, now)  # a node whose clock is ahead made the challenge: it prolongs nothing
        return Bound(session, self.stamps.made("cookie", session.known_as, at), kept_for(at, now))

    def _is_valid(self, cookie: str, session: Session, now: float) -> bool:
        at = self.stamps.time_of(cookie, "cookie", session.id)
        if at is None and session.binding is not None and session.known_as != session.id:
            at = self.stamps.time_of(cookie, "cookie", session.known_as)
        return at is not None and is_within(at, now, BOUND_FOR)


def _pass(_session: Session) -> None:
    """Let a repeat pass after a lost race: it was counted."""
