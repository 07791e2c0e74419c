"""Inside a sign-in: proving again who one is, and adding a second factor (RFC 9470).

Each of them ends in a new session that replaces the old one, with what it had proved and what was proved now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import StepUpRequired, WrongCredentials
from dutchdoor.mail.letters import Notice
from dutchdoor.model.accounts import Credential
from dutchdoor.model.issuer_sessions import IssuerSession
from dutchdoor.model.principal import Verified, factors_of
from dutchdoor.services.factors import Confirmed
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.passkeys import NO_CEREMONY, Ceremony
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sign_in import SignIn
from dutchdoor.services.sign_in_steps import written_beside
from dutchdoor.stores.base import Change
from dutchdoor.texts import mark

__all__ = ["StepUp"]


class StepUp(Part):
    """Proves again inside sign-ins (`ongoing`), over one authority. Every verb raises `Unavailable` when the store is
    out of reach, or too many passwords are being hashed, and `NotAuthenticated` when the account changed, or the
    session was revoked, meanwhile.
    """

    def __init__(self, shared: Shared, sign_in: SignIn) -> None:
        super().__init__(shared)
        self.sign_in, self.second, self.factors = sign_in, sign_in.second, sign_in.factors

    async def reauthenticate(self, ongoing: Ongoing, password: str, *, login: str = "") -> SignedIn:
        """Check the password again (RFC 9470): a fresh `auth_time`. `login` is what the person typed as login; it is
        read only where the application has users of its own.

        Raises:
            WrongCredentials: the password is wrong.
            StepUpRequired: the sign-in is in doubt, and the account has a second factor.
            RateLimited: too many attempts.
        """
        await self.check_enough(ongoing)
        checked = await self.sign_in.check_password(
            ongoing.account, ongoing.session, password, client=ongoing.client, login=login
        )
        return await self.by_first(replace(ongoing, account=checked.account), checked.amr, checked.forgiving)

    @retried(RACES, "proving again")
    async def prove_again(
        self, ongoing: Ongoing, method: str, response: str, *, ceremony: Ceremony = NO_CEREMONY
    ) -> SignedIn:
        """Prove a second factor (RFC 9470): a fresh `auth_time`, and one more kind of proof.

        Args:
            method: the name of the factor's method.
            response: what the owner typed, or their device answered.
            ceremony: where a passkey answered.

        Raises:
            WrongCredentials: the proof is wrong, or the account has no such factor.
            RateLimited: too many guesses.
        """
        way = self.second.methods.get(method)
        if way is None or not way.second:
            raise WrongCredentials("not a second factor", message=mark("This account has no such second factor."))
        account, client, session = ongoing.account, ongoing.client, ongoing.session
        known = await self.store.select(Credential, subject=account.subject)
        place, signed = session.id if session else "", (ceremony, "prove again", "")
        spent, proved = await self.second.spend(account, way, response, known, client, None, place, signed)
        spent.append(self.attempts.forgiving_second(account, self.second.names))
        spent += self.second.keeping(account, known, client, self.clock())
        fresh = await self.fresh(ongoing, proved, *spent, tries_again=False)
        if method == RECOVERY_CODE:
            self.post.notify(Notice.RECOVERY_CODE_USED, account, client, self.clock())
        return fresh

    async def add_totp(self, ongoing: Ongoing, token: str, code: str) -> tuple[SignedIn, tuple[str, ...]]:
        """Finish enrolling an authenticator app, by the `token` of the enrolment and the `code` that the app shows.
        Returns what replaces the sign-in, which has proved the app now, and recovery codes if it is the first second
        factor.

        Raises:
            InvalidToken, WrongCredentials, RateLimited: as `Factors.confirm_totp` says.
            StepUpRequired: the account got a second factor meanwhile, and the sign-in did not prove one.
        """
        confirm = partial(self.factors.confirm_totp, ongoing.account, token, code, client=ongoing.client)
        return await self._add(ongoing, confirm, Notice.FACTOR_ADDED)

    async def add_passkey(
        self, ongoing: Ongoing, answer: str, name: str, ceremony: Ceremony
    ) -> tuple[SignedIn, tuple[str, ...]]:
        """Finish making a passkey. Returns what `add_totp` returns.

        Args:
            answer: what the browser answered to `Passkeys.creation_options`, as JSON.
            name: what its owner calls it; "" for the name of the device.
            ceremony: where it was made.

        Raises:
            InvalidToken, InvalidInput, Refused: as `Passkeys.made` says.
            StepUpRequired: the account got a second factor meanwhile, and the sign-in did not prove one.
        """
        confirm = partial(self.factors.confirm_passkey, ongoing.account, answer, name, ceremony, client=ongoing.client)
        return await self._add(ongoing, confirm, Notice.PASSKEY_ADDED)

    @retried(RACES, "adding the second factor")
    async def _add(
        self, ongoing: Ongoing, confirm: Callable[[], Awaitable[Confirmed]], notice: Notice
    ) -> tuple[SignedIn, tuple[str, ...]]:
        await self.factors.check_proved(ongoing.account.subject, ongoing.held)
        confirmed = await confirm()
        signed_in = await self.fresh(ongoing, confirmed.amr, *confirmed.changes, tries_again=False)
        self.post.notify(notice, ongoing.account, ongoing.client, self.clock())
        return signed_in, confirmed.codes

    async def check_enough(self, ongoing: Ongoing, amr: tuple[str, ...] = ()) -> None:
        """Refuse a first proof, such as the password, for a sign-in in doubt of an account that has a second factor,
        unless it was two kinds of proof by itself (`amr`). What the sign-in has proved before says nothing of the one
        who uses it now: malware copies cookies and saved passwords together.

        Raises `StepUpRequired`.
        """
        if ongoing.in_doubt and await self._is_short(ongoing, amr):
            raise StepUpRequired("a sign-in in doubt, without its second factor", factors=2)

    async def _is_short(self, ongoing: Ongoing, amr: tuple[str, ...]) -> bool:
        """Return whether the account has a second factor, and a proof is one kind alone."""
        return factors_of(amr) < 2 and bool((await self.factors.of(ongoing.account.subject))[0])  # noqa: PLR2004

    async def by_first(
        self, ongoing: Ongoing, proved: tuple[str, ...], *also: Change, tries_again: bool = True
    ) -> SignedIn:
        """Replace a sign-in as `fresh` does, by a first proof. A second factor that was proved before does not become
        fresh with it: a thief who copied the cookie and knows the password would add a factor of their own.
        """
        held = proved if await self._is_short(ongoing, proved) else ongoing.held
        return await self.fresh(replace(ongoing, held=held), proved, *also, tries_again=tries_again)

    async def fresh(
        self, ongoing: Ongoing, proved: tuple[str, ...], *also: Change, tries_again: bool = True
    ) -> SignedIn:
        """Replace a sign-in by one that was `proved` now, which keeps what was proved at its start, and its scope.
        `also` are further changes, and `tries_again` is as for `Authority.start`.
        """
        account, session = ongoing.account, ongoing.session
        amr = tuple(dict.fromkeys((*ongoing.held, *proved)))
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=amr, at=self.clock())
        start = partial(
            self.authority.start,
            verified,
            client=ongoing.client,
            client_id=ongoing.client_id,
            also=also,
            tries_again=tries_again,
        )
        if session is None:
            return await start(mode="jwt", scope=ongoing.scope)
        began = await self.store.get(IssuerSession, session.id)  # it stays one that the issuer may end
        beside = None if began is None else written_beside(began.issued)
        return await start(mode=session.mode, scope=session.scope, inside=session, beside=beside)
