"""The way to an issuer and back: signing in, linking, and proving again who one is, by Google and the like.

`begin` sends a browser to the issuer, and `finish` takes what it brings back. What lies between is one one-time token.
Its secret travels as `state`. The nonce and the PKCE verifier are derived from it and from a secret in the browser's
cookie, so the store holds nothing of use, and an answer fits no other browser (log-in CSRF, code injection).

An account is found by the identity. Without one, it is found by its address only if both sides have verified that:
this one by mail, and the issuer, if it is trusted for the address.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from dutchdoor.errors import (
    Conflict,
    InvalidToken,
    IssuerRefused,
    NotAuthenticated,
    NotFound,
    Taken,
    Unavailable,
)
from dutchdoor.issuers.identity import Flow, Identity, Provider
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.jose.id_token import LogoutToken
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import Opaque, encode, new_id
from dutchdoor.model.issuer_sessions import Issued, IssuerSession
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import MINUTE, Mode
from dutchdoor.model.principal import factors_of
from dutchdoor.model.rate_limits import by_address
from dutchdoor.model.sign_in import Proof, Refuse
from dutchdoor.services.attempts import RECENT
from dutchdoor.services.browser import Browser
from dutchdoor.services.fencing import as_one
from dutchdoor.services.identities import IDENTITY, Identities, handle_of
from dutchdoor.services.issuer_accounts import IssuerAccounts
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.registration import is_unproved
from dutchdoor.services.sign_in import SignIn
from dutchdoor.services.sign_in_steps import Proved
from dutchdoor.services.step_up import StepUp
from dutchdoor.stores.base import Add, Revoked, Take
from dutchdoor.texts import Text, mark

__all__ = ["Answer", "Begun", "Came", "IssuerLogins", "Purpose"]

Purpose = Literal["sign_in", "link", "confirm"]
BACK_WITHIN: Final = 15 * MINUTE
"""Seconds in which the browser has to come back."""
LOGOUT_FOR: Final = 20 * MINUTE
"""Seconds for which the id of a log-out token is remembered: longer than the token is accepted."""
TRIES: Final = 16

_AMR: Final = "fed"
_ANOTHER_BROWSER = mark(
    "This sign-in has expired, was used already, or began in another browser. Begin again, and stay in one browser."
)
_DID_NOT_WORK = mark("The sign-in at %(issuer)s did not work. Try again.")
_SAID: Final[Mapping[str, str]] = {
    "access_denied": mark("You have stopped the sign-in at %(issuer)s, or %(issuer)s does not allow it."),
    "user_cancelled_authorize": mark("You have stopped the sign-in at %(issuer)s, or %(issuer)s does not allow it."),
    "login_required": mark("%(issuer)s wants you to sign in there first. Try again."),
    "interaction_required": mark("%(issuer)s wants you to sign in there first. Try again."),
    "consent_required": mark("%(issuer)s wants you to sign in there first. Try again."),
    "temporarily_unavailable": mark("%(issuer)s does not answer at the moment. Try again shortly."),
    "server_error": mark("%(issuer)s does not answer at the moment. Try again shortly."),
}
"""What people read of an error that the issuer sends. Its own text is never shown: anyone can write it into a link."""


class BrowserSecret(Opaque):
    """What the browser keeps while it is away."""

    __slots__ = ()
    prefix = "ddi1_"


class Answer(Struct, frozen=True, kw_only=True):
    """What a browser brings back from an issuer: the parameters of the redirect."""

    state: str = ""
    code: str = ""
    error: str = ""
    iss: str | None = None
    name: str = ""
    """The name that Apple sends beside the first answer. No one has verified it."""

    def __repr__(self) -> str:
        return "<Answer>"


class Begun(NamedTuple):
    """Where to send the browser, and what it has to keep."""

    url: str
    browser: str


class Came(Struct, frozen=True, kw_only=True):
    """What came of it."""

    purpose: Purpose
    next: str
    signed_in: SignedIn | None = None
    """What started. None if the identity was linked, or if a mail was sent whose link comes first."""
    mark: str = ""
    """The browser's known-device mark; "" to leave it."""

    def __repr__(self) -> str:
        return f"Came(purpose={self.purpose!r})"


class Way(Struct, frozen=True, kw_only=True):
    """What has to be known when the browser comes back. Nothing in it is secret."""

    issuer: str
    purpose: Purpose
    next: str
    browser: bytes
    """The hash of the browser's secret."""
    epoch: int = 0
    session: str = ""
    client_id: str = ""
    amr: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Way(issuer={self.issuer!r}, purpose={self.purpose!r})"


class IssuerLogins(Part):
    """Log-in by other issuers, over one authority. `client` is the client that asks. Every verb raises `Unavailable`
    when the store is out of reach, and `IssuerUnavailable` when the issuer is.
    """

    def __init__(
        self,
        shared: Shared,
        issuers: Mapping[str, Issuer],
        providers: Mapping[str, Provider],
        *,
        identities: Identities,
        accounts: IssuerAccounts,
        sign_in: SignIn,
        step_up: StepUp,
    ) -> None:
        super().__init__(shared)
        self.issuers, self.providers = issuers, providers
        self.identities, self.accounts = identities, accounts
        self.sign_in, self.step_up = sign_in, step_up

    # The way there

    async def begin(
        self,
        name: str,
        *,
        redirect_uri: str,
        client: Client,
        next: str = "",
        browser: str = "",
        purpose: Purpose = "sign_in",
        account: Account | None = None,
        session_id: str = "",
        client_id: str = "",
        amr: tuple[str, ...] = (),
    ) -> Begun:
        """Return where to send a browser.

        Args:
            name: the name of the issuer.
            redirect_uri: where the issuer sends the browser back to.
            next: where the person goes after that.
            browser: the secret that this browser keeps already, for another sign-in that is under way; "" for none.
            purpose: to sign in, to link an identity, or to prove again who one is.
            account: the owner, in a sign-in.
            session_id: its session; "" for none.
            client_id: the registered client that it belongs to.
            amr: what it has proved so far.

        Raises:
            NotFound: there is no such issuer.
            IssuerRefused: it cannot ask for a new proof.
            RateLimited: too many began from there.
        """
        issuer, provider = self._issuer(name)
        if purpose == "confirm" and not issuer.proves_again:
            message = mark("%(issuer)s cannot confirm again that it is you. Use another way.", issuer=issuer.title)
            raise IssuerRefused("the issuer does not say when it asked", message=message)
        await self.attempts.take(by_address(self.attempts.limits.issuer_by_address, client.networks))
        kept = _secret_of(browser) or BrowserSecret.mint(new_id())
        way = Way(
            issuer=name,
            purpose=purpose,
            next=next,
            browser=kept.hash(),
            epoch=account.epoch if account else 0,
            session=session_id,
            client_id=client_id,
            amr=amr,
        )
        now = self.clock()
        token, state = one_time_tokens.issue(
            "issuer",
            subject=account.subject if account else "",
            email=(account.email or "") if account else "",
            now=now,
            lives_for=BACK_WITHIN,
            payload=msgspec.json.encode(way),
        )
        flow = _flow(state.text(), kept, redirect_uri, now, anew=purpose == "confirm")
        url = await provider.way_to(flow)  # before the row: an issuer that is down leaves none
        await self.store.commit(Add(token))
        return Begun(url, kept.text())

    def _issuer(self, name: str) -> tuple[Issuer, Provider]:
        issuer, provider = self.issuers.get(name), self.providers.get(name)
        if issuer is None or provider is None:
            raise NotFound("no such issuer", message=mark("There is no such log-in here."))
        return issuer, provider

    # The way back

    async def finish(
        self,
        name: str,
        answer: Answer,
        browser: Browser,
        *,
        secret: str,
        mode: Mode,
        redirect_uri: str,
    ) -> Came:
        """Take what a browser brings back.

        Args:
            name: the name of the issuer, as the address that it was sent back to says.
            answer: the parameters of that address.
            browser: the browser that comes back.
            secret: what `begin` gave it to keep.
            mode: what starts: `session` or `hybrid`.
            redirect_uri: the address itself.

        Raises:
            NotFound: there is no such issuer.
            IssuerRefused: it did not work. The message says why, and what to do.
            SignInUnfinished: the person is known, and another proof is needed.
            SessionLimitReached: the policy refuses one more session.
            RateLimited: too many tries from there.
            NotAuthenticated: the sign-in in which this began is over.
        """
        issuer, provider = self._issuer(name)
        client = browser.client
        said = Text(_SAID.get(answer.error, _DID_NOT_WORK), {"issuer": issuer.title})
        if answer.error and not answer.state:  # some issuers forget it; nothing is used up
            raise IssuerRefused("the issuer sent an error without a state", message=said)
        stored, way, flow = await self._way_of(name, answer.state, secret, redirect_uri, client)
        try:
            # Before anything is sent: of many tries, one alone uses the code.
            await self.store.commit(Take(stored))
        except Conflict:
            raise IssuerRefused("the state was used", message=_ANOTHER_BROWSER) from None
        if answer.error or not answer.code:
            await self.accounts.log_refusal(issuer, client, f"error {answer.error[:40]}" if answer.error else "no code")
            raise IssuerRefused("the issuer sent an error", message=said)
        try:
            identity = await provider.identify(answer.code, flow, iss=answer.iss)
        except InvalidToken as exc:
            await self.accounts.log_refusal(issuer, client, exc.reason)
            raise IssuerRefused(exc.reason, message=Text(_DID_NOT_WORK, {"issuer": issuer.title})) from None
        if way.purpose == "sign_in":
            return await self._enter(issuer, identity, way, answer.name or identity.name, browser, mode)
        account = await self.store.account(stored.subject)
        if account is None or not account.active or account.epoch != way.epoch:
            raise NotAuthenticated("the account changed meanwhile")
        if way.purpose == "link":
            await self.accounts.check_admitted(issuer, identity, client=client)
            await self.identities.link(account, way.session, identity, issuer, client=client)
            return Came(purpose="link", next=way.next)
        signed_in = await self._confirm(issuer, identity, account, way, client)
        return Came(purpose="confirm", next=way.next, signed_in=signed_in)

    async def _way_of(
        self, name: str, state: str, browser: str, redirect_uri: str, client: Client
    ) -> tuple[OneTimeToken, Way, Flow]:
        kept = _secret_of(browser)
        try:
            stored = await self.one_time.redeem(state, "issuer", client)
            way = msgspec.json.decode(stored.payload, type=Way)
        except (InvalidToken, msgspec.MsgspecError):
            raise IssuerRefused("the state is unknown, used or too old", message=_ANOTHER_BROWSER) from None
        # Another browser: an attacker signs the victim in to the attacker's account, or injects a stolen code.
        # Another issuer: a mix-up, in which an answer of one is taken for one of another.
        if kept is None or not hmac.compare_digest(kept.hash(), way.browser) or way.issuer != name:
            raise IssuerRefused("the state of another browser or issuer", message=_ANOTHER_BROWSER)
        return stored, way, _flow(state, kept, redirect_uri, stored.created_at, anew=way.purpose == "confirm")

    # Signing in

    async def _enter(
        self, issuer: Issuer, identity: Identity, way: Way, name: str, browser: Browser, mode: Mode
    ) -> Came:
        await self.accounts.check_admitted(issuer, identity, client=browser.client)
        for _ in range(TRIES):
            with suppress(Conflict, Taken):  # another sign-in by the same identity, or a change of the account
                account = await self.accounts.account_of(
                    issuer, identity, name=name, registrant=browser.registrant, client=browser.client
                )
                if account is None:
                    return Came(purpose="sign_in", next=way.next)
                account = await self.accounts.with_roles(issuer, identity, account, client=browser.client)
                proved = await self._proved(issuer, identity, account, browser)
                if proved is None:
                    return Came(purpose="sign_in", next=way.next)
                signed_in, mark_ = await self.sign_in.begin(proved, browser, mode=mode, tries_again=False)
                return Came(purpose="sign_in", next=way.next, signed_in=signed_in, mark=mark_)
        raise Unavailable("signing in by an issuer lost too many races")

    async def _proved(self, issuer: Issuer, identity: Identity, account: Account, browser: Browser) -> Proved | None:
        """Return the proof that an identity is, and what comes after it. None: a mail was sent, whose link comes
        first.
        """
        known = await self.store.known(account.email or "", recent=RECENT)
        if known is None or known.account.subject != account.subject:
            raise Conflict("the address of the account changed")
        account, digest = known.account, self.attempts.digest(account.email or "")
        wanted = IDENTITY, handle_of(identity)
        held = next((each for each in known.credentials if (each.method, each.handle) == wanted), None)
        if held is None:
            raise Conflict("the identity was unlinked")
        proofs = _proofs(issuer, identity, self.clock())
        step = await self.sign_in.next_of(account, proofs, known.credentials, browser.remembered, digest)
        if isinstance(step, Refuse):
            if not is_unproved(account):
                await self.accounts.refuse_disabled(issuer, account, browser.client)
            await self.accounts.mail_again(account, browser.client)
            return None
        issued = Issued(issuer=identity.issuer, subject=identity.subject, sid=identity.sid)
        return self.sign_in.first_proof(known, step, proofs, held, issued, browser)

    # Proving again

    async def _confirm(
        self, issuer: Issuer, identity: Identity, account: Account, way: Way, client: Client
    ) -> SignedIn:
        holder = await self.identities.holder(identity)
        if holder is None or holder.subject != account.subject:
            await self.accounts.log_refusal(issuer, client, "another identity", account)
            message = mark(
                "This account at %(issuer)s is not linked to your account here. Choose the one that is.",
                issuer=issuer.title,
            )
            raise IssuerRefused("the identity is not linked to this account", message=message)
        session = None
        if way.session:
            remembered = await self.authority.recall(way.session)
            if remembered is None or remembered.session.subject != account.subject:
                raise NotAuthenticated("the session ended meanwhile")
            session = remembered.session
        first, *more = _proofs(issuer, identity, self.clock())
        proved = tuple(amr for proof in (first, *more) for amr in proof.amr)
        in_doubt = self.authority.must_prove(way.session)
        ongoing = Ongoing(account, session, client, way.client_id, way.amr, in_doubt=in_doubt)
        await self.step_up.check_enough(ongoing, proved)
        return await self.step_up.by_first(ongoing, proved, self.attempts.forgiving(account))

    # Signing out there

    async def log_out(self, name: str, token: str, *, client: Client) -> Revoked:
        """Revoke the sessions that a log-out token of an issuer names (OpenID Connect Back-Channel Logout 1.0).

        Raises:
            NotFound: there is no such issuer, or it has no such tokens.
            InvalidToken: the token is not valid, or was used.
            RateLimited: too many wrong ones from there.
        """
        _, provider = self._issuer(name)
        read = getattr(provider, "read_logout", None)
        if read is None:
            raise NotFound("the issuer has no log-out tokens")
        try:
            named: LogoutToken = await read(token)
        except InvalidToken:
            await self.attempts.take(by_address(self.attempts.limits.one_time_by_address, client.networks))
            raise
        await self._use_once(named)
        found: list[IssuerSession] = []
        if named.sid:
            found += await self.store.select(IssuerSession, issuer=named.issuer, issuer_sid=named.sid)
            found = [each for each in found if not named.subject or each.issuer_subject == named.subject]
        else:
            found += await self.store.select(IssuerSession, issuer=named.issuer, issuer_subject=named.subject)
        done = [await self.authority.fencing.nothing_left()]
        for each in found:
            with suppress(NotFound):
                done.append(await self.authority.end(each.id, client=client, actor=SYSTEM, reason="ended_by_issuer"))
        return as_one(done)

    async def _use_once(self, named: LogoutToken) -> None:
        digest = hashlib.blake2b(f"{named.issuer} {named.id}".encode(), digest_size=16).digest()
        now = self.clock()
        used = OneTimeToken(
            id=encode(digest), purpose="issuer_logout", subject="", email="", secret_hash=b"", created_at=now,
            expires_at=now + LOGOUT_FOR,
        )  # fmt: skip
        try:
            await self.store.commit(Add(used))
        except Conflict:
            raise InvalidToken("the log-out token was used") from None

    async def close(self) -> None:
        """Close the connections to issuers."""
        for provider in self.providers.values():
            await provider.close()


def _secret_of(text: str) -> BrowserSecret | None:
    try:
        return BrowserSecret.parse(text)
    except InvalidToken:
        return None


def _flow(state: str, browser: BrowserSecret, redirect_uri: str, began_at: float, *, anew: bool) -> Flow:
    def derived(purpose: str) -> str:
        key = hashlib.sha256(browser.text().encode()).digest()
        return encode(hmac.digest(key, f"dutchdoor issuer {purpose} {state}".encode(), "sha256"))

    return Flow(
        state=state,
        nonce=derived("nonce"),
        verifier=derived("verifier"),
        redirect_uri=redirect_uri,
        began_at=began_at,
        anew=anew,
    )


def _proofs(issuer: Issuer, identity: Identity, now: float) -> tuple[Proof, ...]:
    """Return what an identity proves. Its issuer's own methods count only where that is configured."""
    since = None if identity.auth_time is None else min(identity.auth_time, now)
    first = Proof(method=IDENTITY, amr=(_AMR,), at=now, proved_at=since)
    if not issuer.trusts_second_factor or factors_of((_AMR, *identity.amr)) < 2:  # noqa: PLR2004 - a second factor
        return (first,)
    return (first, Proof(method=IDENTITY, amr=("mfa",), at=now, proved_at=since))
