"""A sign-in from its first proof on: a session starts, or the proof waits for the next step.

Until a session starts, the client has a one-time token and nothing else. `proceed` takes each proof that follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import InvalidToken, Refused, SignInUnfinished, WrongCredentials
from dutchdoor.mail.letters import Notice
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.issuer_sessions import Issued, began_by
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import Mode
from dutchdoor.model.sessions import Session
from dutchdoor.model.sign_in import PENDING_FOR, Ask, Pending, Proof, Refuse, Start, outdated
from dutchdoor.services.attempts import Place
from dutchdoor.services.browser import Browser
from dutchdoor.services.factors import Enrolment
from dutchdoor.services.next_steps import NextSteps
from dutchdoor.services.passkeys import NO_CEREMONY, Ceremony
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Add, Change, Expect, Remove, Take
from dutchdoor.texts import mark

__all__ = ["Finished", "Proved", "SignInSteps", "Waiting", "written_beside"]

_NOT_ASKED = mark("This is not a proof that was asked for. Use one that is offered.")


class Proved(NamedTuple):
    """A first proof that was right."""

    account: Account
    step: Start | Ask
    proof: Proof
    chosen_at: float
    """When the password was chosen: the browser is known by it later."""
    place: Place
    digest: str
    """The account in the browser's known-device mark."""
    changes: tuple[Change, ...]
    """What the next commit writes with it, such as what it forgets of the failures before."""
    held: Sequence[Credential]
    """All credentials of the account, as they were read with it."""
    further: tuple[Proof, ...] = ()
    """What else was proved with it."""
    issued: Issued | None = None
    """The session at another issuer, if that is the proof."""


class Waiting(NamedTuple):
    """What a sign-in waits for."""

    subject: str
    email: str | None
    """The address of the account; None where the application has users of its own."""
    methods: tuple[str, ...]
    enrol: bool
    """Whether the account has none of these, and has to enrol one now."""
    may_remember: bool
    """Whether this browser may skip the step next time, if its owner wants that."""
    step: str
    """The name of the application's step; "" for a proof."""
    recoverable: bool
    """Whether an owner who has lost all of these can have them removed by mail."""


class Finished(NamedTuple):
    """What the last step of a sign-in has started."""

    signed_in: SignedIn
    mark: str
    """The browser's known-device mark."""
    remembered: str
    """What lets this browser skip the second factor; "" if its owner did not ask for that."""
    codes: tuple[str, ...]
    """Recovery codes, which are shown this once: a first second factor was enrolled."""


class SignInSteps(NextSteps):
    """Takes sign-ins over one authority from their first proof to a session."""

    async def begin(
        self, proved: Proved, browser: Browser, *, mode: Mode, client_id: str = "", tries_again: bool = True
    ) -> tuple[SignedIn, str]:
        """Start a session from a first proof, or keep the proof for the next step. Returns what starts, and the
        browser's known-device mark.

        Args:
            proved: the proof.
            tries_again: whether to try again after a lost race: False for a proof that its `changes` use up.

        Raises:
            SignInUnfinished: another proof is needed. Nothing started; `proceed` continues.
            SessionLimitReached: the policy refuses one more session. Nothing was written.
            NotAuthenticated, Conflict: the account changed since the proof: prove again.
        """
        client = browser.client
        if isinstance(proved.step, Ask):
            raise await self._wait(proved, proved.step, mode, client, client_id)
        keeping = self.second.keeping(proved.account, proved.held, client, self.clock())
        signed_in = await self.authority.start(
            proved.step.verified,
            account=proved.account,
            mode=mode,
            client=client,
            client_id=client_id,
            replacing=browser.replacing,
            visitor=browser.visitor,
            also=(*proved.changes, *keeping),
            beside=written_beside(proved.issued),
            tries_again=tries_again,
        )
        if keeping:
            self.post.notify(Notice.FACTORS_KEPT, proved.account, client, self.clock())
        if not proved.place.familiar:
            self.post.notify(Notice.NEW_DEVICE, proved.account, client, self.clock())
        return signed_in, self.attempts.marked(browser.marks, proved.digest, proved.place.device, proved.chosen_at)

    async def _wait(self, proved: Proved, step: Ask, mode: Mode, client: Client, client_id: str) -> SignInUnfinished:
        """Keep what was proved for the next step, and return what to raise. Raises `Conflict`."""
        account = proved.account
        pending = Pending(
            proofs=(proved.proof, *proved.further),
            epoch=account.epoch,
            mode=mode,
            client_id=client_id,
            familiar=proved.place.familiar,
            chosen_at=proved.chosen_at,
            device=proved.place.device,
            digest=proved.digest,
            standing=proved.place.standing,
            network=client.network,
            issued=proved.issued,
        )
        return await self._ask(account, pending, step, Expect(account.subject, account.epoch), *proved.changes)

    async def _ask(self, account: Account, pending: Pending, step: Ask, *also: Change) -> SignInUnfinished:
        """Commit a pending sign-in, with other changes, and return what to raise. Raises `Conflict`."""
        token, secret = one_time_tokens.issue(
            "sign_in",
            subject=account.subject,
            email=account.email or "",
            now=self.clock(),
            lives_for=PENDING_FOR,
            payload=pending.encode(),
        )
        waiting = await self.store.select(OneTimeToken, subject=account.subject, purpose="sign_in")
        over = [Remove(each) for each in outdated(waiting, pending)]
        await self.store.commit(*also, *over, Add(token))
        return SignInUnfinished(
            "another step is needed", token=secret.text(), methods=step.methods, enrol=step.enrol, step=step.step
        )

    # What it waits for

    async def waiting(self, token: str, *, client: Client, remembered: str = "") -> Waiting:
        """Return what a sign-in waits for, by the `token` of its `SignInUnfinished`. `remembered` is what the browser's
        remembered-device cookie holds.

        Raises:
            InvalidToken: the token is unknown, used or too old, or the account changed since: sign in anew.
        """
        _, account, pending = await self._pending(token, client)
        held = await self.store.select(Credential, subject=account.subject)
        step = await self.next_of(account, pending.proofs, held, remembered, pending.digest)
        if not isinstance(step, Ask):
            raise InvalidToken("the sign-in waits for nothing")
        may_remember = self.policy.remember_device_for > 0 and not (account.administers or step.enrol or step.own)
        recoverable = not (step.enrol or step.own) and self.recovers_by_mail(account)
        return Waiting(account.subject, account.address, step.methods, step.enrol, may_remember, step.step, recoverable)

    async def locked_out(self, token: str, *, client: Client) -> Account:
        """Return the account of an unfinished sign-in, by its `token`, that waits for a second factor.

        Raises:
            InvalidToken: the token is unknown, used or too old, or the sign-in waits for no factor that there is.
        """
        _, account, pending = await self._pending(token, client)
        held = await self.store.select(Credential, subject=account.subject)
        step = await self.next_of(account, pending.proofs, held, "", pending.digest)
        if not isinstance(step, Ask) or step.enrol or step.own:
            raise InvalidToken("the sign-in waits for no factor that there is")
        return account

    async def _pending(self, token: str, client: Client) -> tuple[OneTimeToken, Account, Pending]:
        stored = await self.one_time.redeem(token, "sign_in", client)
        account = await self.one_time.owner_of(stored)
        pending = Pending.decode(stored.payload)
        if account.epoch != pending.epoch:
            raise InvalidToken("the account changed since the first proof")
        return stored, account, pending

    # Enrolling a factor that it demands

    async def enrol(self, token: str, *, client: Client) -> Enrolment:
        """Begin to enrol an authenticator app in a sign-in that demands one of an account that has none.

        Args:
            token: the token of the `SignInUnfinished`, which stays valid for `proceed`.

        Raises:
            InvalidToken: the token is unknown, used or too old, or the account changed since: sign in anew.
            Refused: the account has a second factor, which has to be proved instead.
        """
        _, account = await self._enrolling(token, client)
        return await self.factors.begin_totp(account, amr=None)

    async def enrol_passkey(self, token: str, ceremony: Ceremony, *, client: Client) -> dict[str, Any]:
        """Return the options to make a passkey in a sign-in that demands a second factor of an account that has none.
        `proceed` takes what the passkey answers.

        Args:
            token: the token of the `SignInUnfinished`.
            ceremony: where it is made.

        Raises:
            InvalidToken, Refused: as `enrol` says.
        """
        stored, account = await self._enrolling(token, client)
        return await self.factors.passkeys.creation_options(account, ceremony, stored.id)

    async def enrolment(self, token: str, enrolment: str, *, client: Client) -> Enrolment:
        """Return once more what `enrol` gave out in a sign-in (`token`), by the token of the `enrolment`.

        Raises:
            InvalidToken: one of them is unknown, used or too old, or they belong to different accounts.
        """
        _, account, _ = await self._pending(token, client)
        return await self.factors.resumed(account, enrolment, client=client)

    async def _enrolling(self, token: str, client: Client) -> tuple[OneTimeToken, Account]:
        stored, account, pending = await self._pending(token, client)
        held = await self.store.select(Credential, subject=account.subject)
        # A password alone must not add a factor beside the one that the owner has, and then be enough.
        asked = await self.next_of(account, pending.proofs, held, "", pending.digest)
        if not (isinstance(asked, Ask) and asked.enrol):
            raise Refused(
                "the account has a second factor", message=mark("Prove the second factor that the account has.")
            )
        return stored, account

    # Proving the next one

    async def passkey_options(self, token: str, ceremony: Ceremony, *, client: Client) -> dict[str, Any]:
        """Return the options for a passkey in an unfinished sign-in, by the `token` of its `SignInUnfinished`.
        `ceremony` is where they are asked for.

        Raises:
            InvalidToken: the token is unknown, used or too old, or the account changed since: sign in anew.
            NotFound: the account has no passkey.
        """
        stored, account, _ = await self._pending(token, client)
        return await self.factors.passkeys.factor_options(account, ceremony, "step", stored.id)

    @retried(RACES, "finishing the sign-in")
    async def proceed(
        self,
        token: str,
        method: str,
        response: str,
        browser: Browser,
        *,
        ceremony: Ceremony = NO_CEREMONY,
        admit: Callable[[str, Mode], Awaitable[None]] | None = None,
        enrolment: str = "",
        remember: bool = False,
    ) -> Finished:
        """Continue an unfinished sign-in with the next proof. A wrong one may be tried again, within limits.

        Args:
            token: the token of the `SignInUnfinished`.
            method: the name of the method, one of those that were offered.
            response: what the owner typed, or their device answered.
            ceremony: where a passkey answered.
            admit: called with the client that the sign-in belongs to, "" for the application itself, and its mode. If
                it raises, nothing is looked at.
            enrolment: the token of the enrolment that `enrol` began, where the sign-in demands one; else "".
            remember: whether this browser may skip the second factor next time.

        Raises:
            SignInUnfinished: the proof is right, and another one is needed.
            WrongCredentials: the proof is wrong, or its method was not offered.
            InvalidToken: the token is unknown, used or too old, or the account changed since: sign in anew.
            RateLimited: too many guesses.
            SessionLimitReached: the policy refuses one more session.
        """
        client = browser.client
        stored, account, pending = await self._pending(token, client)
        if admit is not None:
            await admit(pending.client_id, pending.mode)
        now = self.clock()
        held = list(await self.store.select(Credential, subject=account.subject))
        asked = await self.next_of(account, pending.proofs, held, browser.remembered, pending.digest)
        if not isinstance(asked, Ask) or method not in asked.methods:
            raise WrongCredentials("not a method that was asked for", message=_NOT_ASKED)
        codes: tuple[str, ...] = ()
        # A call that loses the race for the token or for the response finds it gone at the next try.
        spent: list[Change] = [Take(stored), self.attempts.forgiving_second(account, self.second.names)]
        proved: tuple[str, ...] = ()
        if asked.own:
            scope = await self.steps.take(method, account.subject, response)
            pending = replace(pending, scope=" ".join(dict.fromkeys([*pending.scope.split(), *scope.split()])))
        elif enrolment or (asked.enrol and method == PASSKEY):
            if not asked.enrol:
                raise InvalidToken("the account has a second factor by now")
            confirmed = (
                await self.factors.confirm_passkey(account, response, "", ceremony, client=client, pending=stored.id)
                if method == PASSKEY
                else await self.factors.confirm_totp(account, enrolment, response, client=client)
            )
            spent += confirmed.changes
            codes, proved = confirmed.codes, confirmed.amr
            held += confirmed.records
        else:
            standing = pending.standing_of(client.network)
            signed = ceremony, "step", stored.id
            way = self.methods[method]
            changes, proved = await self.second.spend(account, way, response, held, client, *standing, signed)
            spent += changes
        # A factor that its owner has just proved, or did not have to prove in this browser, is not lost.
        keeping = self.second.keeping(account, held, client, now)
        spent += keeping
        pending = replace(
            pending,
            proofs=(*pending.proofs, Proof(method=method, amr=proved, at=now)),
            remember=pending.remember or (remember and not asked.own),
        )
        signed_in: SignedIn | SignInUnfinished
        match await self.next_of(account, pending.proofs, held, browser.remembered, pending.digest):
            case Start(verified):
                signed_in = await self.authority.start(
                    verified,
                    account=account,
                    tries_again=False,
                    mode=pending.mode,
                    client=client,
                    client_id=pending.client_id,
                    scope=pending.scope,
                    replacing=browser.replacing,
                    visitor=browser.visitor,
                    also=spent,
                    beside=written_beside(pending.issued),
                )
            case Ask() as step:
                signed_in = await self._ask(account, pending, step, Expect(account.subject, account.epoch), *spent)
                signed_in.codes = codes
            case Refuse(why):
                await self.attempts.refuse(account, client, why)
                raise InvalidToken("the account changed since the first proof")
        for is_so, notice in (
            (bool(keeping), Notice.FACTORS_KEPT),
            (asked.enrol, Notice.PASSKEY_ADDED if method == PASSKEY else Notice.FACTOR_ADDED),
            (method == RECOVERY_CODE, Notice.RECOVERY_CODE_USED),
        ):
            if is_so:
                self.post.notify(notice, account, client, now)
        if isinstance(signed_in, SignInUnfinished):
            raise signed_in
        if not pending.familiar:
            self.post.notify(Notice.NEW_DEVICE, account, client, now)
        return Finished(
            signed_in,
            mark=self.attempts.marked(browser.marks, pending.digest, pending.device, pending.chosen_at),
            remembered=self._remembered(browser.remembered, pending, held) if pending.remember else "",
            codes=codes,
        )


def written_beside(issued: Issued | None) -> Callable[[Session], Sequence[Change]] | None:
    """Return what is written beside a session that began at an issuer: by what the issuer may end it. None for other
    sessions.
    """
    return None if issued is None else lambda session: [Add(began_by(issued, session))]
