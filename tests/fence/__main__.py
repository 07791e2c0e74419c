"""Run the revocation fence through seeded schedules.

python -m tests.fence check  [schedules] [first seed] [processes]    every rule on: nothing unsafe, nothing late
python -m tests.fence mutate [schedules] [processes] [rule,a+b]      drop one rule at a time: each must fail
python -m tests.fence trace  SEED [rule,...]                         print one schedule
"""

from __future__ import annotations

import sys

from .mutants import RULES
from .runs import outcomes, total
from .simulator import World


def check(schedules: str = "2000", first: str = "0", processes: str = "2") -> int:
    seeds = range(int(first), int(first) + int(schedules))
    found = total(outcomes(seeds, processes=int(processes)))
    print(found)
    return bool(found.unsafe or found.late)


def mutate(schedules: str = "2000", processes: str = "2", only: str = "") -> int:
    print(
        f"| rule taken out | unsafe schedules of {int(schedules):,} | late fences | first seeds | the world without |"
    )
    print("|---|---|---|---|---|")
    survived = 0
    for rule in only.split(",") if only else RULES:
        found = total(outcomes(range(int(schedules)), frozenset(rule.split("+")), processes=int(processes)))
        survived += not found.failing
        seeds = ", ".join(map(str, sorted(found.failing)[:5])) or "none"
        print(f"| `{rule}` | {found.unsafe} | {found.late} | {seeds} | {RULES.get(rule, '')} |", flush=True)
    return bool(survived)


def trace(seed: str, rules: str = "") -> int:
    world = World(int(seed), frozenset(rules.split(",")) if rules else frozenset(), verbose=True).run()
    print(f"unsafe {len(world.violations)}, late {world.late}")
    return 0


if __name__ == "__main__":
    sys.exit({"check": check, "mutate": mutate, "trace": trace}[sys.argv[1]](*sys.argv[2:]))
