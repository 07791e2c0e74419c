"""Passkeys of an account: the options that a browser gets, and what its answers prove.

A ceremony has two halves. The first gives out options with a challenge. The second takes the answer, whose challenge is
accepted once: for the purpose, from the browser and from the origin that it was given to. Before a first proof, the
options are the same for everyone, and name no passkey: they would tell which accounts have one.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from msgspec import Struct

from dutchdoor.credentials.base import Checked
from dutchdoor.credentials.passkey import (
    ALGORITHMS,
    NAME_AT_MOST,
    PASSKEY,
    Passkey,
    client_data_of,
    descriptors,
    facts_of,
    renamed,
)
from dutchdoor.errors import (
    ClonedPasskey,
    InvalidInput,
    InvalidToken,
    Misconfigured,
    NotFound,
    Refused,
    WrongCredentials,
)
from dutchdoor.model import challenges
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.challenges import CHALLENGE_FOR
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import encode
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import bucket_of, by_address
from dutchdoor.model.set_aside import SET_ASIDE, put_back, still_asked
from dutchdoor.model.unicode_text import check_name
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Add, Change, Expect, Log, Swap
from dutchdoor.texts import mark

__all__ = [
    "NO_CEREMONY",
    "PASSKEYS_AT_MOST",
    "Ceremony",
    "Made",
    "Passkeys",
    "Proven",
    "RelyingParty",
    "relying_party",
    "unknown_passkey",
]  # fmt: skip

PASSKEYS_AT_MOST: Final = 20
"""Passkeys of one account. Each is a line of its page, and an id in its options."""
_ORIGIN: Final = re.compile(r"https://[a-z0-9.-]+(:[0-9]{1,5})?|android:apk-key-hash:[A-Za-z0-9_-]{1,100}")
_LOCAL_ORIGIN: Final = re.compile(r"http://localhost(:[0-9]{1,5})?")
_EXPIRED = mark("This took too long, or was done before. Try again.")
_ELSEWHERE = mark("This page may not use the passkeys of this site.")
_ASIDE = mark(
    "The password was reset after this passkey was added. Sign in with the password, and say on the page of your "
    "account that the passkey is yours."
)
_UNKNOWN = mark("This passkey is not known here, or its account cannot sign in.")


class RelyingParty(Struct, frozen=True, kw_only=True):
    """The site that passkeys are for."""

    id: str
    """Its domain. A passkey is for this domain, and works on its subdomains."""
    name: str
    origins: tuple[str, ...] = ()
    """The origins of further pages and apps that may use its passkeys."""


def relying_party(domain: str, origins: Iterable[str], own: str, name: str) -> RelyingParty:
    """Return the site that passkeys are for.

    Args:
        domain: its domain; "" for the host of its own origin.
        origins: those of further pages and apps that may use its passkeys.
        own: its own origin.
        name: what people know it by.

    Raises:
        Misconfigured: the domain is not one of its own, or an origin is none.
    """
    host = urlsplit(own).hostname or ""
    if domain and host != domain and not host.endswith(f".{domain}"):
        raise Misconfigured(
            f"passkey_domain is {domain!r}. Use the host of the public URL, {host}, or a parent domain of it."
        )
    for origin in origins:
        # Without https only in development, where another port of localhost is the page: elsewhere it is a mistake.
        if not _ORIGIN.fullmatch(origin) and not (host == "localhost" and _LOCAL_ORIGIN.fullmatch(origin)):
            raise Misconfigured(
                f"passkey_origin has {origin!r}. An origin is like https://example.org, without a path, or "
                "android:apk-key-hash:... Without https it is http://localhost:5173 or its like, for a server that is "
                "on localhost, too."
            )
    return RelyingParty(id=domain or host, name=name, origins=tuple(origins))


class Ceremony(NamedTuple):
    """Where a ceremony takes place. Both halves have to name the same."""

    browser: str
    """The secret of the browser, in its cookie; "" for a program."""
    origin: str
    """The origin of the page that asks, by its header; "" for a program."""
    own: str
    """The origin under which this server was asked."""


NO_CEREMONY: Final = Ceremony("", "", "")


class Proven(Struct, frozen=True):
    """What a right answer of a passkey proves, and what its use writes."""

    amr: tuple[str, ...]
    changes: Sequence[Change]
    record: Credential


class Made(Struct, frozen=True):
    """A new passkey: its record, what making it has proved, and what it writes."""

    record: Credential
    amr: tuple[str, ...]
    changes: Sequence[Change]


class Passkeys(Part):
    """Passkeys over one authority. Every verb raises `Unavailable` when the store is out of reach."""

    def __init__(self, shared: Shared, party: RelyingParty) -> None:
        super().__init__(shared)
        self.party, self.method = party, Passkey(party.id)
        self._key = self.authority.master.current.derive("passkey challenge")
        self._user_key = self.authority.master.current.derive("passkey user")

    def sign_in_options(self, ceremony: Ceremony) -> dict[str, Any]:
        """Return the options of a sign-in without a name (`PublicKeyCredentialRequestOptionsJSON`)."""
        return self._request(self._challenge(ceremony, "sign in"), "required", ())

    async def factor_options(self, account: Account, ceremony: Ceremony, *purpose: str) -> dict[str, Any]:
        """Return the options for a passkey of an `account` that has given a first proof.

        Args:
            ceremony: where it is asked for.
            purpose: what the answer is for. The other half has to name the same.

        Raises:
            NotFound: the account has no passkey.
        """
        records = await self.store.select(Credential, subject=account.subject)
        held = [each for each in (*records, *still_asked(records)) if each.method == PASSKEY]
        if not held:
            raise NotFound("no passkey", message=mark("The account has no passkey."))
        challenge = self._challenge(ceremony, *purpose, account.subject)
        return self._request(challenge, self.policy.passkey_verification, held)

    def _request(self, challenge: bytes, verification: str, held: Sequence[Credential]) -> dict[str, Any]:
        return {
            "challenge": encode(challenge),
            "timeout": int(CHALLENGE_FOR * 1000),
            "rpId": self.party.id,
            "allowCredentials": descriptors(held),
            "userVerification": verification,
        }

    async def creation_options(self, account: Account, ceremony: Ceremony, pending: str = "") -> dict[str, Any]:
        """Return the options to make a passkey for an `account` (`PublicKeyCredentialCreationOptionsJSON`). `pending`
        is the id of an unfinished sign-in that demands one.

        Raises:
            Refused: the account has as many passkeys as it may have, or the policy offers no factors.
        """
        held = await self._of(account.subject)
        self._check_room(held)
        user = self._user(account, held)
        shown_as = account.address or account.name or account.subject
        return {
            "challenge": encode(self._challenge(ceremony, *_registering(account, user, pending))),
            "timeout": int(CHALLENGE_FOR * 1000),
            "rp": {"id": self.party.id, "name": self.party.name},
            "user": {"id": user, "name": shown_as, "displayName": account.name or shown_as},
            "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in ALGORITHMS],
            "excludeCredentials": descriptors(held),
            "authenticatorSelection": {
                "residentKey": "preferred",
                "requireResidentKey": False,
                "userVerification": self.policy.passkey_verification,
            },
            "attestation": "none",
        }

    async def made(
        self, account: Account, answer: str, name: str, ceremony: Ceremony, *, client: Client, pending: str = ""
    ) -> Made:
        """Return what to commit for a new passkey of an account.

        Args:
            answer: what the browser answered to `creation_options`.
            name: what its owner calls it; "" for the name of the device.
            ceremony: where it is done.
            pending: as the options had it.

        Raises:
            InvalidToken: the challenge is unknown, too old or used, or was for something else.
            InvalidInput: the answer is no passkey's for this site.
            Refused: it is registered already, or the account has too many.
        """
        named = check_name(name, at_most=NAME_AT_MOST) or client.device[:NAME_AT_MOST]
        held = await self._of(account.subject)
        self._check_room(held)
        user = self._user(account, held)
        spent = await self._spent(answer, "webauthn.create", ceremony, client, *_registering(account, user, pending))
        record, checked = self.method.registered(account.subject, answer, user=user, name=named, now=self.clock())
        if self.policy.passkey_verification == "required" and "mfa" not in checked.amr:
            raise _unverified()
        if await self.store.find(Credential, method=PASSKEY, handle=record.handle) is not None:
            raise Refused("registered already", message=mark("This passkey is registered already."))
        return Made(record, checked.amr, [*spent, Add(record)])

    async def found(self, answer: str, ceremony: Ceremony, *, client: Client) -> Proven:
        """Return what the answer to `sign_in_options` proves: whose passkey it is, and that its owner was verified.

        Raises:
            InvalidToken: the challenge is unknown, too old or used, or was for something else.
            WrongCredentials: the passkey is not known, or the answer is wrong.
            ClonedPasskey: its counter went back.
            RateLimited: too many wrong answers from there.
        """
        spent = await self._spent(answer, "webauthn.get", ceremony, client, "sign in")
        record = await self.store.find(Credential, method=PASSKEY, handle=client_data_of(answer).id)
        account = None if record is None else await self.store.account(record.subject)
        right = await self._checked(record, answer, account, client)
        if record is None or right is None:
            await self._count(client)
            await self.attempts.refuse(account, client, "wrong passkey")
            if record is None:
                await self._check_not_aside(answer)
            raise unknown_passkey()
        # Without it, a stolen security key would be enough: it is one kind of proof, and not two.
        if "mfa" not in right.amr:
            await self.attempts.refuse(account, client, "passkey without verification")
            raise _unverified()
        return _proven(record, right, spent)

    async def _check_not_aside(self, answer: str) -> None:
        """Say to the holder of a passkey that it was set aside, and what to do. Raises `WrongCredentials`."""
        named = f"{PASSKEY} {client_data_of(answer).id}"
        record = await self.store.find(Credential, method=SET_ASIDE, handle=named)
        if record is not None and await self.method.check(put_back(record), answer, self.clock()) is not None:
            raise WrongCredentials("a passkey that is set aside", message=_ASIDE)

    async def proved(
        self,
        account: Account,
        held: Sequence[Credential],
        answer: str,
        ceremony: Ceremony,
        *purpose: str,
        client: Client,
    ) -> Proven | None:
        """Return what the answer to `factor_options` proves; None if it is wrong. `held` are the credentials of the
        account. Raises `InvalidToken`, `InvalidInput`, `ClonedPasskey`.
        """
        spent = await self._spent(answer, "webauthn.get", ceremony, client, *purpose, account.subject)
        wanted = PASSKEY, client_data_of(answer).id
        record = next((each for each in held if (each.method, each.handle) == wanted), None)
        right = await self._checked(record, answer, account, client)
        if record is None or right is None:
            return None
        if self.policy.passkey_verification == "required" and "mfa" not in right.amr:
            raise _unverified()
        return _proven(record, right, spent)

    @retried(RACES, "renaming the passkey")
    async def rename(self, account: Account, handle: str, name: str, *, client: Client) -> None:
        """Give a passkey of an account another name.

        Raises:
            NotFound: the account has no such passkey.
            InvalidInput: the name is empty.
            RateLimited: too many changes of names.
        """
        await self.attempts.take([bucket_of(self.attempts.limits.change_name_by_account, account.subject)])
        record = await self.store.get(Credential, account.subject, PASSKEY, handle)
        if record is None:
            raise NotFound("no such passkey", message=mark("There is no such passkey."))
        chosen = check_name(name, at_most=NAME_AT_MOST)
        if not chosen:
            raise InvalidInput(mark("Give the passkey a name."), field="name")
        await self.store.commit(
            Expect(account.subject, account.epoch),
            Swap(renamed(record, chosen)),
            Log(account_event("factor_renamed", account, client, self.clock(), detail=PASSKEY)),
        )

    async def _of(self, subject: str) -> list[Credential]:
        held = await self.store.select(Credential, subject=subject, method=PASSKEY)
        return sorted(held, key=lambda each: each.created_at)

    def _user(self, account: Account, held: Sequence[Credential]) -> str:
        """Return the handle under which keys know an account: the same for each of its passkeys, so that a device has
        one of them. Programs on the device see it, so it must say nothing of the person.
        """
        if held:
            return facts_of(held[0]).user
        return encode(hmac.digest(self._user_key, account.subject.encode(), "sha256"))

    def _check_room(self, held: Sequence[Credential]) -> None:
        if self.policy.second_factor == "off":
            raise Refused("no factors here", message=mark("Second factors are switched off here."))
        if len(held) >= PASSKEYS_AT_MOST:
            raise Refused("too many passkeys", message=mark("Your account has as many passkeys as it can have."))

    def _challenge(self, ceremony: Ceremony, *purpose: str) -> bytes:
        return challenges.issue(self._key, self.clock(), ceremony.browser, ceremony.origin, *purpose)

    async def _spent(self, answer: str, kind: str, ceremony: Ceremony, client: Client, *purpose: str) -> list[Change]:
        """Return what the use of a challenge writes. Raises `InvalidToken` for a challenge that is not good here."""
        said, now = client_data_of(answer), self.clock()
        # A page of another site may pass on what a person's key signs for us (phishing): it has another origin.
        known = {ceremony.own, *self.party.origins}
        if said.origin not in known or ceremony.origin not in {"", said.origin} or said.embedded:
            await self._count(client)
            raise InvalidToken("the answer was made on a page of another origin", message=_ELSEWHERE)
        try:
            if said.type != kind:  # or an answer to one ceremony would be worth something in the other
                raise InvalidToken("the answer of another ceremony")
            challenge = challenges.check(self._key, said.challenge, now, ceremony.browser, ceremony.origin, *purpose)
            if await self.store.get(OneTimeToken, challenge.id) is not None:
                raise InvalidToken("the challenge was used")
        except InvalidToken as exc:
            await self._count(client)
            raise InvalidToken(exc.reason, message=_EXPIRED) from None
        return [Add(challenges.used(challenge, now))]

    async def _count(self, client: Client) -> None:
        """Count a wrong answer by the client's address. A right one is never refused for what others there do."""
        await self.attempts.take(by_address(self.attempts.limits.one_time_by_address, client.networks))

    async def _checked(
        self, record: Credential | None, answer: str, account: Account | None, client: Client
    ) -> Checked | None:
        try:
            return await self.method.check(record, answer, self.clock())
        except ClonedPasskey:
            if account is not None:
                seen = account_event("passkey_cloned", account, client, self.clock(), detail=_label(record))
                await self.store.commit(Log(seen))
            raise


def unknown_passkey() -> WrongCredentials:
    """Return the error for a passkey that signs no one in, for whatever reason."""
    return WrongCredentials("wrong passkey", message=_UNKNOWN)


def _proven(record: Credential, right: Checked, spent: list[Change]) -> Proven:
    assert right.spent is not None  # noqa: S101 - each use of a passkey is written
    return Proven(right.amr, [*spent, Swap(right.spent)], record)


def _label(record: Credential | None) -> str:
    return "" if record is None else facts_of(record).name


def _registering(account: Account, user: str, pending: str) -> tuple[str, ...]:
    # With the epoch: a thief who began before the password was changed must not finish after it.
    return "register", account.subject, str(account.epoch), user, pending


def _unverified() -> WrongCredentials:
    return WrongCredentials(
        "the owner of the passkey was not verified",
        message=mark(
            "This passkey did not check that it is you, by a fingerprint, a face or a PIN. Set that up on it."
        ),
    )
