"""Signing in, step by step: what has been proved, and what is still demanded before a session starts.

One pure function, `next_step`, takes the account, the proofs and the policy. A sign-in that is not finished is a
one-time token (purpose `sign_in`) that carries `Pending`: no session exists before the last step, so none can be used
half made.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from dutchdoor.errors import InvalidToken
from dutchdoor.model.accounts import Account
from dutchdoor.model.issuer_sessions import Issued
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import MINUTE, Mode, Policy
from dutchdoor.model.principal import Verified, factors_of
from dutchdoor.model.rate_limits import Standing

__all__ = ["PENDING_FOR", "Ask", "Pending", "Proof", "Refuse", "Start", "Step", "needs_second", "next_step", "outdated"]

PENDING_FOR: Final = 10 * MINUTE
"""Seconds in which the next step has to be taken."""
_WAITING_AT_ONE_PLACE, _WAITING = 3, 24
"""Sign-ins of one account that wait for their next step at the same time."""


class Proof(Struct, frozen=True, kw_only=True):
    """One credential that was right."""

    method: str
    amr: tuple[str, ...]
    """What it proved (RFC 8176): nothing, if it is a step of the application."""
    at: float
    proved_at: float | None = None
    """When its owner gave it, if that was earlier: at an issuer, before the person came back."""


class Start(Struct, frozen=True):
    """Nothing is missing: a session may start from this."""

    verified: Verified


class Ask(Struct, frozen=True):
    """One more proof is needed, by any of these methods."""

    methods: tuple[str, ...]
    enrol: bool = False
    """Whether the account has none of them, and has to enrol one now."""
    own: bool = False
    """Whether it is no proof, but a step of the application."""

    @property
    def step(self) -> str:
        """The name of the application's step; "" for a proof."""
        return self.methods[0] if self.own else ""


class Refuse(Struct, frozen=True):
    """No proof helps. The reason is for the log: to the client, this is a wrong password."""

    why: str


Step: TypeAlias = Start | Ask | Refuse


def next_step(
    account: Account,
    proofs: Sequence[Proof],
    policy: Policy,
    *,
    factors: Collection[str],
    offered: Collection[str] = (),
    grace_ends: float = math.inf,
    remembered: bool = False,
    own: str = "",
) -> Step:
    """Decide what comes after these proofs of one account, of which there is one at least.

    Args:
        account: as it was read before the first proof.
        proofs: what was right so far, the first one first.
        policy: what it demands of everyone.
        factors: the methods of the second factors that the account has.
        offered: the methods that an account without a second factor can enrol.
        grace_ends: when an account that needs one and has none must have enrolled it.
        remembered: whether the browser proved a second factor before, and its owner asked to remember it.
        own: a step that the application asks for; "" for none. It comes last, when the account is proved.
    """
    if not account.active:
        return Refuse("disabled")
    if policy.require_verified_email and account.email_verified_at is None:
        return Refuse("address not verified")
    proved = {proof.method for proof in proofs}
    # By the first way alone: a passkey, or an issuer that is trusted to have asked for a second factor.
    first = [proof for proof in proofs if proof.method == proofs[0].method]
    enough = factors_of(tuple(amr for proof in first for amr in proof.amr)) > 1
    if factors and not enough and not proved & set(factors):
        # A browser left open, or copied with its cookies, must not act for everyone.
        if not remembered or account.administers:
            return Ask(tuple(sorted(factors)))
    elif not factors and not enough and needs_second(account, policy) and offered and proofs[-1].at >= grace_ends:
        return Ask(tuple(sorted(offered)), enrol=True)
    if own:
        return Ask((own,), own=True)
    return Start(
        Verified(
            subject=account.subject,
            epoch=account.epoch,
            amr=tuple(dict.fromkeys(amr for proof in proofs for amr in proof.amr)),
            # The oldest: a session is as fresh as the proof that was given first.
            at=min(proof.at if proof.proved_at is None else proof.proved_at for proof in proofs),
        )
    )


def needs_second(account: Account, policy: Policy) -> bool:
    """Return whether an account must have a second factor."""
    return policy.second_factor == "required" or (policy.second_factor == "admins" and account.administers)


class Pending(Struct, frozen=True, kw_only=True):
    """The steps so far of a sign-in that is not finished. Nothing in it is secret."""

    proofs: tuple[Proof, ...]
    epoch: int
    """Of the account at the first proof: a change of password or roles since then ends the sign-in."""
    mode: Mode
    client_id: str
    familiar: bool
    """Whether the account signed in from here before."""
    chosen_at: float
    """When the password was chosen: the browser is known by it later."""
    device: str
    """What the browser was known as before; empty if it was not."""
    digest: str
    """The account in the browser's known-device mark."""
    standing: Standing = Standing.STRANGER
    """What was known of the client at the first proof."""
    network: str = ""
    """The network of the client at the first proof."""
    issued: Issued | None = None
    """The session at another issuer, if that is the first proof."""
    remember: bool = False
    """Whether the owner wants to skip it in this browser from now on."""
    scope: str = ""
    """What the application's steps have added to the sign-in."""

    @property
    def place(self) -> tuple[Standing, str]:
        """Where it waits: in a known browser, or in a network."""
        return self.standing, self.device or self.network

    def standing_of(self, network: str) -> tuple[Standing, str]:
        """Return the standing of a client that continues this, and the place it comes from, by its `network`."""
        if self.standing is Standing.NETWORK and network != self.network:
            return Standing.STRANGER, network
        return self.standing, self.device or network

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, payload: bytes) -> Pending:
        """Read what `encode` wrote. Raises `InvalidToken` for what another version wrote."""
        try:
            return _decode(payload)
        except msgspec.MsgspecError:
            raise InvalidToken("the pending sign-in cannot be read") from None


_decode = msgspec.json.Decoder(Pending).decode


def outdated(waiting: Iterable[OneTimeToken], one_more: Pending) -> list[OneTimeToken]:
    """Return which of an account's sign-ins that wait are over when one more waits.

    Of one place, the oldest: its person began anew. Of all, the oldest of strangers: who knows the password can begin
    as many as they like, and must neither fill the disk nor end the one that the owner began in a known browser.
    """
    kept: list[tuple[OneTimeToken, Pending]] = []
    over: list[OneTimeToken] = []
    here = 0
    for token in sorted(waiting, key=lambda each: (each.created_at, each.id), reverse=True):
        try:
            pending = Pending.decode(token.payload)
        except InvalidToken:
            over.append(token)
            continue
        here += pending.place == one_more.place
        if pending.place == one_more.place and here >= _WAITING_AT_ONE_PLACE:
            over.append(token)
        else:
            kept.append((token, pending))
    if len(kept) >= _WAITING:
        kept.sort(key=lambda each: (each[1].standing is not Standing.STRANGER, each[0].created_at))
        over += [token for token, _ in kept[: len(kept) - _WAITING + 1]]
    return over
