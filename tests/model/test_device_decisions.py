"""What is decided about the key of a browser: the whole table, and the machine that it makes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from msgspec.structs import replace
from tests.standins import HOME, T0

from dutchdoor.model.bindings import Binding
from dutchdoor.model.device_binding import (
    AGAIN_AFTER,
    BOUND_FOR,
    CLOCKS_APART,
    EARLY,
    OFFERED_WITHIN,
    ONE_MOMENT,
    REGISTERED_WITHIN,
    UNBOUND_FOR,
    Challenge,
    Confirmed,
    Gone,
    Known,
    Late,
    OtherKey,
    Proof,
    Rival,
    Taken,
    Unusable,
    is_offered,
    is_within,
    judge,
    kept_for,
    on_refresh,
    on_registration,
)
from dutchdoor.model.policy import STANDARD, DeviceBinding
from dutchdoor.model.principal import Verified
from dutchdoor.model.sessions import Session, start

AT = int(T0)
OURS = Binding("offered", "ES256", "A" * 43, '{"kty":"EC"}', AT)
PROGRAM = Binding("confirmed", "ES256", "P" * 43)
STATES = {"none": None, "offered": OURS, "confirmed": replace(OURS, state="confirmed"), "program": PROGRAM}
KEYS = {
    "same": replace(OURS, offered_at=AT + 5),
    "moment": replace(OURS, thumbprint="B" * 43, offered_at=AT + ONE_MOMENT),
    "other": replace(OURS, thumbprint="B" * 43, offered_at=AT + ONE_MOMENT + 1),
}
AGES = {"young": 1.0, "old": REGISTERED_WITHIN}
POLICIES: tuple[DeviceBinding, ...] = ("off", "optional", "required")


def session(state: str, mode: Any = "session") -> Session:
    binding = STATES[state]
    made, _ = start(
        Verified(subject="alice", epoch=0, amr=("pwd",), at=T0),
        mode=mode,
        client=HOME,
        client_id="app",
        scope="",
        master_key_id=b"",
        now=T0,
        policy=STANDARD,
        binding=None if binding is None else binding.text(),
    )
    return made


def registered(state: str, key: str, age: str, policy: DeviceBinding) -> str:
    """What must come of it, said once more, and in another order than in the code."""
    if state == "program":
        return "Unusable"
    if key == "same" and state != "none":
        return "Known"
    if state == "confirmed":
        return "Late" if key == "moment" else "Rival"
    if policy == "off":
        return "Unusable"
    return "Late" if age == "old" else "Taken"


REGISTRATIONS = list(itertools.product(STATES, KEYS, AGES, POLICIES))


def test_k20_every_registration_is_decided() -> None:
    """For each state, key, age and policy: a key is taken while none is confirmed, another one than the confirmed ends
    the session, one of the same moment does not, and nothing old is taken.
    """
    kinds = (Taken, Known, Rival, Late, Unusable)
    seen = set()
    for state, key, age, policy in REGISTRATIONS:
        outcome = on_registration(session(state), KEYS[key], policy, T0 + AGES[age])
        assert isinstance(outcome, kinds)
        assert type(outcome).__name__ == registered(state, key, age, policy), (state, key, age, policy)
        seen.add(type(outcome))
        if isinstance(outcome, Taken):
            assert outcome.binding == KEYS[key], "what is written is the key as it was offered"
        if isinstance(outcome, Known):
            assert outcome.binding == STATES[state], "nothing of it changes"
    assert seen == set(kinds), "each outcome is reached"


REFRESHES: dict[tuple[str, Proof], type] = {
    ("none", "none"): Gone, ("none", "wrong"): Gone, ("none", "right"): Gone,
    ("program", "none"): Gone, ("program", "wrong"): Gone, ("program", "right"): Gone,
    ("offered", "none"): Challenge, ("offered", "wrong"): Gone, ("offered", "right"): Confirmed,
    ("confirmed", "none"): Challenge, ("confirmed", "wrong"): OtherKey, ("confirmed", "right"): Confirmed,
}  # fmt: skip


@pytest.mark.parametrize(("state", "proof"), REFRESHES)
def test_k20_every_refresh_is_decided(state: str, proof: Proof) -> None:
    """For each state and proof: only a right proof brings a cookie, and the first one confirms the key."""
    outcome = on_refresh(session(state), proof)
    assert type(outcome) is REFRESHES[state, proof]
    if isinstance(outcome, Confirmed):
        assert outcome.binding == STATES["confirmed"]
        assert outcome.is_new == (state == "offered")


def test_k20_every_request_is_decided() -> None:
    """A confirmed session needs its bound cookie, under each policy and for good. `required` gives an unbound one a
    minute, and no policy asks programs for the cookie.
    """
    for state, policy, age, has_cookie in itertools.product(
        STATES, POLICIES, (0.0, UNBOUND_FOR - 1, UNBOUND_FOR, 86400.0), (True, False)
    ):
        verdict = judge(session(state), policy, T0 + age, has_cookie=has_cookie)
        if state == "confirmed":
            assert verdict == ("serve" if has_cookie else "prove")
        elif state != "program" and policy == "required" and age >= UNBOUND_FOR and not has_cookie:
            assert verdict == "unbound"
        else:
            assert verdict == "serve", (state, policy, age)


def test_k20_every_offer_is_decided() -> None:
    """A browser is asked at its sign-in, and again from 30 seconds to 10 minutes after it, while its key is not
    confirmed. One that brings a bound cookie is not asked, whatever this node remembers; nor is anyone under `off`.
    """
    ages = (0.0, AGAIN_AFTER - 1, AGAIN_AFTER, OFFERED_WITHIN - 1, OFFERED_WITHIN)
    for state, policy, age, anew, has_cookie in itertools.product(STATES, POLICIES, ages, (True, False), (True, False)):
        offered = is_offered(session(state), policy, T0 + age, anew=anew, has_cookie=has_cookie)
        young = anew or AGAIN_AFTER <= age < OFFERED_WITHIN
        assert offered == (state in {"none", "offered"} and policy != "off" and young and not has_cookie)


def test_k21_a_new_proof_of_the_owner_counts_as_a_sign_in() -> None:
    """After a change of the password the session goes on: its browser may register again from then on."""
    renewed = replace(session("none"), auth_time=T0 + 3600)
    assert is_offered(renewed, "optional", T0 + 3600 + AGAIN_AFTER, anew=False, has_cookie=False)
    assert isinstance(on_registration(renewed, OURS, "optional", T0 + 3601), Taken)
    assert judge(renewed, "required", T0 + 3600 + UNBOUND_FOR - 1, has_cookie=False) == "serve"


@pytest.mark.parametrize("ahead", [0.0, CLOCKS_APART, -CLOCKS_APART])
def test_k22_a_browser_gives_its_cookie_up_before_it_is_refused(ahead: float) -> None:
    """A cookie is kept for less than it is taken for, by the node that gives it, whichever node made the challenge; and
    it never lives longer than from the challenge's own time.
    """
    for age in (0.0, 1.0, 299.0):
        at = T0 - age + ahead
        kept = kept_for(at, T0)
        assert 1.0 <= kept <= BOUND_FOR - EARLY
        given = min(at, T0)
        assert not is_within(given, given + BOUND_FOR, BOUND_FOR)
        assert kept == 1.0 or is_within(given, T0 + kept, BOUND_FOR)


def test_k22_what_is_from_too_far_ahead_is_not_taken() -> None:
    """A node takes what another has made whose clock is 5 minutes ahead, and nothing from further in the future."""
    assert is_within(T0 + CLOCKS_APART, T0, BOUND_FOR)
    assert not is_within(T0 + CLOCKS_APART + 1, T0, BOUND_FOR)
