"""Second factors of an account: enrolling, replacing and removing them, and the recovery codes beside them.

An app or a key is enrolled in two steps: what it needs is given out with a one-time token, and the record is written
once its owner has shown that it works. To remove a factor, a caller must have proved one: a password alone, or a
session from before, must not take away what protects the account from exactly those.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.passkey import PASSKEY, facts_of
from dutchdoor.credentials.recovery_code import RECOVERY_CODE, RecoveryCodes
from dutchdoor.credentials.totp import TOTP, Totp, new_secret, otpauth
from dutchdoor.errors import InvalidToken, NotFound, Refused, StepUpRequired, WrongCredentials
from dutchdoor.mail.letters import Notice
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import EventName, account_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import MINUTE
from dutchdoor.model.principal import factors_of
from dutchdoor.model.rate_limits import Bucket, bucket_of
from dutchdoor.model.set_aside import SET_ASIDE, put_back, still_asked
from dutchdoor.model.sign_in import needs_second
from dutchdoor.services.identities import ways_in
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.passkeys import Ceremony, Passkeys
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Add, Change, Expect, Forgive, Log, Remove, Swap, Take
from dutchdoor.texts import mark

__all__ = ["FACTORS", "Confirmed", "Enrolment", "Factor", "Factors"]

FACTORS: Final = (PASSKEY, TOTP)
"""The methods of second factors. Recovery codes stand in for them."""
ENROL_FOR = 15 * MINUTE
"""Seconds in which a new app has to show its first code."""


class Factor(Struct, frozen=True):
    """A second factor that an account has."""

    method: str
    handle: str
    created_at: float
    name: str = ""
    """What its owner calls a passkey."""
    used_at: float | None = None
    """When a passkey was last used; None for never, and for others."""
    synchronised: bool = False
    """Whether a passkey is on further devices of its owner, or can be restored."""
    set_aside: bool = False
    """Whether it is set aside since the password was reset."""


class Enrolment(Struct, frozen=True):
    """What an authenticator app is given. All of it is secret, but for the name of the account in the address."""

    token: str
    secret: str
    """In base32, for typing."""
    uri: str
    """The `otpauth:` address, which the QR code shows."""

    def __repr__(self) -> str:
        return "<Enrolment>"


class Confirmed(Struct, frozen=True):
    """What enrolling writes, and the recovery codes that came with a first factor: they are shown this once."""

    changes: Sequence[Change]
    records: Sequence[Credential]
    codes: tuple[str, ...]
    amr: tuple[str, ...]
    """What making it has proved (RFC 8176)."""

    def __repr__(self) -> str:
        return "<Confirmed>"


class Factors(Part):
    """Second factors over one authority. `client` is the client that asks. Every verb raises `Unavailable` when the
    store is out of reach.
    """

    def __init__(self, shared: Shared, passkeys: Passkeys, *, issuers: Collection[str], product: str) -> None:
        """`issuers` are the names of those that are configured, and `product` is the name under which an app shows the
        account.
        """
        super().__init__(shared)
        self.issuers = issuers
        self.totp, self.codes, self.product = Totp(self.authority.master), RecoveryCodes(self.authority.master), product
        self.passkeys = passkeys
        self.offered: tuple[str, ...] = () if self.policy.second_factor == "off" else FACTORS
        """The methods that an account can enrol."""

    async def of(self, subject: str, *, aside: bool = False) -> tuple[list[Factor], int]:
        """Return the second factors of a `subject`, oldest first, and how many recovery codes are left. With `aside`,
        those that are set aside are among them.
        """
        held = await self.store.select(Credential, subject=subject)
        found = [_factor(each) for each in held if each.method in FACTORS]
        if aside:
            others = [_factor(put_back(each)) for each in held if each.method == SET_ASIDE]
            found += [replace(each, set_aside=True) for each in others if each.method in FACTORS]
        left = sum(self.codes.left(each) for each in held if each.method == RECOVERY_CODE)
        return sorted(found, key=lambda each: each.created_at), left

    def removable_by_mail(self, account: Account) -> bool:
        """Return whether the policy lets the owner of an `account` have lost factors removed by mail."""
        proved = account.address is not None and account.email_verified_at is not None
        return self.policy.factor_recovery_after > 0 and proved and not account.administers

    def is_used_up(self, credential: Credential) -> bool:
        """Return whether a credential can prove nothing any more: recovery codes of which none is left."""
        return credential.method == RECOVERY_CODE and not self.codes.left(credential)

    async def begin_totp(self, account: Account, *, amr: tuple[str, ...] | None) -> Enrolment:
        """Give out the secret of an authenticator app. It counts once `confirm_totp` has seen a code.

        Args:
            account: its owner.
            amr: what the sign-in of the caller proved; None in a sign-in that demands a first factor.

        Raises:
            Refused: the policy offers no second factors.
            StepUpRequired: the account has a second factor, and the sign-in of the caller did not prove one.
        """
        if amr is not None:
            await self.check_proved(account.subject, amr)
        if TOTP not in self.offered:
            raise Refused("no second factors here", message=mark("Second factors are switched off here."))
        secret = new_secret()
        token, given = one_time_tokens.issue(
            "enrol",
            subject=account.subject,
            email=account.email or "",
            now=self.clock(),
            lives_for=ENROL_FOR,
            payload=self.authority.master.current.seal(secret.encode(), _name(account)),
        )
        # One at a time: a page that is left open must not finish after another one did.
        await self.store.commit(Expect(account.subject, account.epoch), tokens_of(account.subject, "enrol"), Add(token))
        return self._enrolment(account, given.text(), secret)

    def _enrolment(self, account: Account, token: str, secret: str) -> Enrolment:
        shown = account.address or account.name or account.subject
        return Enrolment(token=token, secret=secret, uri=otpauth(secret, name=shown, product=self.product))

    async def resumed(self, account: Account, token: str, *, client: Client) -> Enrolment:
        """Return once more what was given out with the `token` of an enrolment, for a page that is shown again.

        Raises:
            InvalidToken: it is unknown, used or too old, or another account's.
        """
        _, secret = await self._begun(account, token, client)
        return self._enrolment(account, token, secret)

    async def _begun(self, account: Account, token: str, client: Client) -> tuple[OneTimeToken, str]:
        stored = await self.one_time.redeem(token, "enrol", client)
        if stored.subject != account.subject:
            raise InvalidToken("the enrolment of another account")
        return stored, self.authority.master.open(stored.payload, _name(account)).decode()

    async def check_proved(self, subject: str, amr: tuple[str, ...]) -> None:
        """Raise `StepUpRequired` if the account has a second factor that this sign-in did not prove."""
        if (await self.of(subject))[0]:
            self._check_proved(amr)

    async def confirm_totp(self, account: Account, token: str, code: str, *, client: Client) -> Confirmed:
        """Return what to commit for an app that shows the right `code`, for the `token` of its enrolment. It replaces
        the app that the account had.

        Raises:
            InvalidToken: the enrolment is unknown, too old, used, or another account's.
            WrongCredentials: the code is wrong. It may be tried again, within limits.
            RateLimited: too many wrong codes, or too many factors were added.
        """
        stored, secret = await self._begun(account, token, client)
        guesses = self.attempts.second(account, "enrol")
        await self.attempts.take([*guesses, self._room(account)])
        now = self.clock()
        fresh = self.totp.enrolled(account.subject, secret, code, now)
        if fresh is None:
            raise WrongCredentials(
                "wrong first code", message=mark("This is not the code that the app should show now.")
            )
        before = await self.store.get(Credential, account.subject, TOTP, "")
        codes, beside = await self._first_codes(account, client, now)
        changes = [Take(stored), _in_place_of(before, fresh), *beside, Forgive(forget=guesses)]
        if before is not None:  # a reset counts what was removed: `had_factor`
            changes.append(self._log("factor_removed", account, client, now, TOTP))
        changes.append(self._log("factor_added", account, client, now, TOTP))
        return Confirmed(changes, (fresh,), codes, (self.totp.amr,))

    async def confirm_passkey(
        self, account: Account, answer: str, name: str, ceremony: Ceremony, *, client: Client, pending: str = ""
    ) -> Confirmed:
        """Return what to commit for a new passkey, by the `answer` to its options. Raises what `Passkeys.made` raises,
        and `RateLimited` when too many factors were added.

        Args:
            account: its owner.
            name: what they call it; "" for the name of the device.
            ceremony: where it was made.
            pending: the id of the unfinished sign-in that demands it; "" inside a sign-in.
        """
        made = await self.passkeys.made(account, answer, name, ceremony, client=client, pending=pending)
        await self.attempts.take([self._room(account)])
        now = self.clock()
        codes, beside = await self._first_codes(account, client, now)
        changes = [*made.changes, *beside, self._log("factor_added", account, client, now, PASSKEY)]
        return Confirmed(changes, (made.record,), codes, made.amr)

    def _room(self, account: Account) -> Bucket:
        return bucket_of(self.attempts.limits.factors_by_account, account.subject)

    async def _first_codes(self, account: Account, client: Client, now: float) -> tuple[tuple[str, ...], list[Change]]:
        """Return new recovery codes for an account without any, or whose codes are all used."""
        held = await self.store.get(Credential, account.subject, RECOVERY_CODE, "")
        if held is not None and not self.is_used_up(held):
            return (), []
        return await self._fresh_codes(account, client, now)

    async def _fresh_codes(self, account: Account, client: Client, now: float) -> tuple[tuple[str, ...], list[Change]]:
        """Return new recovery codes, in place of those that the account has, or had until a reset set them aside."""
        held = await self.store.select(Credential, subject=account.subject)
        record, codes = self.codes.issue(account.subject, now)
        before = next((each for each in held if each.method == RECOVERY_CODE), None)
        gone = [Take(each) for each in held if _are_codes(each) and each is not before]
        made = self._log("recovery_codes_created", account, client, now)
        return codes, [_in_place_of(before, record), *gone, made]

    @retried(RACES, "creating recovery codes")
    async def new_codes(self, account: Account, *, amr: tuple[str, ...], client: Client) -> tuple[str, ...]:
        """Replace the recovery codes of an account, and return the new ones.

        Args:
            account: their owner.
            amr: what the sign-in of the caller proved.

        Raises:
            NotFound: the account has no second factor that they could stand in for.
            StepUpRequired: the sign-in proved no second factor.
            RateLimited: too many codes were made, or too many factors added.
        """
        factors, _ = await self.of(account.subject)
        if not factors:
            raise NotFound("no second factor", message=mark("The account has no second factor."))
        self._check_proved(amr)
        await self.attempts.take([self._room(account)])
        now = self.clock()
        codes, written = await self._fresh_codes(account, client, now)
        await self.store.commit(Expect(account.subject, account.epoch), *written)
        # A thief in a copied session would have a second factor that outlives a new password.
        self.post.notify(Notice.RECOVERY_CODES_CREATED, account, client, now)
        return codes

    @retried(RACES, "removing the factor")
    async def remove(
        self,
        account: Account,
        method: str,
        handle: str,
        *,
        amr: tuple[str, ...] | None,
        client: Client,
        actor: str = "",
    ) -> None:
        """Remove a second factor. With the last one go the recovery codes.

        Args:
            account: its owner.
            method: the name of its method.
            handle: which of them; "" where an account has one.
            amr: what the sign-in of the caller proved; None for a command or an administrator.
            actor: who removes it; "" for the owner.

        Raises:
            NotFound: the account has no such factor.
            StepUpRequired: the sign-in of the caller proved no second factor.
            Refused: the policy demands one of the account, which would have none; or an administrator removes their own
                as an administrator. Another administrator may remove it.
        """
        if amr is None and actor == account.subject:
            # A session of theirs from before the factor, and the password, must not be enough.
            raise Refused(
                "an administrator would remove their own factor",
                message=mark("This is your own account. Remove the second factor on the page of your account."),
            )
        held = await self.store.select(Credential, subject=account.subject)
        found = next((each for each in held if (each.method, each.handle) == (method, handle)), None)
        if found is None and amr is None:
            found = next((each for each in held if each.method == SET_ASIDE and _holds(each, method, handle)), None)
        if found is None or method not in FACTORS:
            raise NotFound("no such factor", message=mark("There is no such second factor."))
        if amr is not None:
            self._check_proved(amr)
            self._check_way_in(account, [each for each in held if each is not found])
        others = [each for each in (*held, *still_asked(held)) if each.method in FACTORS]
        last = all((each.method, each.handle) == (method, handle) for each in others)
        if last and amr is not None and needs_second(account, self.policy):
            raise Refused(
                "the last factor is demanded",
                message=mark("Your account needs a second factor. Add another one first."),
            )
        now = self.clock()
        codes = [Remove(each) for each in held if _are_codes(each) and last]
        await self.store.commit(
            Expect(account.subject, account.epoch),
            # Two removals at once must not each see the other factor as the one that is left.
            *[Swap(each) for each in held if each.method in FACTORS],
            Remove(found),
            *codes,
            tokens_of(account.subject, "sign_in"),  # one that it was proved in and waits for its next step
            self._log("factor_removed", account, client, now, method, actor),
        )
        notice = Notice.PASSKEY_REMOVED if method == PASSKEY else Notice.FACTOR_REMOVED
        self.post.notify(notice, account, client, now)

    def _check_way_in(self, account: Account, left: Sequence[Credential]) -> None:
        """Raise `Refused` if nothing in `left` signs in to the account. The application keeps the passwords of an
        external account.
        """
        if account.email is not None and not ways_in(left, self.issuers):
            raise Refused(
                "the last way in",
                message=mark("This is the only way to sign in to your account. Choose a password first."),
            )

    @staticmethod
    def _check_proved(amr: tuple[str, ...]) -> None:
        if factors_of(amr) < 2:  # noqa: PLR2004 - a second factor
            raise StepUpRequired("a second factor was not proved", factors=2)

    @staticmethod
    def _log(
        name: EventName, account: Account, client: Client, now: float, detail: str = "", actor: str = ""
    ) -> Change:
        return Log(account_event(name, account, client, now, actor=actor, detail=detail))


def _in_place_of(held: Credential | None, fresh: Credential) -> Change:
    """Return the change that adds a credential, or replaces the one that the account holds."""
    return Add(fresh) if held is None else Swap(replace(fresh, revision=held.revision))


def _are_codes(record: Credential) -> bool:
    return record.method == RECOVERY_CODE or (record.method == SET_ASIDE and _holds(record, RECOVERY_CODE, ""))


def _holds(record: Credential, method: str, handle: str) -> bool:
    held = put_back(record)
    return (held.method, held.handle) == (method, handle)


def _factor(credential: Credential) -> Factor:
    if credential.method != PASSKEY:
        return Factor(credential.method, credential.handle, credential.created_at)
    facts = facts_of(credential)
    return Factor(
        PASSKEY, credential.handle, credential.created_at, facts.name, facts.used_at, synchronised=facts.backed_up
    )


def _name(account: Account) -> str:
    return f"enrol {account.subject}"
