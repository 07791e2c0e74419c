"""Leases and who holds them: how long one lasts on every clock, and that a table of them stays small."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fence.rig import LATE, TERMS

from dutchdoor.errors import Misconfigured
from dutchdoor.revocation.lease import DRIFT, GUARD, Lease, Terms
from dutchdoor.revocation.lease_table import Holder, Holders
from dutchdoor.revocation.messages import Poll


def test_the_guard_outlasts_every_clock() -> None:
    """When the grantor's clock is fast and the holder's slow, the grantor still waits longer."""
    lease_for, true_time = 10.0, 10.0 / (1 - DRIFT)
    assert lease_for * GUARD >= true_time * (1 + DRIFT) - 1e-9


def test_a_lease_runs_from_the_sending_and_never_gets_shorter() -> None:
    """An answer that was long under way gives a short lease, and takes none away."""
    lease = Lease()
    assert lease.left(0.0) < 0
    lease.extend(5.0, 10.0)
    lease.extend(1.0, 10.0)
    assert lease.until == 15.0
    lease.drop()
    assert lease.left(0.0) < 0


@pytest.mark.parametrize("lease_for", [0.0, 0.9, 301.0, math.nan, math.inf])
def test_a_lease_is_bounded(lease_for: float) -> None:
    """A setting that is no lease is refused."""
    with pytest.raises(Misconfigured):
        Terms(lease_for=lease_for)


GOOD = {"holder": "h" * 22, "log_epoch": 1, "applied_seq": 2, "wait_ms": 2500}


@pytest.mark.parametrize(
    "bad",
    [
        {"holder": "short"}, {"holder": "h" * 65}, {"holder": "h" * 21 + "\n"}, {"applied_seq": -1},
        {"applied_seq": 2**53 + 1}, {"log_epoch": 1.5}, {"wait_ms": 600_001},
    ],
)  # fmt: skip
def test_a_poll_is_bounded_where_it_is_read(bad: dict[str, object]) -> None:
    """No number and no text in a poll is larger than what the node keeps of it."""
    assert msgspec.json.decode(msgspec.json.encode(GOOD), type=Poll).wait_ms == 2500
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(GOOD | bad), type=Poll)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["grant", "grant", "acknowledge", "wait"]),
            st.integers(0, 4),
            st.floats(0, 6),
            st.booleans(),
        ),
        max_size=60,
    )
)
@settings(max_examples=2 * settings.default.max_examples)
def test_the_level_is_what_a_list_of_all_leases_says(steps: list[tuple[str, int, float, bool]]) -> None:
    """The heaps give what one finds by looking at every lease ever granted."""
    holders, now, head = Holders(TERMS), 0.0, 0
    grants, acked = list[tuple[int, int, float]](), dict[int, int]()
    for step, number, span, new in steps:
        who = Holder("c", str(number))
        head += new
        match step:
            case "wait":
                now += span
            case "grant":
                holders.polled(who, now)
                if sum(v == number and until > now for v, _, until in grants) < 8:
                    holders.grant(who, head, now + span, now)
                    grants.append((number, head, now + span))
            case "acknowledge":
                if len(holders) and any(v == number for v, *_ in grants):
                    seen = max(0, head - 1)
                    if who in holders._by_id:
                        acked[number] = max(acked.get(number, -1), seen)
                    holders.acknowledge(who, seen, now)
        acked = {v: seq for v, seq in acked.items() if Holder("c", str(v)) in holders._by_id}
        expected: float = math.inf
        for seq in range(head + 2):
            if any(until > now and carried < seq and acked.get(v, -1) < seq for v, carried, until in grants):
                expected = seq - 1
                break
        assert min(holders.level(now), head + 1) == min(expected, head + 1)


def test_one_that_never_acknowledges_is_soon_given_nothing() -> None:
    """A verifier that polls for ever and acknowledges nothing loses its leases, and gets them back by catching up."""
    holders, who, now = Holders(TERMS), Holder("c", "rogue"), 0.0
    while now < 3 * TERMS.lease_for:
        holders.polled(who, now)
        if holders.may_have(who, now):
            holders.grant(who, 7, now + 5, now)
        now += 1.0
    assert not holders.may_have(who, now)
    holders.acknowledge(who, 7, now)
    assert holders.may_have(who, now)


def test_a_credential_has_a_bounded_number_of_holders() -> None:
    """A stolen key with a new id in every poll fills no memory but its own share, and that is given back."""
    holders = Holders(Terms(leases=10))
    taken = [holders.polled(Holder("stolen", str(n)), 0.0) for n in range(1000)]
    assert sum(taken) == len(holders) == 10
    assert holders.polled(Holder("honest", "h"), 0.0)
    assert not holders.may_have(Holder("stolen", "500"), 0.0)
    holders.level(LATE + 1)
    assert len(holders) == 0
    assert holders._per_credential == {}


def test_the_heaps_stay_small() -> None:
    """Whatever 20 holders do for an hour, what is kept of it is bounded by their number."""
    holders, now = Holders(TERMS), 0.0
    for n in range(40_000):
        now += 0.05
        who = Holder("c", str(n % 20))
        holders.polled(who, now)
        holders.acknowledge(who, n - 20, now)
        holders.grant(who, n, now + 5, now)
        holders.level(now)
    assert len(holders._levels) + len(holders._ends) < 1000
