"""Inside a sign-in: proving again who one is, and adding a second factor (RFC 9470).

Each of them ends in a new session that replaces the old one, with what it had proved and what was proved now.
"""

from __future__ import annotations

from functools import partial

from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import WrongCredentials
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.issuer_sessions import IssuerSession
from dutchdoor.model.principal import Verified
from dutchdoor.model.sessions import Session
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
    """Proves again inside sign-ins, over one authority. `client` is the client that asks. Every verb raises
    `Unavailable` when the store is out of reach, or too many passwords are being hashed.
    """

    def __init__(self, shared: Shared, sign_in: SignIn) -> None:
        super().__init__(shared)
        self.sign_in, self.second = sign_in, sign_in.second

    async def reauthenticate(
        self,
        account: Account,
        session: Session | None,
        password: str,
        *,
        client: Client,
        client_id: str,
        held: tuple[str, ...] = (),
        scope: str = "",
        login: str = "",
    ) -> SignedIn:
        """Check the password again inside a sign-in (RFC 9470): a fresh `auth_time`, in a new session that replaces the
        old.

        Args:
            account: the owner of the password.
            session: the current session; None for a stateless sign-in.
            password: the password as the person typed it.
            client_id: the registered client that the sign-in belongs to.
            held: what the sign-in has proved so far (`amr`), which stays true of it.
            scope: the scope of the sign-in.
            login: what the person typed as login; read only where the application has users of its own.

        Raises:
            WrongCredentials: the password is wrong.
            RateLimited: too many attempts.
            NotAuthenticated: the account changed, or the session was revoked, meanwhile.
        """
        checked = await self.sign_in.check_password(account, session, password, client=client, login=login)
        return await self.fresh(
            checked.account, session, checked.amr, held, client, client_id, checked.forgiving, scope=scope
        )

    @retried(RACES, "proving again")
    async def prove_again(
        self,
        account: Account,
        session: Session | None,
        method: str,
        response: str,
        *,
        held: tuple[str, ...],
        client: Client,
        client_id: str,
        ceremony: Ceremony = NO_CEREMONY,
        scope: str = "",
    ) -> SignedIn:
        """Prove a second factor inside a sign-in (RFC 9470): a fresh `auth_time`, and one more kind of proof.

        Args:
            account: the owner of the factor.
            session: the current session; None for a stateless sign-in.
            method: the name of the factor's method.
            response: what the owner typed, or their device answered.
            held: what the sign-in has proved so far (`amr`).
            client_id: the registered client that the sign-in belongs to.
            ceremony: where a passkey answered.
            scope: the scope of the sign-in.

        Raises:
            WrongCredentials: the proof is wrong, or the account has no such factor.
            RateLimited: too many guesses.
            NotAuthenticated: the account changed, or the session was revoked, meanwhile.
        """
        way = self.second.methods.get(method)
        if way is None or not way.second:
            raise WrongCredentials("not a second factor", message=mark("This account has no such second factor."))
        known = await self.store.select(Credential, subject=account.subject)
        place, signed = session.id if session else "", (ceremony, "prove again", "")
        spent, proved = await self.second.spend(account, way, response, known, client, None, place, signed)
        spent.append(self.attempts.forgiving_second(account, self.second.names))
        spent += self.second.keeping(account, known, client, self.clock())
        fresh = await self.fresh(
            account, session, proved, held, client, client_id, *spent, scope=scope, tries_again=False
        )
        if method == RECOVERY_CODE:
            self.post.notify(self.post.letters.recovery_code_used, account, client, self.clock())
        return fresh

    @retried(RACES, "adding the authenticator app")
    async def add_totp(
        self,
        account: Account,
        session: Session | None,
        token: str,
        code: str,
        *,
        held: tuple[str, ...],
        client: Client,
        client_id: str,
        scope: str = "",
    ) -> tuple[SignedIn, tuple[str, ...]]:
        """Finish enrolling an authenticator app inside a sign-in. Returns what replaces the sign-in, which has proved
        the app now, and recovery codes if it is the first second factor.

        Args:
            account: the owner of the app.
            session: the current session; None for a stateless sign-in.
            token: the token of the enrolment.
            code: the code that the app shows.
            held: what the sign-in has proved so far (`amr`).
            client_id: the registered client that the sign-in belongs to.
            scope: the scope of the sign-in.

        Raises:
            InvalidToken, WrongCredentials, RateLimited: as `Factors.confirm_totp` says.
            StepUpRequired: the account got a second factor meanwhile, and the sign-in did not prove one.
            NotAuthenticated: the account changed, or the session was revoked, meanwhile.
        """
        await self.second.factors.check_proved(account.subject, held)
        confirmed = await self.second.factors.confirm_totp(account, token, code, client=client)
        signed_in = await self.fresh(
            account, session, confirmed.amr, held, client, client_id, *confirmed.changes, scope=scope, tries_again=False
        )
        self.post.notify(self.post.letters.factor_added, account, client, self.clock())
        return signed_in, confirmed.codes

    @retried(RACES, "adding the passkey")
    async def add_passkey(
        self,
        account: Account,
        session: Session | None,
        answer: str,
        name: str,
        ceremony: Ceremony,
        *,
        held: tuple[str, ...],
        client: Client,
        client_id: str,
        scope: str = "",
    ) -> tuple[SignedIn, tuple[str, ...]]:
        """Finish making a passkey inside a sign-in. Returns what replaces the sign-in, which has proved the passkey
        now, and recovery codes if it is the first second factor.

        Args:
            account: the owner of the passkey.
            session: the current session; None for a stateless sign-in.
            answer: what the browser answered to `Passkeys.creation_options`, as JSON.
            name: what its owner calls it; "" for the name of the device.
            ceremony: where it was made.
            held: what the sign-in has proved so far (`amr`).
            client_id: the registered client that the sign-in belongs to.
            scope: the scope of the sign-in.

        Raises:
            InvalidToken, InvalidInput, Refused: as `Passkeys.made` says.
            StepUpRequired: the account got a second factor meanwhile, and the sign-in did not prove one.
            NotAuthenticated: the account changed, or the session was revoked, meanwhile.
        """
        await self.second.factors.check_proved(account.subject, held)
        confirmed = await self.second.factors.confirm_passkey(account, answer, name, ceremony, client=client)
        signed_in = await self.fresh(
            account, session, confirmed.amr, held, client, client_id, *confirmed.changes, scope=scope, tries_again=False
        )
        self.post.notify(self.post.letters.passkey_added, account, client, self.clock())
        return signed_in, confirmed.codes

    async def fresh(
        self,
        account: Account,
        session: Session | None,
        proved: tuple[str, ...],
        held: tuple[str, ...],
        client: Client,
        client_id: str,
        *also: Change,
        scope: str = "",
        tries_again: bool = True,
    ) -> SignedIn:
        """Replace the `session` of an `account` by one that was `proved` now, which keeps what was proved at its start
        (`held`), and its `scope`. `client_id` is the registered client that it belongs to, `also` are further changes,
        and `tries_again` is as for `Authority.start`.
        """
        amr = tuple(dict.fromkeys((*held, *proved)))
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=amr, at=self.clock())
        start = partial(
            self.authority.start, verified, client=client, client_id=client_id, also=also, tries_again=tries_again
        )
        if session is None:
            return await start(mode="jwt", scope=scope)
        began = await self.store.get(IssuerSession, session.id)  # it stays one that the issuer may end
        beside = None if began is None else written_beside(began.issued)
        return await start(mode=session.mode, scope=session.scope, inside=session, beside=beside)
