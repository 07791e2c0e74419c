"""Codes by mail: signing in without a password, and proving again who one is.

`ask` gives the asking browser a one-time token and mails six digits; `sign_in` takes both. The link in the mail leads
to the page where the code is typed, and carries the code: opened in another browser it does nothing, because the token
is missing there. So an attacker who asks for a code in the owner's name gains nothing when the owner opens the link,
and an attacker who mails a link of their own signs no one in to their account (log-in CSRF).

An unknown, a disabled and a deleted account get the same answer as every other, after the same calls to the store: a
token that no code fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from hmac import compare_digest
from typing import Final, NamedTuple, NoReturn

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.mail_code import MAIL_CODE, MailCodes
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import InvalidToken, RateLimited, Refused, WrongCredentials
from dutchdoor.model import one_time_tokens, rate_limits
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event, event
from dutchdoor.model.email_address import canonical, without_tag
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeToken, Purpose
from dutchdoor.model.policy import MINUTE, Mode
from dutchdoor.model.rate_limits import Bucket, bucket_of, by_address
from dutchdoor.model.sign_in import Proof, Refuse
from dutchdoor.services.attempts import RECENT, chosen_at
from dutchdoor.services.browser import Browser
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.post import LANGUAGE
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.registration import REGISTRATION, evicting, is_unproved, proof_of, verifying
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sign_in import SignIn
from dutchdoor.services.sign_in_steps import Proved
from dutchdoor.services.step_up import StepUp
from dutchdoor.stores.base import Add, Change, Expect, Forgive, Log, Remove, Swap, Take
from dutchdoor.texts import mark

__all__ = ["CODE_FOR", "Asked", "MailedCodes"]

CODE_FOR: Final = 10 * MINUTE
"""Seconds in which a code has to be typed. One-time codes out of band live ten minutes at most (NIST SP 800-63B-4)."""

_OFF = mark("Signing in by mail is switched off here.")
_WRONG = mark("This code is not right. A code works once, and only in the browser that asked for it.")
_VOID = mark("This code does not work any more: there were too many wrong ones. Ask for another one.")
_GONE = mark("There is no code for this browser, or it is too old. Ask for a code here, and type it here.")


class Kept(Struct, frozen=True):
    """The payload of the browser's token."""

    code: str
    """The keyed hash of the code."""
    epoch: int
    """Of the account, when the code was asked for: a new password, or a sign-out everywhere, voids the code."""
    digest: str
    """The typed address in the keys of limits."""


class Asked(NamedTuple):
    """What the asking browser gets."""

    token: str
    """Its half of the proof, a secret."""
    expires_in: float
    """Seconds until it is void."""


class MailedCodes(Part):
    """Mails codes and takes them over one authority. `client` is the client that asks, and `marks` is what its
    known-device cookie holds ("" for none). Every verb raises `Unavailable` when the store is out of reach.
    """

    def __init__(self, shared: Shared, sign_in: SignIn, step_up: StepUp) -> None:
        super().__init__(shared)
        self.signing_in, self.step_up = sign_in, step_up
        self.codes = MailCodes(self.authority.master)

    @property
    def prove_the_mailbox(self) -> bool:
        """Whether a right code proves that its owner reads the account's mailbox: not where a hook delivers it."""
        return self.authority.hooks.deliver_code is None

    # Asking

    async def ask(self, email: str, *, client: Client, marks: str = "") -> Asked:
        """Mail a code to the address `email`, if it has an account that can sign in. The caller learns nothing about
        that, not even from the response time.

        A browser from which the account signed in before has limits of its own: an attacker who asks for codes again
        and again must not keep its owner from getting one.

        Raises:
            Refused: the policy does not let people sign in by mail.
            InvalidInput: `email` is not an address.
            RateLimited: too many codes were asked for from there, or for this mailbox.
        """
        if not self.policy.sign_in_by_mail:
            raise Refused("no sign-in by mail", message=_OFF)
        key = canonical(email)
        now, digest = self.clock(), self.attempts.digest(key)
        known = self.attempts.find_mark(marks, digest, now)
        limits = self.attempts.limits
        address = () if known else by_address(limits.code_by_address, client.networks)
        own = f"{digest}:{known.device}" if known else digest
        await self.attempts.take([*address, bucket_of(limits.code_by_mailbox, own)])
        account = await self.store.account_by_email(key)
        return await self._issue("mail_code", account, digest, client)

    async def ask_again(self, account: Account, *, client: Client) -> Asked:
        """Mail a code to the owner of an `account` who is signed in and has to prove again who they are.

        Raises:
            Refused: the account has a password and the policy does not let people sign in by mail, or it has no
                verified address.
            RateLimited: too many codes were asked for.
        """
        if not await self.can_prove_again(account):
            raise Refused("no code by mail for this account", message=_OFF)
        digest = self.attempts.digest(account.email or "")
        await self.attempts.take([bucket_of(self.attempts.limits.code_by_mailbox, f"{digest}:inside")])
        return await self._issue("confirm_code", account, digest, client)

    async def can_prove_again(self, account: Account) -> bool:
        """Return whether a mailed code is a fresh proof of this account's owner: where it signs them in, and where they
        have neither a password nor a passkey to prove.
        """
        if not account.address or account.email_verified_at is None:
            return False
        if self.policy.sign_in_by_mail:
            return True
        held = await self.store.select(Credential, subject=account.subject)
        return not any(each.method in {PASSWORD, PASSKEY} for each in held)

    async def _issue(self, purpose: Purpose, account: Account | None, digest: str, client: Client) -> Asked:
        now = self.clock()
        is_mailed = account is not None and account.active and bool(account.address)
        token, secret = one_time_tokens.issue(
            purpose,
            subject=account.subject if account is not None and is_mailed else "",
            email=account.email or "" if account is not None and is_mailed else "",
            now=now,
            lives_for=CODE_FOR,
        )
        code, hashed = self.codes.issue(token.id)
        kept = Kept(hashed, account.epoch if account is not None else 0, digest)
        record = event(
            "mail_code_sent",
            now=now,
            client=client,
            subject=token.subject,
            actor=token.subject if purpose == "confirm_code" else "",
            outcome="ok" if is_mailed else "refused",
            detail="" if is_mailed else "no such account",
        )
        # Codes of other browsers stay valid: a stranger who asks for one must not void the one that its owner types.
        await self.store.commit(Add(replace(token, payload=msgspec.json.encode(kept))), Log(record))
        if account is not None and is_mailed:
            self.post.later(self._deliver(account, code, client, purpose))
        return Asked(secret.text(), CODE_FOR)

    async def _deliver(self, account: Account, code: str, client: Client, purpose: Purpose) -> None:
        deliver = self.authority.hooks.deliver_code
        if deliver is not None:
            await self.authority.hooks.calling(deliver, account, code)
            return
        tagless = without_tag(account.email or "")
        if account.email_verified_at is None and tagless != account.email:
            # A stranger can register any number of tagged addresses of one mailbox, and each of them has a bucket.
            await self.attempts.take([bucket_of(self.attempts.limits.code_by_mailbox, self.attempts.digest(tagless))])
        letters = self.post.letters
        await self.post.send(
            letters.confirm_code if purpose == "confirm_code" else letters.mail_code,
            account.address or "",
            code=code,
            valid_for=CODE_FOR,
            client=client,
            at=self.clock(),
            language=client.languages,
        )

    # Taking a code

    @retried(RACES, "signing in by a code")
    async def sign_in(
        self,
        token: str,
        code: str,
        browser: Browser,
        *,
        mode: Mode,
        client_id: str = "",
    ) -> tuple[SignedIn, str]:
        """Check a code, and start a session. Returns what starts, and the browser's known-device mark.

        A right code proves the mailbox. If no one ever proved it before, a stranger may have registered the address:
        then the password and every second factor go, and so does every session, unless this browser registered it.

        Args:
            token: the token that this browser got from `ask`.
            code: the code as the person typed it.
            browser: the client that signs in, and what its cookies hold.
            mode: `session`, `hybrid` or `jwt`.
            client_id: the registered client that the sign-in belongs to; "" for the application itself.

        Raises:
            Refused: the policy does not let people sign in by mail.
            WrongCredentials: the code is wrong, or the account cannot sign in.
            SignInUnfinished: it is right, and another proof is needed. Nothing started.
            InvalidToken: the token is unknown, used, too old, or void after wrong codes: ask for another code.
            RateLimited: too many wrong codes.
            SessionLimitReached: the policy refuses one more session.
        """
        if not self.policy.sign_in_by_mail:
            raise Refused("no sign-in by mail", message=_OFF)
        client = browser.client
        stored, kept = await self._redeem(token, "mail_code", client)
        # The same calls in the same order, whether the token belongs to an account or not.
        known = await self.store.known(stored.email, recent=RECENT)
        account = known.account if known is not None and known.account.subject == stored.subject else None
        now = self.clock()
        since = 0.0 if known is None else chosen_at(known.credentials)
        device = "" if account is None else self.attempts.device_of(browser.marks, kept.digest, since)
        row = await self._count(stored, kept.digest, device, known=account is not None)
        right = self.codes.is_right(stored.id, kept.code, code)
        if known is None or account is None or not right or account.epoch != kept.epoch:
            await self._refuse(account, client, "wrong code by mail")
        proof = Proof(method=MAIL_CODE, amr=(self.codes.amr,), at=now)
        ceilings = rate_limits.sign_in_ceilings(self.attempts.limits, kept.digest)
        held: Sequence[Credential] = known.credentials
        changes: tuple[Change, ...] = (Take(stored), Forgive(forget=(row, *ceilings)))
        if is_unproved(account) and self.prove_the_mailbox:
            await self._take_over(account, held, browser, changes)
            changes = ()
            account = await self.store.account(account.subject) or account
            held = await self.store.select(Credential, subject=account.subject)
        step = await self.signing_in.next_of(account, (proof,), held, browser.remembered, kept.digest)
        if isinstance(step, Refuse):
            await self._refuse(account, client, step.why)
        return await self.signing_in.begin(
            Proved(
                account=account,
                step=step,
                proof=proof,
                chosen_at=since,
                place=self.attempts.place_of(device, client, known.recent),
                digest=kept.digest,
                changes=changes,
                held=held,
            ),
            browser,
            mode=mode,
            client_id=client_id,
            tries_again=not changes,
        )

    @retried(RACES, "proving again")
    async def prove_again(
        self,
        ongoing: Ongoing,
        token: str,
        code: str,
    ) -> SignedIn:
        """Prove by a mailed code, inside a sign-in, who one is (RFC 9470): a fresh `auth_time`.

        Args:
            ongoing: the sign-in of the owner of the mailbox.
            token: the token that this browser got from `ask_again`.
            code: the code as the person typed it.

        Raises:
            WrongCredentials: the code is wrong.
            InvalidToken: the token is unknown, used, too old, another account's, or void after wrong codes.
            StepUpRequired: the sign-in is in doubt, and the account has a second factor.
            RateLimited: too many wrong codes.
            NotAuthenticated: the account changed, or the session was revoked, meanwhile.
        """
        await self.step_up.check_enough(ongoing)
        account, client = ongoing.account, ongoing.client
        stored, kept = await self._redeem(token, "confirm_code", client)
        if stored.subject != account.subject or stored.email != account.email or account.epoch != kept.epoch:
            raise InvalidToken("a code of another account, or of before it changed", message=_GONE)
        row = await self._count(stored, kept.digest, "inside", known=True)
        if not self.codes.is_right(stored.id, kept.code, code):
            await self._refuse(account, client, "wrong code by mail")
        changes = Take(stored), Forgive(forget=(row,))
        return await self.step_up.by_first(ongoing, (self.codes.amr,), *changes, tries_again=False)

    async def _redeem(self, token: str, purpose: Purpose, client: Client) -> tuple[OneTimeToken, Kept]:
        try:
            stored = await self.one_time.redeem(token, purpose, client)
        except InvalidToken as exc:
            raise InvalidToken(exc.reason, message=_GONE) from None
        return stored, msgspec.json.decode(stored.payload, type=Kept)

    async def _count(self, stored: OneTimeToken, digest: str, device: str, *, known: bool) -> Bucket:
        """Count a try before the code is looked at, and return the bucket of tries in a row. Raises `InvalidToken` and
        removes the token after too many; raises `RateLimited`.
        """
        limits = self.attempts.limits
        row = bucket_of(limits.codes_in_a_row, f"{digest}:{device}" if device else digest)
        if device or not known:  # what is counted for each device, or for made-up addresses, must not fill the disk
            row = row._replace(limit=replace(row.limit, kept_for=rate_limits.DAY))
        try:
            await self.attempts.take([bucket_of(limits.code_tries, stored.id), row])
        except RateLimited as exc:
            if exc.reason != limits.code_tries.name:
                raise
            with suppress(InvalidToken):
                await self.store.commit(Remove(stored))
            raise InvalidToken("too many wrong codes", message=_VOID) from None
        return row

    async def _refuse(self, account: Account | None, client: Client, why: str) -> NoReturn:
        await self.attempts.refuse(account, client, why)
        raise WrongCredentials("sign-in refused", message=_WRONG)

    async def _take_over(
        self, account: Account, held: Sequence[Credential], browser: Browser, also: Sequence[Change]
    ) -> None:
        """Give an account whose address no one ever proved to the person who reads its mailbox."""
        client, now, secret = browser.client, self.clock(), browser.registrant
        registration = next((each for each in held if each.method == REGISTRATION), None)
        own = registration is not None and bool(secret) and compare_digest(registration.proof, proof_of(secret))
        proved = replace(account, email_verified_at=now, epoch=account.epoch + (not own))
        changes: list[Change] = [Swap(proved), *verifying(account)]
        if not own:
            # A stranger may have registered the address, and know the password; of an account with roles, an
            # administrator created it, and its factors are not a stranger's.
            kept = {REGISTRATION, LANGUAGE} if not account.roles else {each.method for each in held} - {PASSWORD}
            changes += self.authority.ending_all(proved, "email_verified", now)
            if account.roles:
                changes += [Remove(each) for each in held if each.method not in kept]
            else:
                changes += evicting(account, held, kept)
        await self.store.commit(
            Expect(account.subject, account.epoch),
            *also,
            *changes,
            *await self.post.keeping_language(account, client),
            Log(account_event("email_verified", account, client, now)),
        )
        self.authority.forget_remembered()  # no entry of the log reports a verified address
