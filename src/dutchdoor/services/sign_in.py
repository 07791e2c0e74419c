"""Signing in: proofs, then what the policy still requires, then a session.

`by_password` takes the first proof and `proceed` each one that follows. After each of them, `next_step` (in
`model/sign_in.py`) says whether a session starts. Until then, the client has a one-time token and nothing else.

An unknown, disabled or unverified account and a wrong password get one answer after the same work: the same calls to
the store in the same order, and one hash.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, NoReturn

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.base import Method
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import (
    Conflict,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    RateLimited,
    Refused,
    SessionLimitReached,
    SignInUnfinished,
    Unavailable,
    WrongCredentials,
)
from dutchdoor.model import one_time_tokens, rate_limits
from dutchdoor.model.accounts import Account, Credential, renewed
from dutchdoor.model.audit_events import event
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Client, network_of
from dutchdoor.model.ids import new_id
from dutchdoor.model.issuer_sessions import Issued, began_by
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Verified
from dutchdoor.model.rate_limits import Standing, by_address
from dutchdoor.model.sessions import Session
from dutchdoor.model.sign_in import PENDING_FOR, Ask, Pending, Proof, Refuse, Start, needs_second, next_step, outdated
from dutchdoor.services.endings import Found
from dutchdoor.services.factors import Enrolment, Factors
from dutchdoor.services.own_steps import OwnSteps
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.passkeys import NO_CEREMONY, Ceremony, unknown_passkey
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.second_proofs import SecondProofs
from dutchdoor.services.sessions import SignedIn
from dutchdoor.stores.base import Add, Change, Expect, Forgive, Known, Log, Remove, Swap, Take
from dutchdoor.texts import mark

__all__ = ["Finished", "Proved", "Rechecked", "SignIn", "Waiting", "Welcome", "networks_of", "written_beside"]

RECENT = 4
"""Sign-ins whose networks count as the owner's."""
FORGOTTEN = "devices_forgotten"
"""The method of a record without a secret: when an account was last signed out everywhere."""
DUE = "second_factor_due"
"""The method of a record without a secret: from when on an account should have had a second factor."""
_NOT_RIGHT_OR_NOT_VERIFIED = mark(
    "The e-mail address or the password is not right, or the address is not verified yet: follow the link in the mail, "
    "or choose a new password."
)


class Welcome(Struct, frozen=True, kw_only=True):
    """A proof that is enough to start a session, and the mark by which this browser is recognised next time."""

    verified: Verified
    account: Account
    mark: str
    familiar: bool
    """Whether the account signed in from here before, or never signed in at all."""


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


class Proved(NamedTuple):
    """A first proof that was right."""

    account: Account
    step: Start | Ask
    proof: Proof
    chosen_at: float
    device: str
    digest: str
    """The account in the browser's known-device mark."""
    familiar: bool
    changes: tuple[Change, ...]
    """What the next commit writes with it, such as what it forgets of the failures before."""
    held: Sequence[Credential]
    """All credentials of the account, as they were read with it."""
    standing: Standing = Standing.STRANGER
    further: tuple[Proof, ...] = ()
    """What else was proved with it."""
    issued: Issued | None = None
    """The session at another issuer, if that is the proof."""


class Rechecked(NamedTuple):
    """A password that was right once more."""

    account: Account
    amr: tuple[str, ...]
    forgiving: Forgive
    """What to forget of the failures before it."""


class SignIn(Part):
    """Signs people in over one authority. `client` is the client that asks, and `marks` is what its known-device cookie
    holds ("" for none). Every verb raises `Unavailable` when the store is out of reach, or too many passwords are
    being hashed.
    """

    def __init__(self, shared: Shared, methods: Mapping[str, Method], factors: Factors, steps: OwnSteps) -> None:
        """`methods` are the authentication methods, by their names, `factors` enrols second ones, and `steps` are the
        application's.
        """
        super().__init__(shared)
        self.methods, self.factors, self.steps = methods, factors, steps
        self.second = SecondProofs(shared, methods, factors)
        self._remember_key = self.authority.master.current.derive("remembered device")

    async def prove(
        self, email: str, password: str, *, client: Client, marks: str = "", remembered: str = ""
    ) -> Welcome:
        """Check an address, `email`, and its `password`, and start nothing. `remembered` is what the browser's
        remembered-device cookie holds.

        Raises:
            WrongCredentials: the address or the password is wrong. Unknown, disabled and unverified accounts get the
                same answer.
            SignInUnfinished: they are right, and a session requires another proof. The token is empty.
            RateLimited: too many attempts. The right password is refused then too, or the refusal would reveal it.
        """
        proved = await self._prove(email, password, client, marks, remembered)
        await self.store.commit(*proved.changes)
        if isinstance(proved.step, Ask):
            raise SignInUnfinished(
                "proved, not started",
                token="",
                methods=proved.step.methods,
                enrol=proved.step.enrol,
                step=proved.step.step,
            )
        return Welcome(
            verified=proved.step.verified,
            account=proved.account,
            mark=self._mark(marks, proved.digest, proved.device, proved.chosen_at),
            familiar=proved.familiar,
        )

    async def by_password(
        self,
        email: str,
        password: str,
        *,
        mode: Mode,
        client: Client,
        client_id: str = "",
        marks: str = "",
        remembered: str = "",
        replacing: Sequence[Found] = (),
        visitor: str = "",
    ) -> tuple[SignedIn, str]:
        """Check an address and a password, and start a session. Returns what starts, and the browser's known-device
        mark.

        Args:
            email: the address as the person typed it.
            password: the password as the person typed it.
            mode: `session`, `hybrid` or `jwt`.
            client_id: the registered client that the sign-in belongs to; "" for the application itself.
            remembered: what the browser's remembered-device cookie holds; "" for none.
            replacing: sessions to revoke with it, such as the one this browser held, each with its account.
            visitor: the token of a visitor's cookie, whose session data the new session takes over; "" for none.

        Raises:
            WrongCredentials: the address or the password is wrong.
            SignInUnfinished: they are right, and another proof is needed. Nothing started; `proceed` continues.
            RateLimited: too many attempts.
            SessionLimitReached: the policy refuses one more session.
            Misconfigured: the `claims` hook returns claims that no token may carry.
        """
        for _ in range(2):
            proved = await self._prove(email, password, client, marks, remembered)
            try:
                return await self.begin(
                    proved,
                    mode=mode,
                    client=client,
                    client_id=client_id,
                    marks=marks,
                    replacing=replacing,
                    visitor=visitor,
                )
            except SessionLimitReached:
                await self.store.commit(*proved.changes)
                raise
            except SignInUnfinished:
                raise
            except (Conflict, NotAuthenticated):
                # The account changed between proof and start: its roles or its password changed. Prove again.
                continue
        raise WrongCredentials("the account kept changing")

    async def begin(
        self,
        proved: Proved,
        *,
        mode: Mode,
        client: Client,
        client_id: str = "",
        marks: str = "",
        replacing: Sequence[Found] = (),
        visitor: str = "",
        tries_again: bool = True,
    ) -> tuple[SignedIn, str]:
        """Start a session from a first proof, or keep the proof for the next step. Returns what starts, and the
        browser's known-device mark.

        Args:
            proved: the proof.
            mode: `session`, `hybrid` or `jwt`.
            client_id: the registered client that the sign-in belongs to; "" for the application itself.
            replacing: sessions to revoke with it, such as the one this browser held, each with its account.
            visitor: the token of a visitor's cookie, whose session data the new session takes over; "" for none.
            tries_again: whether to try again after a lost race: False for a proof that its `changes` use up.

        Raises:
            SignInUnfinished: another proof is needed. Nothing started; `proceed` continues.
            SessionLimitReached: the policy refuses one more session. Nothing was written.
            NotAuthenticated, Conflict: the account changed since the proof: prove again.
        """
        if isinstance(proved.step, Ask):
            raise await self._wait(proved, proved.step, mode, client, client_id)
        keeping = self.second.keeping(proved.account, proved.held, client, self.clock())
        signed_in = await self.authority.start(
            proved.step.verified,
            account=proved.account,
            mode=mode,
            client=client,
            client_id=client_id,
            replacing=replacing,
            visitor=visitor,
            also=(*proved.changes, *keeping),
            beside=written_beside(proved.issued),
            tries_again=tries_again,
        )
        if keeping:
            self.post.notify(self.post.letters.factors_kept, proved.account, client, self.clock())
        if not proved.familiar:
            self.post.notify(self.post.letters.new_device, proved.account, client, self.clock())
        return signed_in, self._mark(marks, proved.digest, proved.device, proved.chosen_at)

    @retried(RACES, "signing in by a passkey")
    async def by_passkey(
        self,
        answer: str,
        ceremony: Ceremony,
        *,
        mode: Mode,
        client: Client,
        client_id: str = "",
        marks: str = "",
        replacing: Sequence[Found] = (),
        visitor: str = "",
    ) -> tuple[SignedIn, str]:
        """Check the answer of a passkey, and start a session for its owner. Returns what starts, and the browser's
        known-device marks.

        Args:
            answer: what the browser answered to `Passkeys.sign_in_options`, as JSON.
            ceremony: where it was done.
            mode: `session`, `hybrid` or `jwt`.
            client_id: the registered client that the sign-in belongs to; "" for the application itself.
            replacing: sessions to revoke with it, such as the one this browser held, each with its account.
            visitor: the token of a visitor's cookie, whose session data the new session takes over; "" for none.

        Raises:
            WrongCredentials: the passkey is not known, the answer is wrong, or the account cannot sign in.
            InvalidToken: the challenge is unknown, too old or used, or was given to another browser or page.
            InvalidInput: the answer is malformed.
            SignInUnfinished: it is right, and another proof is needed. Nothing started; `proceed` continues.
            NotAuthenticated: the account changed between the proof and the start.
            RateLimited: too many wrong answers from there.
            SessionLimitReached: the policy refuses one more session.
        """
        now = self.clock()
        proven = await self.factors.passkeys.found(answer, ceremony, client=client)
        owner = await self.store.account(proven.record.subject)
        account = None if owner is None else await self._current(owner)
        if account is None:
            raise unknown_passkey()
        held = await self.store.select(Credential, subject=account.subject)
        digest = self.attempts.digest(account.email or account.subject)
        chosen_at = next((each.created_at for each in held if each.method == PASSWORD), 0.0)
        mark = self.attempts.find_mark(marks, digest, now)
        device = mark.device if mark is not None and self.attempts.is_of(mark, chosen_at) else ""
        newest = await self.store.sessions_of(account.subject, limit=RECENT)
        networks = set() if device else networks_of([(each.created_at, each.address) for each in newest], now)
        standing = rate_limits.standing_of(device=device, network=client.network, recent_networks=networks)
        proof = Proof(method=PASSKEY, amr=proven.amr, at=now)
        step = await self.next_of(account, (proof,), held, "", digest)
        if isinstance(step, Refuse):
            await self.attempts.refuse(account, client, step.why)
            raise unknown_passkey()
        return await self.begin(
            Proved(
                account=account,
                step=step,
                proof=proof,
                chosen_at=chosen_at,
                device=device,
                digest=digest,
                familiar=standing is not Standing.STRANGER or not networks,
                changes=(*proven.changes, self.attempts.forgiving(account)),
                held=held,
                standing=standing,
            ),
            mode=mode,
            client=client,
            client_id=client_id,
            marks=marks,
            replacing=replacing,
            visitor=visitor,
            tries_again=False,
        )

    async def _current(self, account: Account) -> Account | None:
        """Return an account as its user is now. An application's own users may have changed since."""
        return account

    async def _prove(self, email: str, password: str, client: Client, marks: str, remembered: str) -> Proved:
        now, method = self.clock(), self.methods[PASSWORD]
        try:
            key = canonical(email)
        except InvalidInput:
            key = ""
        digest = self.attempts.digest(key)
        charged = by_address(self.attempts.limits.sign_in_by_address, client.networks)
        mark = self.attempts.find_mark(marks, digest, now)
        if mark is None:
            # Before anything is read: otherwise a refused client could measure, at no cost, what was read.
            await self.attempts.take(charged)
        # From here on, the same calls in the same order, whether there is an account or not.
        known = await self.store.known(key, recent=RECENT)
        account = None if known is None else known.account
        record = _record_of(known, method, password)
        device = ""
        if mark is not None:
            if record is not None and self.attempts.is_of(mark, record.created_at):
                device, charged = mark.device, ()
            else:
                await self.attempts.take(charged)  # the client knew a password that the account no longer has
        networks = set() if device or known is None else networks_of(known.recent, now)
        standing = rate_limits.standing_of(device=device, network=client.network, recent_networks=networks)
        own = rate_limits.sign_in_buckets(
            self.attempts.limits,
            account=digest,
            network=client.network,
            standing=standing,
            device=device,
            known=account is not None,
        )
        try:
            await self.attempts.take(own)
        except RateLimited:
            await self.attempts.give_back(charged, client)
            raise
        right = await method.check(record if account is not None else None, password, now)
        if known is None or account is None or record is None or right is None:
            await self._refuse(account, client, "unknown address" if account is None else "wrong password")
        proof = Proof(method=method.name, amr=(method.amr,), at=now)
        # Further properties of the account show after its first proof, and never before.
        step = await self.next_of(account, (proof,), known.credentials, remembered, digest)
        if isinstance(step, Refuse):
            await self._refuse(account, client, step.why)
        record = await self._upgraded(method, record, password, client)
        ceilings = rate_limits.sign_in_ceilings(self.attempts.limits, digest)
        return Proved(
            account=account,
            step=step,
            proof=proof,
            chosen_at=record.created_at,
            device=device,
            digest=digest,
            standing=standing,
            familiar=standing is not Standing.STRANGER or not networks,
            changes=(Forgive(give_back=charged, forget=(own[0], *ceilings)),),
            held=known.credentials,
        )

    def first_proof(
        self,
        known: Known,
        step: Start | Ask,
        proofs: Sequence[Proof],
        identity: Credential,
        *,
        client: Client,
        marks: str,
        issued: Issued,
    ) -> Proved:
        """Return what `begin` takes, for an account whose identity at another issuer was proved.

        Args:
            known: the account, and where it signed in last.
            step: what comes next.
            proofs: what was proved.
            identity: the credential that was proved.
            marks: what the known-device cookie holds.
            issued: the session at the issuer.
        """
        account, now = known.account, self.clock()
        digest = self.attempts.digest(account.email or "")
        password = next((each for each in known.credentials if each.method == PASSWORD), None)
        chosen_at = 0.0 if password is None else password.created_at
        mark = self.attempts.find_mark(marks, digest, now)
        device = mark.device if mark is not None and self.attempts.is_of(mark, chosen_at) else ""
        networks = set() if device else networks_of(known.recent, now)
        standing = rate_limits.standing_of(device=device, network=client.network, recent_networks=networks)
        return Proved(
            account=account,
            step=step,
            proof=proofs[0],
            further=tuple(proofs[1:]),
            chosen_at=chosen_at,
            device=device,
            digest=digest,
            familiar=standing is not Standing.STRANGER or not networks,
            # The identity as it is: if its owner unlinks it at this moment, nothing may start by it any more.
            changes=(Swap(identity), self.attempts.forgiving(account)),
            held=known.credentials,
            standing=standing,
            issued=issued,
        )

    async def check_password(
        self,
        account: Account,
        session: Session | None,
        password: str,
        *,
        client: Client,
        login: str = "",  # noqa: ARG002 - the account has its address
    ) -> Rechecked:
        """Check the `password` of an `account` again inside its `session`, and start nothing. `login` is what the
        person typed as login; it is read only where the application has users of its own.

        Raises:
            WrongCredentials: the password is wrong.
            RateLimited: too many attempts.
        """
        await self.attempts.take(self.attempts.inside(account, session))
        method = self.methods[PASSWORD]
        record = await self.store.get(Credential, account.subject, method.name, method.handle_of(password))
        if await method.check(record, password, self.clock()) is None:
            await self.attempts.refuse(account, client, "wrong password")
            raise WrongCredentials("wrong password")
        return Rechecked(account, (method.amr,), self.attempts.forgiving(account))

    async def _refuse(self, account: Account | None, client: Client, why: str) -> NoReturn:
        await self.attempts.refuse(account, client, why)
        # One answer: anyone can register an address with a password of their own, and then try that password.
        message = _NOT_RIGHT_OR_NOT_VERIFIED if self.policy.require_verified_email else None
        raise WrongCredentials("sign-in refused", message=message)

    async def next_of(
        self,
        account: Account,
        proofs: Sequence[Proof],
        held: Sequence[Credential],
        remembered: str,
        digest: str,
    ) -> Start | Ask | Refuse:
        """Decide what comes after these `proofs` of an `account`. `held` are all its credentials, `remembered` is what
        the remembered-device cookie holds, and `digest` is the account's name in it.
        """
        factors = self.second.usable(held)
        ends = math.inf
        if not factors and account.active and needs_second(account, self.policy):
            ends = await self._grace_ends(account, held)
        mark = rate_limits.find_mark(self._remember_key, remembered, account=digest, now=self.clock())
        decide = partial(
            next_step,
            account,
            proofs,
            self.policy,
            factors=factors,
            offered=self.factors.offered,
            grace_ends=ends,
            remembered=mark is not None
            and self.clock() - mark.at < self.policy.remember_device_for
            and mark.is_of(self._remember_key, self._chosen_at(held)),
        )
        step = decide()
        # The application is asked about its own steps once the account is proved.
        own = (
            await self.steps.asked(account.subject, {each.method for each in proofs}) if isinstance(step, Start) else ""
        )
        return decide(own=own) if own else step

    def _chosen_at(self, held: Sequence[Credential]) -> float:
        """Return when the password or a second factor of an account was chosen last, or its owner signed out
        everywhere: what a browser was remembered for before that is void.
        """
        counting = {*self.methods, FORGOTTEN}
        return max((each.created_at for each in held if each.method in counting), default=0.0)

    async def forgetting_devices(self, account: Account) -> Sequence[Change]:
        """Return what makes every browser that an `account` remembers ask for the second factor again."""
        held = await self.store.select(Credential, subject=account.subject)
        if not self.second.usable(held):
            return []
        before = next((each for each in held if each.method == FORGOTTEN), None)
        now = self.clock()
        if before is not None:
            return [Swap(renewed(before, "", now))]
        return [Add(Credential(subject=account.subject, method=FORGOTTEN, handle="", proof="", created_at=now))]

    async def _grace_ends(self, account: Account, held: Sequence[Credential]) -> float:
        """Return when an account that needs a second factor must have one: some time after its first sign-in."""
        grace = self.policy.second_factor_grace
        if not grace:
            return -math.inf  # whatever the clock has done since the proof
        due = next((each for each in held if each.method == DUE), None)
        if due is None:
            due = Credential(subject=account.subject, method=DUE, handle="", proof="", created_at=self.clock())
            with suppress(Conflict):  # another sign-in did it at the same moment
                await self.store.commit(Add(due))
        return due.created_at + grace

    async def _upgraded(self, method: Method, record: Credential, response: str, client: Client) -> Credential:
        # The account changed meanwhile, another log-in upgraded it, or no thread is free: the next log-in upgrades it.
        with suppress(Conflict, Unavailable):
            better = await method.upgraded(record, response)
            if better is None:
                return record
            upgrade = event(
                "password_rehashed", now=self.clock(), client=client, subject=record.subject, actor="system"
            )
            await self.store.commit(Swap(better), Log(upgrade))
            return better
        return record

    # The steps after it

    async def _wait(self, proved: Proved, step: Ask, mode: Mode, client: Client, client_id: str) -> SignInUnfinished:
        """Keep what was proved for the next step, and return what to raise. Raises `Conflict`."""
        account = proved.account
        pending = Pending(
            proofs=(proved.proof, *proved.further),
            epoch=account.epoch,
            mode=mode,
            client_id=client_id,
            familiar=proved.familiar,
            chosen_at=proved.chosen_at,
            device=proved.device,
            digest=proved.digest,
            standing=proved.standing,
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

    def recovers_by_mail(self, account: Account) -> bool:
        """Return whether the policy lets the owner of an `account` have lost factors removed by mail."""
        proved = account.address is not None and account.email_verified_at is not None
        return self.policy.factor_recovery_after > 0 and proved and not account.administers

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

    async def enrolment(self, token: str, enrolment: str, *, client: Client) -> Enrolment:
        """Return once more what `enrol` gave out in a sign-in (`token`), by the token of the `enrolment`.

        Raises:
            InvalidToken: one of them is unknown, used or too old, or they belong to different accounts.
        """
        _, account, _ = await self._pending(token, client)
        return await self.factors.resumed(account, enrolment, client=client)

    async def _pending(self, token: str, client: Client) -> tuple[OneTimeToken, Account, Pending]:
        stored = await self.one_time.redeem(token, "sign_in", client)
        account = await self.one_time.owner_of(stored)
        pending = Pending.decode(stored.payload)
        if account.epoch != pending.epoch:
            raise InvalidToken("the account changed since the first proof")
        return stored, account, pending

    @retried(RACES, "finishing the sign-in")
    async def proceed(
        self,
        token: str,
        method: str,
        response: str,
        *,
        client: Client,
        ceremony: Ceremony = NO_CEREMONY,
        admit: Callable[[str, Mode], Awaitable[None]] | None = None,
        enrolment: str = "",
        remember: bool = False,
        marks: str = "",
        remembered: str = "",
        replacing: Sequence[Found] = (),
        visitor: str = "",
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
            remembered: what the browser's remembered-device cookie holds; "" for none.
            replacing: sessions to revoke with it, such as the one this browser held, each with its account.
            visitor: the token of a visitor's cookie, whose session data the new session takes over; "" for none.

        Raises:
            SignInUnfinished: the proof is right, and another one is needed.
            WrongCredentials: the proof is wrong, or its method was not offered.
            InvalidToken: the token is unknown, used or too old, or the account changed since: sign in anew.
            RateLimited: too many guesses.
            SessionLimitReached: the policy refuses one more session.
        """
        stored, account, pending = await self._pending(token, client)
        if admit is not None:
            await admit(pending.client_id, pending.mode)
        now = self.clock()
        held = list(await self.store.select(Credential, subject=account.subject))
        asked = await self.next_of(account, pending.proofs, held, remembered, pending.digest)
        if not isinstance(asked, Ask) or method not in asked.methods:
            raise WrongCredentials("not a method that was asked for")
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
        match await self.next_of(account, pending.proofs, held, remembered, pending.digest):
            case Start(verified):
                signed_in = await self.authority.start(
                    verified,
                    account=account,
                    tries_again=False,
                    mode=pending.mode,
                    client=client,
                    client_id=pending.client_id,
                    scope=pending.scope,
                    replacing=replacing,
                    visitor=visitor,
                    also=spent,
                    beside=written_beside(pending.issued),
                )
            case Ask() as step:
                signed_in = await self._ask(account, pending, step, Expect(account.subject, account.epoch), *spent)
                signed_in.codes = codes
            case Refuse(why):
                await self.attempts.refuse(account, client, why)
                raise InvalidToken("the account changed since the first proof")
        letters = self.post.letters
        for is_so, letter in (
            (bool(keeping), letters.factors_kept),
            (asked.enrol, letters.passkey_added if method == PASSKEY else letters.factor_added),
            (method == RECOVERY_CODE, letters.recovery_code_used),
        ):
            if is_so:
                self.post.notify(letter, account, client, now)
        if isinstance(signed_in, SignInUnfinished):
            raise signed_in
        if not pending.familiar:
            self.post.notify(self.post.letters.new_device, account, client, now)
        device_mark = self._mark(marks, pending.digest, pending.device, pending.chosen_at)
        kept = self._remembered(remembered, pending, held) if pending.remember else ""
        return Finished(signed_in, device_mark, kept, codes)

    async def passkey_options(self, token: str, ceremony: Ceremony, *, client: Client) -> dict[str, Any]:
        """Return the options for a passkey in an unfinished sign-in, by the `token` of its `SignInUnfinished`.
        `ceremony` is where they are asked for.

        Raises:
            InvalidToken: the token is unknown, used or too old, or the account changed since: sign in anew.
            NotFound: the account has no passkey.
        """
        stored, account, _ = await self._pending(token, client)
        return await self.factors.passkeys.factor_options(account, ceremony, "step", stored.id)

    def _remembered(self, remembered: str, pending: Pending, held: Sequence[Credential]) -> str:
        """Return the remembered-device cookie with this account in it; "" if the policy remembers none."""
        if not self.policy.remember_device_for:
            return ""
        fresh = rate_limits.mint_mark(
            self._remember_key,
            account=pending.digest,
            device=pending.device or new_id(),
            chosen_at=self._chosen_at(held),
            now=self.clock(),
        )
        return rate_limits.with_mark(remembered, fresh)

    def _mark(self, marks: str, digest: str, device: str, chosen_at: float) -> str:
        return self.attempts.marked(marks, digest, device, chosen_at, self.clock())


def written_beside(issued: Issued | None) -> Callable[[Session], Sequence[Change]] | None:
    """Return what is written beside a session that began at an issuer: by what the issuer may end it. None for other
    sessions.
    """
    return None if issued is None else lambda session: [Add(began_by(issued, session))]


def _record_of(known: Known | None, method: Method, response: str) -> Credential | None:
    wanted = method.name, method.handle_of(response)
    return None if known is None else next((c for c in known.credentials if (c.method, c.handle) == wanted), None)


def networks_of(recent: Sequence[tuple[float, str]], now: float) -> set[str]:
    return {network_of(address) for at, address in recent if now - at <= rate_limits.NETWORK_FOR}
