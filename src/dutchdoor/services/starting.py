"""Starting: a session, or a stateless token, from a proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from dutchdoor.errors import Conflict, NotAuthenticated, SessionLimitReached, Unavailable
from dutchdoor.jose.browser_key import is_browser_key
from dutchdoor.model import sessions
from dutchdoor.model.accounts import Account, external_account
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.audit_events import AuditEvent, event, session_event
from dutchdoor.model.bindings import Binding
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Verified
from dutchdoor.model.sessions import Session
from dutchdoor.services.endings import Found, Leaving, by_owner
from dutchdoor.services.presenting import Presenting, SignedIn
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.session_data import DataVerbs
from dutchdoor.stores.base import Add, Change, Expect, Log, Swap

__all__ = ["Starting"]


class Starting(Presenting):
    """An issuer that starts sign-ins."""

    client_id: str
    data: DataVerbs

    async def start(
        self,
        verified: Verified,
        *,
        mode: Mode,
        client: Client,
        client_id: str = "",
        scope: str = "",
        account: Account | None = None,
        replacing: Sequence[Found] = (),
        inside: Session | None = None,
        visitor: str = "",
        also: Sequence[Change] = (),
        beside: Callable[[Session], Sequence[Change]] | None = None,
        tries_again: bool = True,
    ) -> SignedIn:
        """Start a sign-in from a proof. Every call creates a new id, and revokes what it replaces in the same
        transaction.

        Args:
            verified: the proof. Its epoch was read together with the credential.
            mode: `session`, `hybrid` or `jwt`.
            scope: the `scope` of access tokens (RFC 6749, section 3.3); "" for none.
            account: the account as it was read for the proof, which saves a look-up.
            replacing: sessions to revoke with it, such as the one this browser held, each with its account. Some may
                be revoked already.
            inside: the session in which the proof was given. It is replaced, too, and must be live. What needs its key
                needs it from then on.
            visitor: the token of a visitor's cookie, whose session data the new session takes over; "" for none. It
                also takes over that of the sessions of the same account that it replaces.
            also: further changes of the same transaction.
            beside: returns further ones about the session that starts; not called for a stateless sign-in.
            tries_again: whether to try again after a lost race. False raises `Conflict`, for a caller whose `also` must
                be decided again.

        Raises:
            NotAuthenticated: the account is gone or disabled, or its epoch has risen since the proof: prove again. Or
                the session in which the proof was given was revoked.
            SessionLimitReached: the policy refuses one more session.
            Misconfigured: the `claims` hook returns claims that no token may carry.
        """
        known = account
        first = True
        browser_key = _browser_key(client, inside)

        async def once() -> SignedIn:
            nonlocal known, first
            now = self.clock()
            # What was read before serves for one attempt: the commit is conditional on it, and the next attempt reads.
            account, known = known or await self.store.account(verified.subject), None
            is_first, first = first, False
            if account is None or not account.active or account.epoch != verified.epoch:
                raise NotAuthenticated("the account changed since the proof")
            leaving = [
                Leaving(*found)
                for given in replacing
                if (found := await self._live(given[0].id, now, given if is_first else None))
            ]
            before = None
            if inside is not None:
                found = await self._live(inside.id, now)
                if found is None:
                    raise NotAuthenticated("the session ended meanwhile")  # or it would outlive its own log-out
                leaving.append(Leaving(*found))
                before = found[0]  # as it is now: the caller may remember it from before its key was confirmed
            binding = self._binding(mode, client, before)
            replaced = [each.session for each in leaving]
            if mode != "jwt":
                leaving += await self._over_the_limit(account, leaving, now)
            changes: list[Change] = [Expect(account.subject, verified.epoch)]
            raised, proof = account, verified
            for owner, theirs in by_owner(leaving):
                # Who tries again begins with a first attempt each time, which would conflict each time.
                spares_a_read = is_first and tries_again
                ends, after = await self._ending(
                    owner, theirs, client, actor=account.subject, now=now, is_first=spares_a_read
                )
                changes += ends
                if owner.subject == account.subject:
                    raised = after
            if mode != "jwt" and raised is account:
                changes += self._in_turn(account)
            if raised is not account:
                # The epoch rises in the same transaction that expects the proof's epoch: nothing came in between.
                account, proof = raised, replace(verified, epoch=raised.epoch)
            in_name_of = client_id or self.client_id
            moved: list[Change] = []
            history, places = await self._starting(account, client, now, inside=inside)
            if mode == "jwt":
                signed_in, record = await self._issue_stateless(account, proof, client, in_name_of, scope, now, binding)
                changes += self._beginning(record.detail, account.subject, history, now + self.policy.access_for)
            else:
                session, token = sessions.start(
                    proof,
                    mode=mode,
                    client=client,
                    client_id=in_name_of,
                    scope=scope,
                    master_key_id=self.master.current.id,
                    now=now,
                    policy=self.policy,
                    binding=None if binding is None else binding.text(),
                    browser_key=browser_key,
                )
                changes += [Add(session), *(beside(session) if beside else ())]
                if inside is not None:
                    changes += self._beginning(session.id, account.subject, history, session.expires_at)
                moved = await self.data.moving(visitor, replaced, session)
                record = session_event("session_started", session, client, now, detail=mode)
                signed_in = await self._present(account, session, token.text() if token else "", 0, 0, now)
                signed_in = replace(signed_in, visitor_moved=bool(visitor))
            await self.store.commit(*moved, *changes, *places, *also, Log(record))
            return signed_in

        return await (retried(RACES, "starting a session")(once) if tries_again else once)()

    async def _live(self, session_id: str, now: float, given: Found | None = None) -> Found | None:
        found = given or await self.store.session(session_id)
        return found if found is not None and sessions.is_live(*found, now) else None

    def _binding(self, mode: Mode, client: Client, inside: Session | None) -> Binding | None:
        """Return the key that a sign-in is bound to, if it is. One that is proved inside of another needs the key of
        that one: otherwise a thief with copied cookies, who adds a factor for example, would have a session that needs
        none.
        """
        if inside is not None and inside.binding is not None and mode == inside.mode:
            before = Binding.parse(inside.binding)
            if before.state == "confirmed":  # a key that is only offered is registered anew, for the new session
                return replace(before, known_as=inside.known_as) if before.is_of_browser else before
        proved = client.proved
        if mode == "session" or proved is None:
            return None
        if self.policy.device_binding == "off" and not proved.came_with_token:
            return None
        return Binding("confirmed", proved.alg, proved.thumbprint)

    async def _issue_stateless(
        self,
        account: Account,
        verified: Verified,
        client: Client,
        client_id: str,
        scope: str,
        now: float,
        binding: Binding | None,
    ) -> tuple[SignedIn, AuditEvent]:
        bound_to = "" if binding is None else binding.thumbprint
        access, expires_in, token_id = await self._sign(
            account, None, verified, client_id, scope, now, self.policy.access_for, bound_to=bound_to
        )
        record = event(
            "token_issued",
            now=now,
            client=client,
            subject=account.subject,
            actor=account.subject,
            client_id=client_id,
            detail=token_id,
        )
        signed_in = SignedIn(account=account, mode="jwt", access_token=access, expires_in=expires_in, bound_to=bound_to)
        return signed_in, record

    async def _over_the_limit(self, account: Account, leaving: Sequence[Leaving], now: float) -> list[Leaving]:
        """Return what to revoke so that one more session of an account can start. Raises `SessionLimitReached`."""
        if self.policy.max_sessions is None:
            return []
        gone = {each.session.id for each in leaving}
        live = [
            session
            for session in await self.store.sessions_of(account.subject)
            if session.id not in gone and sessions.is_live(session, account, now)
        ]
        over = sessions.to_end_for(live, self.policy)
        if over is None:
            raise SessionLimitReached(f"{len(live)} sessions are live")
        return [Leaving(session, account, "limit", SYSTEM) for session in over]

    def _in_turn(self, account: Account) -> list[Change]:
        # The account is swapped although it does not change, so that two sign-ins at once take turns and the second
        # counts the first. A count alone would let both through.
        return [] if self.policy.max_sessions is None else [Swap(account)]

    async def provide(self, subject: str) -> Account:
        """Return the account of a `subject` whose directory is elsewhere. At the first sign-in, create one without an
        address.

        Raises:
            InvalidInput: no token and no header can carry this subject.
        """
        account = await self.store.account(subject)
        if account is None:
            await self.fencing.follow()
            made = external_account(subject, self.clock(), epoch=self.fencing.node.epochs_from)
            with suppress(Conflict):  # another call created it at the same moment
                await self.store.commit(Add(made))
            account = await self.store.account(subject)
        if account is None:
            raise Unavailable("the account vanished while it was made")
        return account


def _browser_key(client: Client, inside: Session | None) -> str | None:
    """Return the key of the browser that a sign-in begins with. It is taken only here, where someone has just proved
    who they are: a thief of the cookie can bring no key later.
    """
    if is_browser_key(client.browser_key):
        return client.browser_key
    return None if inside is None else inside.browser_key
