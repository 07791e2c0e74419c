"""Signing in: proofs, then what the policy still requires, then a session.

`by_password` takes the first proof and `proceed` each one that follows. After each of them, `next_step` (in
`model/sign_in.py`) says whether a session starts. Until then, the client has a one-time token and nothing else.

An unknown, disabled or unverified account and a wrong password get one answer after the same work: the same calls to
the store in the same order, and one hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.base import Method
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import (
    Conflict,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    RateLimited,
    SessionLimitReached,
    SignInUnfinished,
    Unavailable,
    WrongCredentials,
)
from dutchdoor.model import one_time_tokens, rate_limits
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import event
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Client, network_of
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Verified
from dutchdoor.model.rate_limits import Standing, by_address
from dutchdoor.model.sessions import Session
from dutchdoor.model.sign_in import PENDING_FOR, Ask, Pending, Proof, Refuse, Start, next_step
from dutchdoor.services.endings import Found
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sessions import SignedIn
from dutchdoor.stores.base import Add, Change, Expect, Forgive, Known, Log, Swap, Take

__all__ = ["Proved", "SignIn", "Welcome"]

RECENT = 4
"""Sign-ins whose networks count as the owner's."""
_NOT_RIGHT_OR_NOT_VERIFIED = (
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
    forgiving: Forgive
    """What to forget of the failures before it, written with the next commit."""


class SignIn(Part):
    """Signs people in over one authority. `client` is the client that asks, and `marks` is what its known-device cookie
    holds ("" for none). Every verb raises `Unavailable` when the store is out of reach, or too many passwords are
    being hashed.
    """

    def __init__(self, shared: Shared, methods: Mapping[str, Method]) -> None:
        """`methods` are the authentication methods, by their names."""
        super().__init__(shared)
        self.methods = methods
        self._second = frozenset(name for name, method in methods.items() if method.second)

    async def prove(self, email: str, password: str, *, client: Client, marks: str = "") -> Welcome:
        """Check an address, `email`, and its `password`, and start nothing.

        Raises:
            WrongCredentials: the address or the password is wrong. Unknown, disabled and unverified accounts get the
                same answer.
            SignInUnfinished: they are right, and a session requires another proof. The token is empty.
            RateLimited: too many attempts. The right password is refused then too, or the refusal would reveal it.
        """
        proved = await self._prove(email, password, client, marks)
        await self.store.commit(proved.forgiving)
        if isinstance(proved.step, Ask):
            raise SignInUnfinished("proved, not started", token="", methods=proved.step.methods)
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
            proved = await self._prove(email, password, client, marks)
            if isinstance(proved.step, Ask):
                await self._wait(proved, proved.step, mode, client_id)
                continue
            try:
                signed_in = await self.authority.start(
                    proved.step.verified,
                    account=proved.account,
                    mode=mode,
                    client=client,
                    client_id=client_id,
                    replacing=replacing,
                    visitor=visitor,
                    also=[proved.forgiving],
                )
            except SessionLimitReached:
                await self.store.commit(proved.forgiving)
                raise
            except NotAuthenticated:
                # The account changed between proof and start: its roles or its password changed. Prove again.
                continue
            if not proved.familiar:
                self.post.notify(self.post.letters.new_device, proved.account, client, self.clock())
            return signed_in, self._mark(marks, proved.digest, proved.device, proved.chosen_at)
        raise WrongCredentials("the account kept changing")

    async def _prove(self, email: str, password: str, client: Client, marks: str) -> Proved:
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
        networks = set() if device or known is None else _networks(known, now)
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
        proof = Proof(method=method.name, amr=method.amr, at=now)
        # Further properties of the account show after its first proof, and never before.
        step = next_step(account, (proof,), self.policy, factors=self._second_of(known.credentials))
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
            familiar=standing is not Standing.STRANGER or not networks,
            forgiving=Forgive(give_back=charged, forget=(own[0], *ceilings)),
        )

    async def _refuse(self, account: Account | None, client: Client, why: str) -> NoReturn:
        await self.attempts.refuse(account, client, why)
        # One answer: anyone can register an address with a password of their own, and then try that password.
        message = _NOT_RIGHT_OR_NOT_VERIFIED if self.policy.require_verified_email else None
        raise WrongCredentials("sign-in refused", message=message)

    def _second_of(self, credentials: Sequence[Credential]) -> frozenset[str]:
        return self._second & {each.method for each in credentials}

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

    async def _wait(self, proved: Proved, step: Ask, mode: Mode, client_id: str) -> None:
        """Keep what was proved for the next step. Always raises `SignInUnfinished`, unless the account changed."""
        account = proved.account
        pending = Pending(
            proofs=(proved.proof,),
            epoch=account.epoch,
            mode=mode,
            client_id=client_id,
            familiar=proved.familiar,
            chosen_at=proved.chosen_at,
            device=proved.device,
            digest=proved.digest,
        )
        with suppress(Conflict):  # the account changed between proof and start: prove again
            await self._ask(account, pending, step, Expect(account.subject, account.epoch), proved.forgiving)

    async def _ask(self, account: Account, pending: Pending, step: Ask, *also: Change) -> NoReturn:
        """Commit a pending sign-in, with other changes. Raises `SignInUnfinished`; or `Conflict`."""
        token, secret = one_time_tokens.issue(
            "sign_in",
            subject=account.subject,
            email=account.email or "",
            now=self.clock(),
            lives_for=PENDING_FOR,
            payload=pending.encode(),
        )
        await self.store.commit(*also, Add(token))
        raise SignInUnfinished("another proof is needed", token=secret.text(), methods=step.methods)

    @retried(RACES, "finishing the sign-in")
    async def proceed(
        self,
        token: str,
        method: str,
        response: str,
        *,
        client: Client,
        marks: str = "",
        replacing: Sequence[Found] = (),
        visitor: str = "",
    ) -> tuple[SignedIn, str]:
        """Continue an unfinished sign-in with the next proof. A wrong one may be tried again, within limits. Returns
        what starts, and the browser's known-device mark.

        Args:
            token: the token of the `SignInUnfinished`.
            method: the name of the method, one of those that were offered.
            response: what the owner typed, or their device answered.
            replacing: sessions to revoke with it, such as the one this browser held, each with its account.
            visitor: the token of a visitor's cookie, whose session data the new session takes over; "" for none.

        Raises:
            SignInUnfinished: the proof is right, and another one is needed.
            WrongCredentials: the proof is wrong, or its method was not offered.
            InvalidToken: the token is unknown, used or too old, or the account changed since: sign in anew.
            RateLimited: too many guesses.
            SessionLimitReached: the policy refuses one more session.
        """
        stored = await self.one_time.redeem(token, "sign_in", client)
        account = await self.one_time.owner_of(stored)
        pending = Pending.decode(stored.payload)
        if account.epoch != pending.epoch:
            raise InvalidToken("the account changed since the first proof")
        way = self.methods.get(method)
        if way is None or not way.second:
            raise WrongCredentials("not a method that was asked for")
        now, guesses = self.clock(), self.attempts.second(account, method)
        await self.attempts.take([guesses])
        known = await self.store.select(Credential, subject=account.subject)
        handle = way.handle_of(response)
        record = next((each for each in known if (each.method, each.handle) == (method, handle)), None)
        right = await way.check(record, response, now)
        if right is None:
            await self.attempts.refuse(account, client, f"wrong {method}")
            raise WrongCredentials("wrong second factor")
        # A call that loses the race for the token or for the response finds it gone at the next try.
        spent: list[Change] = [Take(stored), Forgive(forget=(guesses,))]
        if right.spent is not None:
            spent.append(Swap(right.spent))
        proofs = (*pending.proofs, Proof(method=method, amr=way.amr, at=now))
        match next_step(account, proofs, self.policy, factors=self._second_of(known)):
            case Start(verified):
                signed_in = await self.authority.start(
                    verified,
                    account=account,
                    tries_again=False,
                    mode=pending.mode,
                    client=client,
                    client_id=pending.client_id,
                    replacing=replacing,
                    visitor=visitor,
                    also=spent,
                )
            case Ask() as step:
                changed = replace(pending, proofs=proofs)
                await self._ask(account, changed, step, Expect(account.subject, account.epoch), *spent)
            case Refuse(why):
                await self.attempts.refuse(account, client, why)
                raise InvalidToken("the account changed since the first proof")
        if not pending.familiar:
            self.post.notify(self.post.letters.new_device, account, client, now)
        return signed_in, self._mark(marks, pending.digest, pending.device, pending.chosen_at)

    # Inside a session

    async def reauthenticate(
        self,
        account: Account,
        session: Session | None,
        password: str,
        *,
        client: Client,
        client_id: str,
        login: str = "",  # noqa: ARG002 - the account has its address
    ) -> SignedIn:
        """Check the password again inside a sign-in (RFC 9470): a fresh `auth_time`, in a new session that replaces the
        old.

        Args:
            account: the owner of the password.
            session: the current session; None for a stateless sign-in.
            password: the password as the person typed it.
            client_id: the registered client that the sign-in belongs to.
            login: what the person typed as login; read only where the application has users of its own.

        Raises:
            WrongCredentials: the password is wrong.
            RateLimited: too many attempts.
            NotAuthenticated: the account changed, or the session was revoked, meanwhile.
        """
        await self.attempts.take(self.attempts.inside(account, session))
        method = self.methods[PASSWORD]
        record = await self.store.get(Credential, account.subject, method.name, method.handle_of(password))
        if await method.check(record, password, self.clock()) is None:
            await self.attempts.refuse(account, client, "wrong password")
            raise WrongCredentials("wrong password")
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=(method.amr,), at=self.clock())
        also = [self.attempts.forgiving(account)]
        if session is None:
            return await self.authority.start(verified, mode="jwt", client=client, client_id=client_id, also=also)
        return await self.authority.start(
            verified, mode=session.mode, client=client, client_id=client_id, scope=session.scope, inside=session,
            also=also,
        )  # fmt: skip

    def _mark(self, marks: str, digest: str, device: str, chosen_at: float) -> str:
        return self.attempts.marked(marks, digest, device, chosen_at, self.clock())


def _record_of(known: Known | None, method: Method, response: str) -> Credential | None:
    wanted = method.name, method.handle_of(response)
    return None if known is None else next((c for c in known.credentials if (c.method, c.handle) == wanted), None)


def _networks(known: Known, now: float) -> set[str]:
    return {network_of(address) for at, address in known.recent if now - at <= rate_limits.NETWORK_FOR}
