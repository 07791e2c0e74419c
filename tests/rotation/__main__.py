"""Print both tables of refresh-rotation: `python -m tests.rotation [sessions] [refreshes]`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from dutchdoor.model.policy import STANDARD
from dutchdoor.stores.sqlite import SqliteStore

from .simulator import (
    SCENARIOS,
    SCHEDULES,
    STRANGER,
    VICTIM,
    Counter,
    Dutchdoor,
    LeewayFork,
    Make,
    Strict,
    false_logouts,
)
from .simulator import caught as caught_by


async def main(sessions: int, refreshes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "rotation.db")
        await store.open()
        observe = replace(STANDARD, fingerprint="off")
        algorithms: dict[str, Make] = {
            "strict single use": Strict,
            "leeway that forks, 30 s": LeewayFork,
            "counter, 10 s": Counter,
            "dutchdoor, fingerprint off": lambda: Dutchdoor(store, observe),
            "dutchdoor": lambda: Dutchdoor(store),
        }
        print(f"False log-outs per 1,000 honest sessions ({sessions:,} sessions of {refreshes} refreshes)\n")
        print("| algorithm | " + " | ".join(s.name for s in SCENARIOS) + " |")
        print("|---" * (1 + len(SCENARIOS)) + "|")
        for name, make in algorithms.items():
            row = [f"{await false_logouts(make, scenario, sessions, refreshes):.0f}" for scenario in SCENARIOS]
            print(f"| {name} | " + " | ".join(row) + " |", flush=True)
        thefts = min(sessions, 200)
        for client, whose in ((STRANGER, "another browser and country"), (VICTIM, "the victim's browser and country")):
            print(
                f"\nThieves with {whose}: caught, (median periods until then, still in at the end); {thefts} thefts\n"
            )
            print("| algorithm | " + " | ".join(SCHEDULES) + " |")
            print("|---" * (1 + len(SCHEDULES)) + "|")
            for name, make in algorithms.items():
                row = []
                for schedule in SCHEDULES:
                    share, after, still_in = await caught_by(make, schedule, client, thefts)
                    row.append(f"{share:.0%} ({'-' if after is None else f'{after:.0f}'}; {still_in:.0%})")
                print(f"| {name} | " + " | ".join(row) + " |", flush=True)
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(*(int(word) for word in [*sys.argv[1:], "1000", "96"][:2])))
