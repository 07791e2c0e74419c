"""What a command says once it has revoked something: whether it is refused everywhere already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click
from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.auth import Auth
from dutchdoor.server.terminal import write
from dutchdoor.services.sessions import Ended

__all__ = ["Fenced", "as_one", "no_wait", "say_fence", "wait_for"]

no_wait = click.option("--no-wait", is_flag=True, help="Do not wait until no verifier accepts it any more.")


class Fenced(Struct, frozen=True, kw_only=True):
    """How a fence stood when the command stopped waiting for it. In JSON, `fenced_in_ms` is null if nothing bounds
    it.
    """

    fenced: bool
    fenced_in_ms: int | None

    def view(self) -> dict[str, object]:
        """As members of what a command prints as JSON."""
        return {"fenced": self.fenced, "fenced_in_ms": self.fenced_in_ms}


async def wait_for(auth: Auth, done: Ended, *, no_wait: bool) -> Fenced:
    """Wait for the fence of what was ended: a guarded lease at most, by when it holds whoever is silent."""
    fencing = auth.authority.fencing
    terms = fencing.node.terms
    longest = terms.guarded(max(terms.lease_for, done.longest_lease))
    fence = await fencing.fence(done, wait=0.0 if no_wait else longest + 1.0)
    due_in = fence.due_in(fencing.now())
    return Fenced(
        fenced=fence.fenced,
        fenced_in_ms=math.ceil(due_in * 1000) if math.isfinite(due_in) else None,
    )


def as_one(ended: Sequence[Ended]) -> Ended:
    """Take what several calls ended for what one did. The log is in order: whoever has the last entry has them all."""
    last = max(ended, key=lambda each: (each.log_epoch, each.seq))
    return replace(
        last, count=sum(each.count for each in ended), longest_lease=max(each.longest_lease for each in ended)
    )


def say_fence(fenced: Fenced) -> None:
    """Print the state of a fence, for a person."""
    if fenced.fenced:
        write("Fenced: no server and no verifier that follows the log accepts it any more.")
    elif fenced.fenced_in_ms is None:
        write("Not fenced: another log began meanwhile (a restore). Do it again.")
    else:
        write(f"Not fenced yet: in {fenced.fenced_in_ms / 1000:.1f} s at the latest.")
