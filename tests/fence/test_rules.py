"""The simulator can fail: each rule taken out of the real code, or of the world around it, is found by it."""

from __future__ import annotations

import pytest
from tests.fence.mutants import RULES
from tests.fence.runs import outcome, outcomes, total

# Schedules that have failed without the rule. Any change to what is drawn in a schedule makes others of them:
# `python -m tests.fence mutate 2000 2 RULE` finds new ones.
SEEDS: dict[str, tuple[int, ...]] = {
    "lease": (1, 2, 6, 7, 8),
    "lease_first": (10, 12, 14, 19, 37),
    "from_send": (142, 224, 245, 420, 443),
    "guard": (54, 64, 125, 154, 224),
    "sleep_clock": (64, 105, 142, 231, 245),
    "record_first": (37, 113, 151, 160, 292),
    "apply_first": (105, 427, 554, 575, 576),
    "apply_then_ack": (8, 12, 14, 18, 19),
    "primary": (5, 9, 12, 14, 39),
    "load_first": (11, 14, 16, 23, 138),
    "whole_page": (11, 71, 81, 105, 134),
    "commit_order": (10, 56, 72, 101, 146),
    "one_boot": (0, 94, 129, 566, 649),
    "new_row": (19, 258, 740, 815, 933),
    "register": (50, 57, 128, 177, 202),
    "clip": (5, 6, 10, 14, 16),
    "stamp": (2, 43, 65, 86, 125),
    "own_clock": (125, 803, 947, 969, 1207),
    "not_behind": (599, 835, 1409, 2131, 2333),
    "fork": (49, 185, 275, 303, 397),
    "wait_head": (0, 7, 9, 10, 11),
    "exp_from_read": (2, 5, 8, 11, 14),
    "keep": (125, 183, 237, 251, 256),
    "proof_epoch": (8, 14, 19, 20, 29),
    "cache_check": (168, 245, 466, 515, 619),
    "cache_age": (2, 8, 9, 17, 25),
    "log_epoch": (0, 6, 7, 10, 17),
    "epoch_base": (33, 88, 209, 227, 396),
    "deadline": (2, 5, 17, 21, 30),
    "row_first": (14, 16, 138, 231, 253),
    "row_kept": (34, 122, 135, 162, 179),
    "row_left": (25, 140, 165, 309, 323),
    "stop_first": (183, 588, 860, 898, 1170),
    "rows_looked_at": (3, 8, 17, 20, 22),
    "rows_in_commit": (34, 44, 55, 64, 176),
    "head": (6, 8, 10, 14, 16),
    "longest_lease": (48, 51, 87, 223, 330),
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
