"""Many schedules, over several processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from .simulator import World


class Outcome(NamedTuple):
    seed: int
    unsafe: int
    late: int
    accepted: int
    fences: int
    early: int
    stale: int


class Total(NamedTuple):
    schedules: int
    unsafe: int
    """Schedules in which a request was accepted with what had been fenced."""
    late: int
    """Fences that took longer than the maximum wait."""
    accepted: int
    fences: int
    early: int
    stale: int
    failing: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.schedules:,} schedules: {self.unsafe} unsafe, {self.late} late fences; "
            f"{self.accepted:,} acceptances, {self.fences:,} fences ({self.early:,} by acknowledgement), "
            f"{self.stale:,} stale checks; seeds {sorted(self.failing)[:10]}"
        )


def outcome(seed: int, drop: frozenset[str] = frozenset()) -> Outcome:
    world = World(seed, drop).run()
    return Outcome(seed, bool(world.violations), world.late, world.accepted, world.fences, world.fast, world.stale)


def outcomes(seeds: Iterable[int], drop: frozenset[str] = frozenset(), *, processes: int = 2) -> Iterator[Outcome]:
    """Run a schedule for each seed; outcomes come in any order."""
    if processes == 1:
        yield from (outcome(seed, drop) for seed in seeds)
        return
    # Started afresh and not forked: the tests' own process has threads.
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(partial(outcome, drop=drop), seeds, 100)


def total(found: Iterable[Outcome]) -> Total:
    every = list(found)
    sums = [sum(column) for column in list(zip(*every, strict=True))[1:]]
    return Total(len(every), *sums, failing=tuple(o.seed for o in every if o.unsafe or o.late))
