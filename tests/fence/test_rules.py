"""The simulator can fail: each rule taken out of the real code, or of the world around it, is found by it."""

from __future__ import annotations

import pytest
from tests.fence.mutants import RULES
from tests.fence.runs import outcome, outcomes, total

# Schedules that have failed without the rule. Any change to what is drawn in a schedule makes others of them:
# `python -m tests.fence mutate 2000 2 RULE` finds new ones.
SEEDS: dict[str, tuple[int, ...]] = {
    "lease": (2, 3, 5, 7, 14),
    "lease_first": (2, 3, 22, 32, 33),
    "from_send": (24, 33, 76, 104, 122),
    "guard": (24, 51, 100, 102, 104),
    "sleep_clock": (8, 19, 22, 25, 37),
    "record_first": (33, 42, 70, 160, 201),
    "apply_first": (2, 14, 25, 33, 70),
    "apply_then_ack": (2, 3, 14, 19, 22),
    "primary": (22, 25, 29, 30, 39),
    "load_first": (21, 76, 230, 236, 266),
    "whole_page": (14, 21, 25, 108, 128),
    "commit_order": (8, 70, 175, 222, 259),
    "one_boot": (32, 74, 179, 190, 259),
    "new_row": (92, 195, 197, 309, 417),
    "register": (57, 111, 170, 245, 313),
    "clip": (8, 69, 81, 117, 126),
    "stamp": (2, 69, 81, 86, 123),
    "own_clock": (142, 534),
    "not_behind": (81, 336),
    "fork": (24, 308),
    "wait_head": (5, 8, 15, 22, 30),
    "exp_from_read": (2, 3, 8, 15, 17),
    "keep": (210, 219, 233, 258, 358),
    "proof_epoch": (2, 3, 22, 23, 25),
    "cache_check": (131, 310, 415, 569),
    "cache_age": (2, 14, 15, 21, 24),
    "log_epoch": (5, 19, 28, 32, 35),
    "epoch_base": (114, 149, 365),
    "deadline": (7, 23, 35, 60, 94),
    "longest_lease": (29, 92, 153, 208, 490),
}

FURTHER = 3000
"""Schedules tried when those named here fail no more."""


def test_every_rule_has_a_failing_schedule() -> None:
    """No rule is added without showing what it is for."""
    assert SEEDS.keys() == RULES.keys()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_the_promise_breaks(rule: str) -> None:
    """Some schedule is unsafe, or a fence late, when this rule is taken out; with it, the same schedule is neither."""
    drop = frozenset({rule})
    seed = next((seed for seed in SEEDS[rule] if any(outcome(seed, drop)[1:3])), None)
    if seed is None:
        failing = total(outcomes(range(FURTHER), drop)).failing
        assert failing, f"{FURTHER} schedules are as good without `{rule}`"
        seed = failing[0]
    assert outcome(seed)[1:3] == (0, 0)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_some_of_many_schedules_break(rule: str) -> None:
    """Among 5,000 schedules, some are unsafe or late when this rule is taken out."""
    found = total(outcomes(range(5000), frozenset({rule})))
    print(f"{rule}: {found}")
    assert found.failing
