"""The issuer: the signing keys over a store, and the access tokens that it signs with them and verifies.

Keys live as `keyring` decides. Any process that finds the next key due creates it. A key is published a while before it
signs (RFC 7517), and an emergency kills it through the revocation log. Tokens follow the profile of RFC 9068.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from msgspec.structs import replace

from dutchdoor.errors import (
    Conflict,
    InvalidKey,
    InvalidToken,
    Misconfigured,
    NotFound,
    SessionInDoubt,
    StaleClaims,
    Unavailable,
    UnknownKey,
)
from dutchdoor.jose import jws, signing_keys
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier, as_read_back, read_claims
from dutchdoor.jose.claims import Claims
from dutchdoor.jose.dpop import DpopProof, Proofs
from dutchdoor.jose.jwk import Key, KeySet
from dutchdoor.jose.signing_keys import KeyRing, StoredKey
from dutchdoor.jose.token_cache import TokenCache
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import NO_CLIENT, SYSTEM
from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id
from dutchdoor.model.master_key import MasterKeys, sealed_by
from dutchdoor.model.policy import Policy
from dutchdoor.model.principal import Principal, Verified
from dutchdoor.revocation.lease import Terms
from dutchdoor.revocation.log import FOR_EVER, Named, Revocation, RevocationLog
from dutchdoor.services.announcing import Announcing
from dutchdoor.services.fencing import Fencing
from dutchdoor.services.hooks import Hooks
from dutchdoor.services.reapplying import Reapplying
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Add, Log, Revoke, Revoked, Store, Swap

__all__ = ["RING_FRESH_FOR", "Issuer"]


RING_FRESH_FOR = 30.0
"""Seconds after which the rows of the key ring are read again. A killed key does not wait for it: the log names it."""

RING_AGAIN_IN = 10.0
"""Seconds before the rows are read again after the store was out of reach."""

PASSED_ON_FOR = 60.0
"""Seconds that a token lives when a proxy passes it to the service behind it: long enough for one request."""


class _Verifiers(NamedTuple):
    bearer: AccessTokenVerifier
    bearers: TokenCache
    """Tokens that prove a caller to this API."""
    issued: TokenCache
    """All tokens that are issued here, including those for a service behind a proxy."""


class Issuer:
    """One node's keys and tokens over a store. For audit events, some verbs take `client`, the client that asks, and
    `actor`, the subject that acts (or `cli`, or `system`).
    """

    def __init__(
        self,
        store: Store,
        *,
        master: MasterKeys,
        issuer: str,
        audience: Sequence[str],
        policy: Policy,
        alg: str,
        hooks: Hooks | None,
        lease: float,
        clock: Callable[[], float] | None,
    ) -> None:
        """Take the store and the rest: see `Authority`, which adds sessions (`master`, `issuer`, `audience`, `policy`,
        `alg`, `claims`, `lease`, `clock`).
        """
        now = lambda: self.clock()  # noqa: E731, PLW0108 - the fencing below has it
        self.hooks = hooks or Hooks()
        self._announcing = Announcing(store, self.hooks)  # type: ignore[abstract]  # `Around` has the rest
        self.store: Store = Reapplying(self._announcing, now)  # type: ignore[abstract]
        self.master, self.policy = master, policy
        self.fencing = Fencing(self.store, clock=clock, terms=Terms(lease_for=lease))
        self.clock: Callable[[], float] = self.fencing.clock
        self._audience, self.alg = tuple(audience), alg
        self.symmetric = alg.startswith("HS")
        if self.symmetric and len(self._audience) > 1:
            raise Misconfigured("HS256 serves one audience: each could mint tokens for the others.")
        self.proofs = Proofs(master.current.derive("dpop"))
        """Checks what clients prove of their keys. Each node makes and takes the same nonces."""
        self._own_kids: tuple[str, ...] = ()
        self._verifiers: _Verifiers | None = None  # no keys before the ring was read
        self.sign_as(issuer)
        self._ring = KeyRing((), master)
        self._ring_read_at, self._keys_killed = -1.0, 0
        self._reading: asyncio.Task[None] | None = None
        self._upkeep = True

    def sign_as(self, issuer: str) -> None:
        """Sign and accept tokens of this `issuer` from now on. Raises `Misconfigured`."""
        self.issuer, self.audience = issuer, self._audience or (issuer,)
        self.proxied_audience = f"{issuer}/auth/check"
        """The audience of tokens that a proxy passes to the service behind it. It is never an audience of the API
        itself, or such a service could act for every user that it serves.
        """
        if self.proxied_audience in self.audience:
            raise Misconfigured(
                f"The audience {self.proxied_audience!r} is that of tokens behind a proxy. Choose another."
            )
        self._issue = AccessTokenIssuer(issuer=issuer, audience=self.audience)
        self._issue_proxied = AccessTokenIssuer(issuer=issuer, audience=self.proxied_audience)
        if self._verifiers is not None:
            self._verifiers = self._verifiers_with(self._verifiers.bearer.keys)

    async def open(self, *, upkeep: bool = True, is_new_master: bool = False) -> None:
        """Open the store, and create the first key if there is none. Without `upkeep`, this process never creates a key
        because it is due, and reading writes nothing: a command beside a server may not know the server's policy. It
        reads the keys when it needs them, so that it can revoke what a lost master key sealed.
        `is_new_master` says that nothing can be sealed by this master key yet.

        Raises:
            Unavailable: the store is out of reach.
            Misconfigured: the store cannot be used as it is: another version's schema, or files that other users can
                read.
            InvalidKey: another master key sealed the keys in the store.
        """
        self._upkeep = upkeep
        await self.store.open()
        # Not "are there keys": another process of the same start may have created some by now.
        if is_new_master and any(
            sealed_by(row.sealed) != self.master.current.id for row in await self.store.select(StoredKey)
        ):
            raise InvalidKey("the master key is new, and there are keys that another one sealed")
        await self.fencing.open(leases=upkeep)
        if upkeep:
            await self._read_ring(self.clock(), force=True)

    async def close(self) -> None:
        """Let listeners finish, stop following the log, and close the store."""
        await self._announcing.drain()
        await self.fencing.close()
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await self.store.close()

    @property
    def log(self) -> RevocationLog:
        """What has been revoked, as far as this process knows."""
        return self.fencing.log

    # Recognising

    async def verify(self, token: str, proof: DpopProof | None = None, *, in_doubt: bool = False) -> Principal:
        """Return the principal of the access token `token`, by signature, claims and the revocation log up to this
        moment. `proof` is what came with it by the scheme DPoP; None for a bearer token. With `in_doubt`, also that of
        a token whose owner must prove again who they are.

        Raises:
            InvalidToken: malformed, forged, expired, for another audience, or revoked.
            StaleClaims: valid, but what it says is out of date: the client must refresh.
            SessionInDoubt: its owner must prove again who they are.
            DpopRequired, InvalidDpopProof, UseDpopNonce: bound to a key that the request does not prove.
            Unavailable: the log is out of reach.
        """
        principal = await self.verify_again(token, in_doubt=in_doubt)
        self.proofs.check(principal.bound_to, proof, token, self.clock())
        return principal

    async def verify_again(self, token: str, *, in_doubt: bool = False) -> Principal:
        """Do what `verify` does with a `token`, but for the proof of its key: for a connection that stays open, whose
        first request has proved it. `in_doubt` is as there. Raises what `verify` raises.
        """
        _, principal = await self._recognised(token, in_doubt=in_doubt)
        return principal

    def claims_of(self, account: Account, session_id: str | None) -> Mapping[str, Any]:
        """Return what the `claims` hook adds for an `account` and a `session_id` (None for a stateless token), as a
        verifier reads it from a token. Raises `Misconfigured` for what no token may carry.
        """
        return as_read_back(self.hooks.claims(account, session_id)) if self.hooks.claims else {}

    async def claims(self, token: str) -> Claims:
        """Return what the access token `token` says if it is valid now, also for a service behind a proxy: for
        introspection only (RFC 7662), which names the key that the one who asks has to check. Raises what
        `verify_again` raises.
        """
        claims, _ = await self._recognised(token, issued=True)
        return claims

    async def _recognised(
        self, token: str, *, issued: bool = False, in_doubt: bool = False
    ) -> tuple[Claims, Principal]:
        if not self.fencing.is_current():
            await self.fencing.follow()
        now = self.clock()
        await self._read_ring(now)
        try:
            known = self._cache(issued=issued).recognise(token, now)
        except UnknownKey:
            # Another process may have created a key a moment ago. Look it up once a second at most, or an attacker
            # could flood the store with made-up key ids.
            if now - self._ring_read_at < 1:
                raise
            await self._read_together(now)
            known = self._cache(issued=issued).recognise(token, now)
        self._check_covered(known[0], in_doubt=in_doubt)
        return known

    def verify_at_once(self, token: str, proof: DpopProof | None = None) -> Principal | None:
        """Do what `verify` does with a `token` and its `proof`, in any thread and without waiting; None if it has to
        wait. Raises `InvalidToken`, `StaleClaims`, `SessionInDoubt` and `UseDpopNonce` as `verify` does.
        """
        principal = self.verify_again_at_once(token)
        if principal is not None:
            self.proofs.check(principal.bound_to, proof, token, self.clock())
        return principal

    def verify_again_at_once(self, token: str) -> Principal | None:
        """Do what `verify_again` does with a `token`, in any thread and without waiting; None if it has to wait. Raises
        `InvalidToken`, `StaleClaims` and `SessionInDoubt` as `verify` does.
        """
        now = self.clock()
        if not self.fencing.is_current() or self._is_ring_old(now) or self._verifiers is None:
            return None
        try:
            claims, principal = self._verifiers.bearers.recognise(token, now)
        except UnknownKey:
            return None
        self._check_covered(claims)
        return principal

    def _check_covered(self, claims: Claims, *, in_doubt: bool = False) -> None:
        covering = self.fencing.node.log.covering_token(claims)
        if covering == "doubt":
            if in_doubt:
                return
            raise SessionInDoubt("its session is in doubt")
        if covering == "subject" and claims.sid is not None:
            raise StaleClaims("the subject's epoch has risen")
        if covering is not None:
            raise InvalidToken("revoked")

    async def claims_of_any_age(self, token: str) -> Claims:
        """Return what the access token `token` says, without a check of expiry and revocation. Use it only to revoke
        what it names. Raises `InvalidToken`, `Unavailable`.
        """
        now = self.clock()
        await self._read_ring(now)
        # Judged at its time of issue, which the signature proves.
        verifier = self._with_keys().bearer
        return verifier.verify(token, read_claims(jws.verify(token, verifier.keys)).iat)

    def _cache(self, *, issued: bool) -> TokenCache:
        verifiers = self._with_keys()
        return verifiers.issued if issued else verifiers.bearers

    def _with_keys(self) -> _Verifiers:
        """Return what checks tokens of this issuer, and caches those it checked. Raises `UnknownKey`."""
        if self._verifiers is None:
            raise UnknownKey("no key of ours is accepted here")
        return self._verifiers

    # Signing

    async def pass_on(self, account: Account, principal: Principal) -> str:
        """Sign a token that lives a minute and says what a `principal` of an `account` is, for the service behind a
        proxy that checked the request. Returns "" with HS256: a service that can verify such a token could mint tokens
        for this API.

        It is not bound to a key: the request to the proxy has proved that, and the service gets this token only.

        If a stateless token proved the principal, the new token has the same `jti`: a log-out revokes both, or neither.

        Raises:
            InvalidToken: the principal has expired.
            Unavailable: the store is out of reach.
        """
        if self.symmetric:
            return ""
        now = self.clock()
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=principal.amr, at=principal.auth_time)
        lives_for = min(PASSED_ON_FOR, principal.expires_at - now)
        if lives_for <= 0:
            # Only the leeway accepted the token. The token that is passed on would outlive the one it stands for.
            raise InvalidToken("expired: nothing is passed on for it")
        return (
            await self._sign(
                account,
                principal.session_id,
                verified,
                principal.client_id,
                principal.scope,
                now,
                lives_for,
                token_id=principal.token_id if principal.session_id is None else "",
                issue=self._issue_proxied,
            )
        )[0]

    async def _sign(
        self,
        account: Account,
        session_id: str | None,
        verified: Verified,
        client_id: str,
        scope: str,
        now: float,
        lives_for: float,
        *,
        token_id: str = "",
        bound_to: str = "",
        issue: AccessTokenIssuer | None = None,
    ) -> tuple[str, int, str]:
        """Sign an access token. `exp` counts from `now`, when the row was read, not from the signing that follows
        it.
        """
        await self.fencing.follow()
        await self._read_ring(now)
        token_id = token_id or new_id()
        text = (issue or self._issue)(
            key=self._ring.signing(now, self.alg),
            now=now,
            lifetime=lives_for,
            subject=account.subject,
            client_id=client_id,
            session_id=session_id,
            token_id=token_id,
            bound_to=bound_to,
            epoch=verified.epoch,
            auth_time=verified.at,
            amr=verified.amr,
            roles=account.roles,
            scope=scope,
            extra=self.hooks.claims(account, session_id) if self.hooks.claims else None,
        )
        return text, int(lives_for), token_id

    # Keys

    @property
    def ring(self) -> KeyRing:
        """The signing keys as they were last read."""
        return self._ring

    def can_sign(self) -> bool:
        """Return whether a key signs now, by the keys as they were last read."""
        with suppress(Misconfigured):
            self._ring.signing(self.clock(), self.alg)
            return True
        return False

    async def jwks(self) -> list[dict[str, object]]:
        """The published keys (RFC 7517). Empty with HS256: its key is a secret."""
        now = self.clock()
        await self._read_ring(now)
        return [key.public_jwk() for key in self._ring.published(now) if not key.symmetric]

    @retried(RACES, "making a key")
    async def rotate(self, *, client: Client, actor: str, at_once: bool = False) -> StoredKey:
        """Create the next signing key now. It signs after it was published for `key_publish_for` seconds of the policy.
        With `at_once` it signs now, even though verifiers that cache the key set do not know it yet.

        Raises:
            Unavailable: the store is out of reach, or other processes kept creating keys at the same moment.
        """
        now = self.clock()
        await self._read_ring(now, force=True)
        signs_at = now if at_once or not self._ring.rows else now + self.policy.key_publish_for
        row = await self._add_key(signs_at, client, actor, now)
        await self._read_ring(now, force=True)
        return row

    @retried(RACES, "killing the key")
    async def kill_key(self, kid: str, *, client: Client, actor: str) -> Revoked:
        """Kill the key with the id `kid` in an emergency: nothing it signed is accepted from now on, and another key
        signs.
        Idempotent: a key that was killed before counts 0.

        Raises:
            NotFound: there is no such key.
            Unavailable: the store is out of reach.
        """
        now = self.clock()
        row = await self.store.get(StoredKey, kid)
        if row is None:
            raise NotFound("no such key")
        if row.revoked_at is not None:
            return await self.fencing.nothing_left()
        record = event("key_revoked", now=now, client=client, actor=actor, detail=kid)
        entry = Revocation(kind="key", id=kid, expires_at=FOR_EVER)
        done = await self.store.commit(Swap(signing_keys.revoked(row, now)), Revoke(entry), Log(record))
        if self._upkeep:
            await self._read_ring(now, force=True)
        return replace(done, count=1)

    async def _read_ring(self, now: float, *, force: bool = False) -> None:
        """Read the key rows when they may have changed; with `force`, see every key that existed at this call."""
        killed = self.fencing.node.keys_killed
        if force:
            if self._reading is not None:
                await asyncio.wait([self._reading])
            await self._read_together(now)
        elif self._is_ring_old(now):
            try:
                await self._read_together(now)
                if killed > self._keys_killed:  # the current reading began before the kill
                    await self._read_together(now)
            except Unavailable:
                if killed != self._keys_killed or not self._ring.rows:
                    raise
                # Known keys are valid as long as the lease: a new key is not needed yet, and a killed one is in the
                # log.
                self._ring_read_at = now - RING_FRESH_FOR + RING_AGAIN_IN

    def _is_ring_old(self, now: float) -> bool:
        return self.fencing.node.keys_killed != self._keys_killed or not 0 <= now - self._ring_read_at < RING_FRESH_FOR

    async def _read_together(self, now: float) -> None:
        """Share the reading that is under way, or begin one: any number of callers cause one read of the rows."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_rows(now))
            self._reading.add_done_callback(self._was_read)
        # A caller that disconnects does not cancel the reading for the others.
        await asyncio.shield(self._reading)

    def _was_read(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # every caller that waited may have disconnected

    async def _read_rows(self, now: float) -> None:
        """Read the key rows, and create the next key when it is due and this process keeps the keys up."""
        killed = self.fencing.node.keys_killed
        self._take(await self.store.select(StoredKey), now)
        due = self._ring.due(now, self.policy, self.alg) if self._upkeep else None
        if due is not None:
            with suppress(Conflict):
                await self._add_key(due, NO_CLIENT, SYSTEM, now)
            self._take(await self.store.select(StoredKey), now)
        self._ring_read_at, self._keys_killed = now, killed

    def _take(self, rows: Sequence[StoredKey], now: float) -> None:
        # A store that was promoted from a copy may have lost that a key was killed: such a key signs nothing and is not
        # shown.
        rows = [
            signing_keys.revoked(row, now)
            if row.revoked_at is None and self.fencing.log.covers(Named("", 0, None, "", "", row.kid))
            else row
            for row in rows
        ]
        if tuple(rows) != self._ring.rows:
            self._ring = KeyRing(rows, self.master, now=now)
        own = self._ring.own(now, symmetric=self.symmetric)
        kids = tuple(key.kid for key in own)
        if kids != self._own_kids:  # the same keys in a new set would make the cache forget every token
            self._own_kids, self._verifiers = kids, None
            if own:
                self._verifiers = self._verifiers_with(KeySet(own))

    def _verifiers_with(self, keys: KeySet) -> _Verifiers:
        everyone = (*self.audience, self.proxied_audience)
        bearer = AccessTokenVerifier(keys=keys, issuer=self.issuer, audience=self.audience)
        issued = AccessTokenVerifier(keys=keys, issuer=self.issuer, audience=everyone)
        return _Verifiers(bearer, TokenCache(bearer), TokenCache(issued))

    async def _add_key(self, signs_at: float, client: Client, actor: str, now: float) -> StoredKey:
        """Create the next key. Raises `Conflict` if another process created one of this number: one is enough."""
        row = signing_keys.new_key(
            Key.generate(self.alg),
            self.master,
            number=self._ring.next_number,
            signs_at=signs_at,
            now=now,
            policy=self.policy,
        )
        record = event("key_created", now=now, client=client, actor=actor, detail=row.kid)
        await self.store.commit(Add(row), Log(record))
        return row
