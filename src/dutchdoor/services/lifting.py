"""Lifting: a browser answers for its session, which is in doubt because of where it was used.

The script of our pages makes a key at the sign-in, and the session keeps the public part. A copied cookie comes without
the key. When a session is in doubt for its place alone, the page that asks its owner has a challenge, and the script
signs it. Then the doubt is lifted at every node and every verifier, the session goes on with the id and the life that
it had, and the place is familiar, as after a proof by a person.

The challenge is a stamp (`model/stamps.py`) for one doubt of one session. So an answer that someone has read on its way
lifts nothing else: not the same session's next doubt, and no other session's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

from msgspec.structs import replace

from dutchdoor.errors import DeviceKeyRefused, NotAuthenticated
from dutchdoor.jose.browser_key import is_signed_by
from dutchdoor.model.audit_events import session_event
from dutchdoor.model.device_binding import is_within
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.rate_limits import Limit
from dutchdoor.model.sessions import Session, check_live, prolonged
from dutchdoor.model.sightings import KEPT_FOR, History, Sightings
from dutchdoor.model.stamps import Stamps
from dutchdoor.model.suspicion import may_answer
from dutchdoor.revocation.log import COALESCE_ABOVE, Revocation, is_doubt
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.watching import Watching
from dutchdoor.stores.base import ExpectFew, Log, Revoke, Swap

__all__ = ["BROWSER_ANSWERS", "Lifting"]

ANSWERS_WITHIN: Final = 120.0
"""Seconds for which a challenge is taken. A script signs it in milliseconds."""
BROWSER_ANSWERS: Final = Limit(name="browser_answers", count=10, per_seconds=600.0, burst=5)
"""Answers for one session. A browser needs one for a journey, and each that is wrong writes an event."""


class Lifting(Watching):
    """An issuer that lifts the doubt about a session whose browser proves its key."""

    @cached_property
    def _doubt_stamps(self) -> Stamps:
        return Stamps(self.master, lambda: self.issuer)

    async def challenge_for_browser(self, session: Session, client: Client) -> str:
        """Return what the browser of a `session` in doubt has to sign to lift it; "" if its owner must prove who they
        are. Raises `Unavailable` when the store is out of reach.
        """
        number, seen = self.log.doubt_of(session.id), self._sighting_of(client)
        if session.browser_key is None or seen is None or not is_doubt(number):
            return ""
        if not may_answer((await self._asked_about(session))[1].question, seen):
            return ""
        return self._doubt_stamps.made("doubt", _one_doubt(session.id, number), self.clock())

    async def lift(self, session_id: str, challenge: str, signature: bytes, *, client: Client) -> None:
        """Lift the doubt about the session of a `session_id`, whose cookie the `client` has, by its browser's
        `signature` of a `challenge`. A session that is not in doubt is left as it is: another tab has answered.

        Raises:
            DeviceKeyRefused: the answer is not right, or the owner has to prove who they are.
            NotAuthenticated: the session has ended.
            Unavailable: the store is out of reach.
        """
        refused = await self._lift(session_id, challenge, signature, client)
        if refused is not None:
            session, why = refused
            record = session_event("device_key_refused", session, client, self.clock(), detail=why, outcome="refused")
            await self.store.commit(Log(record))
            raise DeviceKeyRefused(why)

    @retried(RACES, "lifting a doubt")
    async def _lift(
        self, session_id: str, challenge: str, signature: bytes, client: Client
    ) -> tuple[Session, str] | None:
        """Lift a doubt, or return the session and why not."""
        # The records first, and then the log, as in `_doubt`: what another call commits later makes this one conflict.
        found = await self.store.session(session_id)
        if found is None:
            raise NotAuthenticated("the session ended meanwhile")
        session, now = found[0], self.clock()
        check_live(*found, now)
        kept, history = await self._asked_about(session)
        await self.fencing.catch_up()
        number = self.log.doubt_of(session_id)
        if not is_doubt(number):
            return None
        at = self._doubt_stamps.time_of(challenge, "doubt", _one_doubt(session_id, number))
        if session.browser_key is None or at is None or not is_within(at, now, ANSWERS_WITHIN):
            raise DeviceKeyRefused("its challenge is not one for this doubt, or too old")
        if not is_signed_by(session.browser_key, challenge, signature):
            return session, "its signature is not by the key of this session's browser"
        seen = self._sighting_of(client)
        question = history.question
        if seen is None or question is None or not may_answer(question, seen):
            return session, "the session was used elsewhere, too, or in a way that only its owner can explain"
        if await self.store.live_revocations(session.subject, now) >= COALESCE_ABOVE:
            # A thief who puts it in doubt again and again must not fill the memory of every verifier.
            return session, "this account was asked too often within the hour"
        lifted = Revocation(
            kind="doubt", id=session_id, min_epoch=number + 1, expires_at=now + LONGEST_ACCESS, subject=session.subject
        )
        session = prolonged(session, now, self.policy)
        moved = replace(history.moved(seen, now, last_use=history.places[-1].until, proved=True), question=None)
        places = await self.store.get(Sightings, session.subject)
        await self.store.commit(
            ExpectFew(session.subject, COALESCE_ABOVE, now),
            Revoke(lifted),
            Swap(session),
            *self._keeping(session_id, session.subject, kept, moved, min(now + KEPT_FOR, session.expires_at)),
            *self._proving(session.subject, places, seen, now),
            Log(session_event("session_confirmed", session, client, now, detail=", ".join(question.reasons))),
        )
        return None

    async def _asked_about(self, session: Session) -> tuple[Sightings | None, History]:
        """Return what is stored of the sightings of a session, and its history."""
        kept = await self.store.get(Sightings, session.id)
        history = self._read(kept, session)
        return kept, _NO_HISTORY if history is None else history


def _one_doubt(session_id: str, number: int) -> str:
    return f"{session_id}.{number}"


_NO_HISTORY: Final = History((), ())
