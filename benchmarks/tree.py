"""Reckon a tree of relays from measured figures: `python -m benchmarks.tree --poll-us 450 --verifier-kib 20`.

Prints the tables of docs/contributing/revocation-tree.md, which says what the symbols mean. Nothing is measured here:
the defaults are what `benchmarks.polls`, `benchmarks/fence.py` and `benchmarks.stores` measured, and relays do not
exist.
"""

from __future__ import annotations

import argparse
import math

GUARD = 1.1 / 0.9
KEPT = 600.0
"""Seconds that an entry outlives the last token it covers."""


def fan_out(poll: float, entry: float, rate: float, every: float, share: float) -> int:
    """Verifiers on a core of which a share is used: each is answered once per `every`, with all that came meanwhile."""
    return int(share / (poll / every + entry * rate))


def leases(lease: float, levels: int) -> list[tuple[float, float]]:
    """The least and the most that is granted behind a node, behind a relay, behind a relay of a relay, ..."""
    found = [((lease - lease / 6) / GUARD, lease / GUARD)]
    for _ in range(levels):
        least, most = found[-1]
        found.append(((least - most / 4) / GUARD, most / GUARD))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tree", description=__doc__)
    parser.add_argument("--verifiers", type=float, default=1e6)
    parser.add_argument("--rate", type=float, default=1e3, help="revocations a second")
    parser.add_argument("--poll-us", type=float, default=450.0, help="processor time of a poll, its answer included")
    parser.add_argument("--entry-us", type=float, default=0.06, help="processor time of writing one entry")
    parser.add_argument("--entry-bytes", type=float, default=44.0)
    parser.add_argument("--poll-bytes", type=float, default=820.0, help="a poll and the head of its answer")
    parser.add_argument("--verifier-kib", type=float, default=19.0, help="memory that a node has for each verifier")
    parser.add_argument("--access-for", type=float, default=600.0)
    parser.add_argument("--share", type=float, default=0.5, help="of a core that is used")
    given = parser.parse_args()
    verifiers, rate = given.verifiers, given.rate
    poll, entry = given.poll_us / 1e6, given.entry_us / 1e6

    print("| answered every | verifiers on a core | relays at the leaves | levels of relays | a leaf sends | ", end="")
    print("all leaves send | cores in all | early fence |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for every in (0.1, 0.25, 1.0, 2.5):
        fan = fan_out(poll, entry, rate, every, given.share)
        leaves = math.ceil(verifiers / fan)
        levels, above = 1, leaves
        relays = leaves
        while above > 3 * fan:  # three nodes stand above the last level
            above = math.ceil(above / fan)
            relays, levels = relays + above, levels + 1
        out = fan * (rate * given.entry_bytes + given.poll_bytes / every) * 8 / 1e6
        fence = 2 * every * (levels + 1)
        print(
            f"| {every:g} s | {fan:,} | {leaves:,} | {levels} | {out:,.0f} Mbit/s | {out * leaves / 1e3:,.0f} Gbit/s "
            f"| {relays * given.share:,.0f} | {fence:.1f} s |"
        )

    print("\n| revocations a second | entries alive | memory of each verifier | to read when it starts | of its core |")
    print("|---:|---:|---:|---:|---:|")
    for each in (10.0, 100.0, 1e3, 1e4):
        alive = each * (given.access_for + KEPT)
        print(
            f"| {each:,.0f} | {alive:,.0f} | {alive * 116 / 1e6:,.0f} MB | {alive * given.entry_bytes / 1e6:,.0f} MB "
            f"| {each * 2e-6:.1%} |"
        )

    print("\n| lease | guarded | behind a node | behind a relay | behind two | behind three |")
    print("|---:|---:|---:|---:|---:|---:|")
    for lease in (10.0, 30.0, 60.0):
        cells = [f"{least:.1f} to {most:.1f} s" for least, most in leases(lease, 3)]
        print(f"| {lease:g} s | {lease * GUARD:.1f} s | {' | '.join(cells)} |")

    per_core = fan_out(poll, 0.0, 0.0, 2.5, 1.0)
    print(f"\nWithout any revocation a core is full with {per_core:,} verifiers,", end=" ")
    print(f"which take {per_core * given.verifier_kib / 1024:,.0f} MiB.")


if __name__ == "__main__":
    main()
