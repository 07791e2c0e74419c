"""Limits: how many pass, how long one waits, and who cannot be locked out."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import HIGH, RELAXED, STANDARD
from dutchdoor.model.rate_limits import (
    DEFAULT_LIMITS,
    MARK_FOR,
    Bucket,
    Limit,
    Standing,
    by_address,
    decide,
    decide_all,
    find_mark,
    give_back,
    mint_mark,
    sign_in_buckets,
    sign_in_ceilings,
    standing_of,
    with_mark,
)

NOW = 1_800_000_000.0
KEY = b"k" * 32

limits = st.builds(
    Limit,
    name=st.just("any"),
    count=st.integers(1, 200),
    per_seconds=st.sampled_from([0.5, 1.0, 7.0, 60.0, 3600.0, 86400.0]),
    burst=st.integers(1, 50),
)
gaps = st.lists(st.floats(0, 4000, allow_nan=False), min_size=1, max_size=80)


class Buckets:
    """The store's part, in memory: what `decide_all` says is what is kept."""

    def __init__(self) -> None:
        self.tats: dict[str, float] = {}

    def hit(self, buckets: tuple[Bucket, ...], now: float) -> tuple[float, str]:
        verdict = decide_all([self.tats.get(b.key) for b in buckets], buckets, now)
        self.tats |= {b.key: tat for b, tat in zip(buckets, verdict.tats, strict=True) if tat is not None}
        return verdict.retry_after, verdict.refused_by

    def succeed(self, buckets: tuple[Bucket, ...], account: str) -> None:
        for bucket in buckets:
            self.tats[bucket.key] = give_back(self.tats[bucket.key], bucket.limit)
        for bucket in sign_in_ceilings(DEFAULT_LIMITS, account):
            self.tats.pop(bucket.key, None)

    def failures(self, buckets: tuple[Bucket, ...], since: float, for_: float) -> int:
        """How many failures someone gets through who tries again whenever it is allowed."""
        now, passed = since, 0
        while now <= since + for_:
            wait, _ = self.hit(buckets, now)
            if wait:
                now += wait
            else:
                passed += 1
        return passed


@given(limits, gaps)
def test_never_more_than_burst_plus_rate(limit, waits):
    """In every window of t seconds at most burst + t / interval attempts pass, whatever the rhythm (t to 0.1 ms)."""
    now, tat, passed = NOW, None, []
    for wait in waits:
        now += wait * limit.interval / 1000
        tat, retry_after = decide(tat, limit, now)
        if not retry_after:
            passed.append(now)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            window = passed[last] - start
            assert last - first + 1 <= limit.burst + (window + 2e-4) / limit.interval


@given(limits, gaps)
def test_retry_after_is_exact(limit, waits):
    """Waiting `retry_after` passes; waiting a millisecond less does not."""
    now, tat = NOW, None
    for wait in [0.0] * limit.burst + waits:
        now += wait * limit.interval / 4000
        tat, retry_after = decide(tat, limit, now)
        if not retry_after:
            continue
        assert decide(tat, limit, now + retry_after).retry_after == 0
        if retry_after > 0.002:
            assert decide(tat, limit, now + retry_after - 0.001).retry_after > 0


@given(limits)
def test_a_burst_passes_and_no_more(limit):
    """Exactly `burst` pass at one instant."""
    tat, answers = None, []
    for _ in range(limit.burst + 5):
        tat, retry_after = decide(tat, limit, NOW)
        answers.append(retry_after == 0)
    assert answers == [True] * limit.burst + [False] * 5


@given(limits, st.floats(0, 1e9))
def test_a_clock_set_back_locks_no_one_out(limit, back):
    """After the clock was set back, however far, the next attempt passes within one interval."""
    tat = None
    for _ in range(limit.burst):
        tat, _ = decide(tat, limit, NOW)
    tat, retry_after = decide(tat, limit, NOW - back)
    assert retry_after <= limit.interval * (1 + 1e-6) + 1e-5
    assert decide(tat, limit, NOW - back + retry_after + 1e-5).retry_after == 0


@given(limits)
def test_a_clock_that_keeps_stepping_back_gives_no_second_burst(limit):
    """Setting the clock back opens a bucket no wider than it was."""
    tat, passed = None, 0
    for step in range(limit.burst * 3):
        tat, retry_after = decide(tat, limit, NOW - step * 1e-3)
        passed += retry_after == 0
    assert passed <= limit.burst + 1


@given(st.integers(1, 40), st.lists(st.floats(-1e6, 86400 - 1024), min_size=50, max_size=80))
def test_a_ceiling_never_opens_by_itself(burst, steps):
    """Nothing grows back: however attempts are spaced and the clock is set back, `burst` pass and no more."""
    ceiling = Limit(name="any", count=1, per_seconds=math.inf, burst=burst, kept_for=86400)
    now, tat, passed = NOW, None, []
    for step in steps:
        tat, retry_after = decide(tat, ceiling, now)
        passed.append(retry_after == 0)
        assert retry_after < math.inf
        now += min(step, 0) if retry_after else step
    assert passed == [True] * burst + [False] * (len(steps) - burst)


def test_a_ceiling_is_forgotten_after_a_time_without_an_attempt_and_not_before():
    """An account's for ten years, without an account for a day: random addresses do not fill a disk."""
    account = attempt(Standing.STRANGER)[-1]
    nobody = sign_in_buckets(DEFAULT_LIMITS, account="x", network="n", standing=Standing.STRANGER, known=False)[-1]
    for bucket, days in ((account, 3652), (nobody, 1)):
        tat, passed = None, 0
        for _ in range(70):
            tat, retry_after = decide(tat, bucket.limit, NOW)
            passed += retry_after == 0
        assert passed == 60
        assert decide(tat, bucket.limit, NOW + days * 86400 - 1024).retry_after > 0
        assert decide(tat, bucket.limit, NOW + days * 86400 + 1024).retry_after == 0
        # A store purges what lies in the past, and that alone.
        assert NOW + days * 86400 - 1024 < tat < NOW + days * 86400 + 1024


def test_a_ceiling_gives_back_one_and_never_more_than_was_spent():
    """Giving back to a ceiling that was emptied meanwhile does not turn it into another number."""
    ceiling = DEFAULT_LIMITS.networks_in_a_row
    tat = decide(None, ceiling, NOW).tat
    once = give_back(tat, ceiling)
    assert once == tat - 1
    assert give_back(once, ceiling) == once


@given(limits, st.integers(0, 40))
def test_giving_back_undoes_one_attempt(limit, honest):
    """Any number of attempts that succeed leave a bucket as full as it was, to the microsecond."""
    tat = None
    for _ in range(honest):
        tat, retry_after = decide(tat, limit, NOW)
        assert retry_after == 0
        tat = give_back(tat, limit)
    for _ in range(limit.burst):
        tat, retry_after = decide(tat, limit, NOW)
        assert retry_after == 0


def test_a_refused_attempt_charges_no_bucket():
    """One empty bucket refuses, the others keep what they had: a spent address cannot drain an account."""
    narrow = Bucket("a", Limit(name="narrow", count=1, per_seconds=60, burst=1))
    wide = Bucket("b", Limit(name="wide", count=1, per_seconds=60, burst=2))
    store = Buckets()
    assert store.hit((narrow, wide), NOW) == (0.0, "")
    for _ in range(10):
        assert store.hit((narrow, wide), NOW) == (pytest.approx(60.0, abs=1e-3), "narrow")
    assert store.hit((wide,), NOW) == (0.0, "")


def test_the_longest_wait_is_the_one_reported():
    """With two empty buckets the caller has to wait for the slower one."""
    slow = Bucket("a", Limit(name="slow", count=1, per_seconds=900, burst=1))
    fast = Bucket("b", Limit(name="fast", count=1, per_seconds=60, burst=1))
    store = Buckets()
    store.hit((slow, fast), NOW)
    assert store.hit((slow, fast), NOW) == (pytest.approx(900.0, abs=1e-3), "slow")


@pytest.mark.parametrize("wrong", [{"count": 0}, {"burst": 0}, {"per_seconds": 0.0}, {"per_seconds": -1.0}])
def test_a_limit_that_limits_nothing_is_refused(wrong):
    """A limit of zero is a mistake in a setting, not a switch; a ceiling has to fit its grid."""
    with pytest.raises(ValueError, match="must be positive"):
        Limit(**({"name": "x", "count": 1, "per_seconds": 1.0, "burst": 1} | wrong))
    with pytest.raises(ValueError, match="lower than 1024"):
        Limit(name="x", count=1, per_seconds=math.inf, burst=1024)


def test_every_limit_is_kept_under_its_own_name():
    """Two limits never share buckets: the name is the key's beginning."""
    names = [getattr(DEFAULT_LIMITS, field).name for field in DEFAULT_LIMITS.__struct_fields__]
    assert names == list(DEFAULT_LIMITS.__struct_fields__)


# C11: at most 100 consecutive failures, and an attacker cannot lock the owner out.


def attempt(
    standing: Standing, *, account: str = "victim", network: str = "203.0.113.9", device: str = ""
) -> tuple[Bucket, ...]:
    address = () if device else by_address(DEFAULT_LIMITS.sign_in_by_address, [network])
    return *address, *sign_in_buckets(
        DEFAULT_LIMITS, account=account, network=network, standing=standing, device=device
    )


def test_c11_at_most_100_consecutive_failures_from_everywhere_together():
    """A botnet, the owner's own network and ten stolen browsers get 100 failures in ten years, not one more."""
    store, passed, decade = Buckets(), 0, 3650 * 86400.0
    for day in range(200):
        for n in range(3):
            passed += store.failures(attempt(Standing.STRANGER, network=f"198.51.100.{n}"), NOW + day * 86400.0, 3600)
    passed += store.failures(attempt(Standing.NETWORK), NOW, decade)
    for n in range(10):
        passed += store.failures(attempt(Standing.DEVICE, device=f"stolen-{n}"), NOW, decade)
    assert passed == 100


def test_c11_the_right_password_is_refused_as_the_wrong_one_while_throttled():
    """The limit is taken before the password is looked at, so a refusal tells nothing about the guess."""
    store = Buckets()
    store.failures(attempt(Standing.STRANGER), NOW, 10 * 86400)
    assert store.hit(attempt(Standing.STRANGER, network="192.0.2.1"), NOW + 11 * 86400)[1] == "strangers_in_a_row"


def test_c11_an_attack_from_everywhere_leaves_the_owners_browser_and_network_alone():
    """While a botnet has spent all strangers' attempts, a marked browser signs in anywhere, and any browser at home."""
    store = Buckets()
    for n in range(200):
        store.failures(attempt(Standing.STRANGER, network=f"198.51.100.{n}"), NOW, 86400)
    later = NOW + 86400
    assert store.hit(attempt(Standing.DEVICE, network="192.0.2.77", device="laptop"), later) == (0.0, "")
    assert store.hit(attempt(Standing.NETWORK, network="192.0.2.78"), later) == (0.0, "")


def test_c11_networks_of_one_client_let_rising_numbers_through():
    """The /64, /56 and /48 of one client are a bucket each; each lets twice through what the narrower one does, at once
    and over time, so a client with a whole /48 gets four times what one address does.
    """
    limit, store = DEFAULT_LIMITS.sign_in_by_address, Buckets()
    narrow, middle, wide = by_address(limit, ["a/64", "b/56", "c/48"])
    assert [bucket.limit.burst for bucket in (narrow, middle, wide)] == [limit.burst * n for n in (1, 2, 4)]
    assert [limit.interval / bucket.limit.interval for bucket in (narrow, middle, wide)] == [1, 2, 4]
    assert {bucket.limit.name for bucket in (narrow, middle, wide)} == {limit.name}
    passed = sum(
        store.hit(by_address(limit, [f"{n}/64", f"{n // 256}/56", "one/48"]), NOW)[0] == 0 for n in range(1024)
    )
    assert passed == limit.burst * 4


def test_c11_one_stolen_browser_does_not_throttle_another():
    """Browsers have a bucket each."""
    store = Buckets()
    store.failures(attempt(Standing.DEVICE, network="198.51.100.1", device="stolen"), NOW, 60)
    assert store.hit(attempt(Standing.DEVICE, device="laptop"), NOW + 60) == (0.0, "")


def test_c11_a_success_starts_the_count_anew():
    """Consecutive means since the last success: the owner's sign-in opens the account to strangers again."""
    store = Buckets()
    store.failures(attempt(Standing.STRANGER), NOW, 30 * 86400)
    later = NOW + 31 * 86400
    assert store.hit(attempt(Standing.STRANGER), later)[1] == "strangers_in_a_row"
    own = attempt(Standing.DEVICE, network="192.0.2.1", device="laptop")
    store.hit(own, later)
    store.succeed(own, "victim")
    assert store.hit(attempt(Standing.STRANGER), later) == (0.0, "")


def test_c11_an_attacker_who_signs_in_to_an_own_account_gains_nothing():
    """A success gives back what that one attempt took: the address's failures on other accounts still count."""
    store, refused = Buckets(), 0
    for n in range(100):
        own = attempt(Standing.STRANGER, account="own")
        if store.hit(own, NOW)[0] == 0:
            store.succeed(own, "own")
        refused += store.hit(attempt(Standing.STRANGER, account=f"v{n}"), NOW)[1] == "sign_in_by_address"
    assert refused == 100 - DEFAULT_LIMITS.sign_in_by_address.burst


@given(st.lists(st.floats(0, 7200), min_size=1, max_size=60))
def test_c11_a_refused_reset_means_a_mail_within_the_interval(waits):
    """However an attacker spends the mailbox's bucket, the newest link in it is younger than the interval."""
    limit, now, tat, sent_at = DEFAULT_LIMITS.reset_by_mailbox, NOW, None, -math.inf
    for wait in waits:
        now += wait / 10
        tat, retry_after = decide(tat, limit, now)
        if not retry_after:
            sent_at = now
        assert now - sent_at <= limit.interval


@pytest.mark.parametrize("policy", [STANDARD, HIGH, RELAXED])
def test_c11_a_reset_link_outlives_the_interval_of_its_limit(policy):
    """With the previous test: there is always a working link in the owner's mailbox."""
    assert policy.reset_for >= DEFAULT_LIMITS.reset_by_mailbox.interval + 300


def test_an_unreadable_address_has_no_neighbour():
    """Clients without a readable address are strangers, also to an account that once signed in without one."""
    assert standing_of(device="", network="", recent_networks={""}) is Standing.STRANGER
    assert standing_of(device="", network="192.0.2.1", recent_networks={"192.0.2.1"}) is Standing.NETWORK
    assert standing_of(device="laptop", network="", recent_networks=()) is Standing.DEVICE


# Marks.


def test_a_mark_proves_its_browser_for_its_account_alone():
    """A mark is found for the account it was made for, and for no other."""
    device = new_id()
    mark = mint_mark(KEY, account="ann", device=device, chosen_at=NOW, now=NOW)
    found = find_mark(KEY, mark, account="ann", now=NOW + 60)
    assert found is not None
    assert found.device == device
    assert not find_mark(KEY, mark, account="bob", now=NOW + 60)
    assert not find_mark(b"o" * 32, mark, account="ann", now=NOW + 60)


def test_c11_a_mark_is_of_one_password():
    """A mark names the password it was given for by the instant it was chosen at: with any other, an earlier one too,
    and by another key it names no device.
    """
    signed = mint_mark(KEY, account="ann", device=new_id(), chosen_at=NOW, now=NOW)
    mark = find_mark(KEY, signed, account="ann", now=NOW)
    assert mark is not None
    assert mark.is_of(KEY, NOW)
    assert not any(mark.is_of(KEY, math.nextafter(NOW, towards)) for towards in (0.0, math.inf))
    assert not mark.is_of(b"o" * 32, NOW)


def test_a_mark_ends():
    """A mark counts for MARK_FOR seconds, and not before it was made."""
    mark = mint_mark(KEY, account="ann", device=new_id(), chosen_at=NOW, now=NOW)
    assert find_mark(KEY, mark, account="ann", now=NOW + MARK_FOR)
    assert not find_mark(KEY, mark, account="ann", now=NOW + MARK_FOR + 1)
    assert not find_mark(KEY, mark, account="ann", now=NOW - 1)


@pytest.mark.filterwarnings("ignore:invalid characters:DeprecationWarning")  # pybase64, of "+" and "/"
@given(st.integers(0, 63), st.sampled_from("ABab01-_=+/ .é"))
def test_an_altered_mark_proves_nothing(place, character):
    """Whichever character is changed, the mark is none."""
    mark = mint_mark(KEY, account="ann", device=new_id(), chosen_at=NOW, now=NOW)
    altered = mark[:place] + character + mark[place + 1 :]
    assert altered == mark or not find_mark(KEY, altered, account="ann", now=NOW)


@given(st.text(max_size=400))
def test_no_cookie_makes_reading_marks_fail(cookie):
    """Whatever a client sends as its marks, the answer is "none"."""
    assert not find_mark(KEY, cookie, account="ann", now=NOW)
    assert len(with_mark(cookie, mint_mark(KEY, account="ann", device=new_id(), chosen_at=NOW, now=NOW))) < 300


def test_a_browser_keeps_the_marks_of_its_last_four_accounts():
    """A fifth account pushes out the oldest, and a cookie stays below 300 bytes."""
    cookie = ""
    for name in ("a", "b", "c", "d", "e"):
        cookie = with_mark(cookie, mint_mark(KEY, account=name, device=new_id(), chosen_at=NOW, now=NOW))
    found = [bool(find_mark(KEY, cookie, account=name, now=NOW)) for name in ("a", "b", "c", "d", "e")]
    assert found == [False, True, True, True, True]
    assert len(cookie) < 300


def test_standings_and_ceilings_are_in_one_order():
    """A standing takes from its own ceiling: both lists name the same three in the same order. The last is of codes."""
    ceilings = sign_in_ceilings(DEFAULT_LIMITS, "victim")
    taken = [attempt(standing, device="d")[-1] for standing in Standing]
    assert taken == list(ceilings)[:-1]
    assert all(a.key != b.key for a, b in pairwise(ceilings))
