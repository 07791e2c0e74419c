"""Watching: what is done when a live session, or a stateless token, is used in another way than before.

A sign-in writes where it was proved. Each use is compared with the one before it, in memory. A change is assessed by
`model/suspicion.py`, written to the history, and answered: it is recorded, or the owner gets a mail, or must prove
again who they are, or the session ends. A session that must be proved again is refused by an entry in the revocation
log, at every node and every verifier, and lives for at most an hour more. The proof starts another session, and ends
this one. Where nothing but its place is in question, its browser may answer (`services/lifting.py`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, get_args

from msgspec.structs import replace

from dutchdoor.errors import Conflict, NotAuthenticated, SessionInDoubt
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.audit_events import AuditEvent, event
from dutchdoor.model.device_binding import has_proved_since
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, HOUR, LONGEST_ACCESS
from dutchdoor.model.sessions import Session
from dutchdoor.model.sightings import (
    KEPT_FOR,
    History,
    Network,
    Place,
    Sighting,
    Sightings,
    browser_family,
    coarse_network,
    first_history,
)
from dutchdoor.model.suspicion import (
    MANY_FAILURES,
    OF_PLACE,
    TOGETHER,
    Assessment,
    Reaction,
    Reason,
    Suspected,
    assess,
    assess_sign_in,
    weaker,
)
from dutchdoor.revocation.log import COALESCE_ABOVE, Revocation, next_doubt
from dutchdoor.services.endings import Endings
from dutchdoor.services.hooks import announce
from dutchdoor.services.retry import ENDINGS, retried
from dutchdoor.services.seen_lately import Carried, SeenLately
from dutchdoor.stores.base import Add, Change, ExpectFew, Log, Revoke, Swap

__all__ = ["SUSPECTED", "Use", "Watching"]

SUSPECTED: Final = "suspected"
"""Why a session ended."""
AGAIN_IN: Final = 0.25
"""Seconds after which a history is read again before a session that was used a moment ago is refused: another request
of the same browser may have written the change meanwhile, at another node."""
A_MOMENT: Final = 5.0
_OF_A_FRONT: Final[frozenset[Reason]] = frozenset({"hosting", "too_fast", "new_country", "two_places"})
"""Reasons that a proxy in front of the server gives for each of its users."""
_REFUSING: Final = frozenset({"step_up", "revoke"})

_log = logging.getLogger("dutchdoor")


class Use(NamedTuple):
    """One use of a session or a stateless token, which was proved."""

    subject: str
    session: Session | None
    token_id: str
    """The `jti` of a stateless token; "" for a session."""
    last_use: float
    """When it was used before this, as far as the store knows."""
    client_id: str = ""
    by_cookie: bool = False
    replayed: bool = False
    bound: bool = False
    """Whether the client has proved the key that the session or the token is bound to."""

    @property
    def id(self) -> str:
        """What its history belongs to."""
        return self.token_id if self.session is None else self.session.id


class Watching(Endings):
    """An issuer that looks at how its sessions and tokens are used."""

    seen_lately: SeenLately
    _is_hidden_said = False

    @property
    def watches(self) -> bool:
        """Whether the policy has anything watched."""
        return self.policy.suspicion != "off"

    def must_prove(self, id: str) -> bool:
        """Return whether the session of an `id`, or a stateless token of this `jti`, is refused until its owner proves
        again who they are.
        """
        return self.fencing.node.log.doubts(id)

    def _sighting_of(self, client: Client, *, rents: bool = False) -> Sighting | None:
        """Return what a client is seen as; None where its address says nothing of it. Then nothing is watched. `rents`
        says that a content network is seen as what it is to those who run programs there: a data centre.
        """
        network = coarse_network(client.address)
        found = self._network_of(client) if network else Network()
        if not network or (found.kind == "front" and not rents):
            self._say_hidden(client.address, found.provider)
            return None
        kind = "hosting" if found.kind == "front" else found.kind
        return Sighting(network, client.country, browser_family(client.browser), kind, found.provider)

    def _network_of(self, client: Client) -> Network:
        networks = self.hooks.networks
        return Network() if networks is None else networks.network(client.address)

    def _say_hidden(self, address: str, front: str) -> None:
        """Log once that clients look alike. Without the address: a log must not hold what an erased account leaves."""
        if self._is_hidden_said or not address or (not front and _is_loopback(address)):
            return
        self._is_hidden_said = True
        _log.warning(
            "sessions are not watched: a client comes from %s. If that is a proxy, name it in `proxies`",
            f"a network of {front}" if front else "no public address",
        )

    # Signing in

    async def _starting(
        self, account: Account, client: Client, now: float, *, inside: Session | None
    ) -> tuple[History | None, list[Change]]:
        """Return the history that a sign-in begins with, and the changes that keep its place for the account. `inside`
        is the session in which it was proved, if there was one, whose history goes on.
        """
        seen = self._sighting_of(client) if self.watches else None
        if seen is None:
            return None, []
        changes: list[Change] = []
        kept = await self.store.get(Sightings, account.subject)
        known = None if kept is None else kept.read()
        if inside is None and (known is None or not known.knows(seen.network)):
            failures = await self._failures(account.subject, now)
            places = () if known is None else known.places
            decided = assess_sign_in(seen, self.policy.suspicion, familiar=places, failures=failures)
            if decided.reaction != "calm":
                changes.append(Log(_record(account.subject, "", "", client, now, decided)))
        changes += self._proving(account.subject, kept, seen, now)
        before = None if inside is None else await self._history_of(inside.id, inside)
        if before is None:
            return first_history(seen, now), changes
        return before.moved(seen, now, last_use=now, proved=True), changes

    def _proving(self, subject: str, kept: Sightings | None, seen: Sighting, now: float) -> list[Change]:
        """Return what makes a place familiar to an account, whose places are in `kept`."""
        known = None if kept is None else kept.read()
        proved = first_history(seen, now) if known is None else known.moved(seen, now, last_use=now, proved=True)
        if kept is None:
            return [Add(_kept(subject, subject, proved, now + KEPT_FOR))]
        if known is None or not known.has_proved(seen.network) or kept.expires_at < now + KEPT_FOR - DAY:
            return [Swap(replace(kept, history=proved.encode(), expires_at=now + KEPT_FOR))]
        return []

    def _beginning(self, id: str, subject: str, history: History | None, expires_at: float) -> list[Change]:
        """Return what stores the history that a session or a token begins with. A session that began here needs none:
        its row has its first place.
        """
        return [] if history is None else [Add(_kept(id, subject, history, expires_at))]

    async def _failures(self, subject: str, now: float) -> int:
        recent = await self.store.events(subject=subject, name="login", since=now - HOUR, limit=2 * MANY_FAILURES)
        return sum(each.outcome == "refused" for each in recent)

    # Using

    async def sight(self, use: Use, client: Client, *, carried: Carried = (), at_most: Reaction = "revoke") -> None:
        """Look at a `use` that differs from the one before it. `client` is the client that uses the session, `carried`
        what its request carried of it, and `at_most` the most that may be done about it.

        Raises:
            SessionInDoubt: the session or token is refused until its owner proves again who they are.
            NotAuthenticated: the session or token was revoked.
            Unavailable: the store is out of reach.
        """
        # A verifier may stand behind another front than this server, and reports that of each client.
        seen = self._sighting_of(client, rents=at_most == "revoke") if self.watches else None
        now = self.clock()
        if seen is not None:
            await self._look(use, seen, client, now, at_most)
        if carried:
            self.seen_lately.keep(use.id, carried, now)

    async def _look(self, use: Use, seen: Sighting, client: Client, now: float, at_most: Reaction) -> None:
        # Of uses at one moment, one writes the change, and the others find it written.
        for attempt in range(3):
            about = client
            kept = await self.store.get(Sightings, use.id)
            history = self._read(kept, use.session)
            if history is None and self._network_of(client).kind == "front":
                # It began there, too: a proxy that was not configured. Otherwise a thief has a program at a content
                # network send the copy.
                self._say_hidden(client.address, self._network_of(client).provider)
                return
            if history is None:  # from before the watching began: this is the first place
                history, decided = first_history(seen, now), Assessment("calm")
            elif _is_same(history.last, seen):
                return
            else:
                if not seen.browser:  # a verifier does not report it
                    seen = replace(seen, browser=history.last.browser)
                last_use = max(use.last_use, self.seen_lately.used_at(use.id), history.places[-1].until)
                decided = assess(
                    history, seen, self.policy.suspicion, now=now, last_use=last_use,
                    familiar=await self._familiar(use.subject), by_cookie=use.by_cookie, replayed=use.replayed,
                    bound=use.bound and (use.session is None or has_proved_since(use.session, last_use, now)),
                )  # fmt: skip
                if self._may_be_in_front(client, decided):
                    decided = replace(decided, reaction="record")
                if attempt == 0 and decided.reaction in _REFUSING and now - last_use < A_MOMENT:
                    await asyncio.sleep(AGAIN_IN)
                    continue
                if decided.reaction != "calm":
                    decided = replace(decided, reaction=weaker(await self._overruled(use, decided, client), at_most))
                if "two_places" in decided.reasons and history.last.country != seen.country:
                    about = Client(country=history.last.country)  # here is the owner, back in a place of theirs
                if decided.reaction in _REFUSING:
                    await self._refuse(use, seen, about, now, decided, may_end=at_most == "revoke")
                    decided = replace(decided, reaction="record")  # no room for a doubt, and it may not be ended
                history = history.moved(seen, now, last_use=last_use)
                if decided.reaction == "notify":
                    history = history.reporting()
            if await self._write(use, kept, history, about, now, decided):
                return

    def _may_be_in_front(self, client: Client, decided: Assessment) -> bool:
        """Return whether a content network is all that `quiet` would mail about. A server may have got one in front
        that is not configured yet, and must not mail all its users.
        """
        quiet = self.policy.suspicion not in TOGETHER and decided.reaction == "notify"
        return quiet and _OF_A_FRONT.issuperset(decided.reasons) and self._network_of(client).kind == "front"

    async def _overruled(self, use: Use, decided: Assessment, client: Client) -> Reaction:
        if self.hooks.suspicious is None:
            return decided.reaction
        about = Suspected(
            subject=use.subject,
            session_id="" if use.session is None else use.session.id,
            reaction=decided.reaction,
            reasons=decided.reasons,
            address=client.address,
            country=client.country,
            device=client.device,
        )
        try:
            answer: Any = await self.hooks.calling(self.hooks.suspicious, about)
        except Exception:  # noqa: BLE001 - the policy has decided, and a broken hook must not open the door
            _log.exception("on_suspicion failed")
            return decided.reaction
        if answer is None:
            return decided.reaction
        if answer not in get_args(Reaction):
            _log.error("on_suspicion returned %r: it returns one of %s, or None", answer, ", ".join(get_args(Reaction)))
            return decided.reaction
        reaction: Reaction = answer
        return reaction

    async def _familiar(self, subject: str) -> Sequence[Place]:
        kept = await self.store.get(Sightings, subject)
        known = None if kept is None else kept.read()
        return () if known is None else known.places

    async def _history_of(self, id: str, session: Session | None) -> History | None:
        return self._read(await self.store.get(Sightings, id), session)

    def _read(self, kept: Sightings | None, session: Session | None) -> History | None:
        """Return the history of a session or a token; None if nothing is known."""
        history = None if kept is None else kept.read()
        if history is not None or session is None:
            return history
        # It was never used elsewhere: its row has the place where it began.
        began = Client(address=session.address, country=session.country)
        seen = self._sighting_of(began)
        if seen is None:
            return None
        return first_history(
            replace(seen, browser=browser_family(session.fingerprint.partition("|")[0])), session.created_at
        )

    async def _write(
        self, use: Use, kept: Sightings | None, history: History, client: Client, now: float, decided: Assessment
    ) -> bool:
        """Write the change of a history, with its audit event. Returns False if another request wrote one meanwhile."""
        ends = now + LONGEST_ACCESS if use.session is None else use.session.expires_at
        changes = self._keeping(use.id, use.subject, kept, history, min(now + KEPT_FOR, ends))
        if decided.reaction != "calm":
            changes.append(Log(_recorded(use, client, now, decided)))
        try:
            await self.store.commit(*changes)
        except Conflict:
            return False
        if decided.reaction == "notify":
            await announce(self.hooks.suspected, use.subject, client, decided.reaction, "")
        return True

    def _keeping(
        self, id: str, subject: str, kept: Sightings | None, history: History, expires_at: float
    ) -> list[Change]:
        if kept is None:
            return [Add(_kept(id, subject, history, expires_at))]
        return [Swap(replace(kept, history=history.encode(), expires_at=expires_at))]

    # Refusing

    async def _refuse(
        self, use: Use, seen: Sighting, client: Client, now: float, decided: Assessment, *, may_end: bool
    ) -> None:
        """Refuse a session or a token at every node and every verifier, and this request with it. Returns only where
        there is no room for another doubt of the account, and `may_end` is False: a verifier that lies ends nothing.
        """
        if decided.reaction == "step_up" and await self._doubt(use, seen, client, now, decided):
            has_key = use.session is not None and use.session.browser_key is not None
            answers = use.id if has_key and OF_PLACE.issuperset(decided.reasons) else ""
            await announce(self.hooks.suspected, use.subject, client, "step_up", answers)
            raise SessionInDoubt(f"used in a suspicious way: {', '.join(decided.reasons)}")
        if not may_end:
            return
        if await self._revoke(use, client, now, decided):
            await announce(self.hooks.suspected, use.subject, client, "revoke", "")
        raise NotAuthenticated(f"revoked, used in a suspicious way: {', '.join(decided.reasons)}")

    @retried(ENDINGS, "asking for another proof")
    async def _doubt(self, use: Use, seen: Sighting, client: Client, now: float, decided: Assessment) -> bool:
        """Refuse a session or a token until its owner proves again. Returns False if it has to be revoked instead: an
        account must not fill every verifier's memory with doubts.

        Raises:
            SessionInDoubt: another request, here or at another node, has done it: one thief is one event and one mail.
        """
        # Its record first, and then the log: who committed before the record was read is in the log, and who commits
        # after that makes this commit conflict.
        session, kept = None, await self.store.get(Sightings, use.id)
        if use.session is not None:
            found = await self.store.session(use.session.id)
            if found is None or found[0].ended_at is not None:
                raise NotAuthenticated("the session ended meanwhile")
            session = found[0]
        await self.fencing.catch_up()
        if self.must_prove(use.id):
            raise SessionInDoubt("in doubt since a moment")
        if await self.store.live_revocations(use.subject, now) >= COALESCE_ABOVE:
            return False
        # It ends with its doubt, or it would be accepted again when the log drops the entry.
        until = now + LONGEST_ACCESS
        number = next_doubt(self.log.doubt_of(use.id), now)
        entry = Revocation(kind="doubt", id=use.id, min_epoch=number, expires_at=until, subject=use.subject)
        changes: list[Change] = [ExpectFew(use.subject, COALESCE_ABOVE, now), Revoke(entry)]
        if session is not None:
            ends = min(session.expires_at, until)
            changes.append(Swap(replace(session, expires_at=ends, idle_expires_at=min(session.idle_expires_at, ends))))
        history = self._read(kept, session)
        if history is not None:
            asking = history.asking(seen, decided.reasons)
            ends = now + KEPT_FOR if session is None else session.expires_at
            changes += self._keeping(use.id, use.subject, kept, asking, min(now + KEPT_FOR, ends))
        await self.store.commit(*changes, Log(_recorded(use, client, now, decided)))
        return True

    async def _revoke(self, use: Use, client: Client, now: float, decided: Assessment) -> bool:
        """End a session or a token. Returns False if it had ended already."""
        if use.session is not None:
            done = await self.end(use.session.id, client=client, actor=SYSTEM, reason=SUSPECTED)
            if not done.count:
                return False
            await self.store.commit(Log(_recorded(use, client, now, decided)))
            return True
        account = await self.store.account(use.subject)
        entry = Revocation(kind="token", id=use.token_id, expires_at=now + LONGEST_ACCESS, subject=use.subject)
        changes: list[Change] = [Revoke(entry)]
        if account is not None:
            changes, _ = await self._revoking(account, [entry], now)
        await self.store.commit(*changes, Log(_recorded(use, client, now, decided)))
        return True


def _is_same(last: Sighting, seen: Sighting) -> bool:
    return last.network == seen.network and (last.browser == seen.browser or not seen.browser)


def _kept(id: str, subject: str, history: History, expires_at: float) -> Sightings:
    return Sightings(id=id, subject=subject, history=history.encode(), expires_at=expires_at)


def _recorded(use: Use, client: Client, now: float, decided: Assessment) -> AuditEvent:
    session_id = "" if use.session is None else use.session.id
    return _record(use.subject, session_id, use.client_id, client, now, decided)


def _record(
    subject: str, session_id: str, client_id: str, client: Client, now: float, decided: Assessment
) -> AuditEvent:
    return event(
        "session_suspected",
        now=now,
        client=client,
        subject=subject,
        session_id=session_id,
        client_id=client_id,
        outcome="refused" if decided.reaction in _REFUSING else "ok",
        detail=f"{decided.reaction}: {', '.join(decided.reasons)}",
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True
