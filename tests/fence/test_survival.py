"""For how long verifiers go on when the authority stops: what the documents say, the constants, and the code agree."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.lease import Terms
from dutchdoor.revocation.node import Answered, Ask, Node
from dutchdoor.revocation.node_messages import ReadLog, Renew, Renewed

ROOT = Path(__file__).parents[2]
STEPS = 500
"""In a lease."""
LATE = 0.01
"""Of a lease: the latest that a poll follows the answer before it."""


def left_at_every_moment(terms: Terms, leases: int = 40) -> list[float]:
    """Let a verifier follow a node whose store answers at once, and give what is left of its lease at each moment of a
    quiet log: for so long it would go on, were the authority to stop then. Now and then it polls a moment late, so that
    its polls meet the node's renewals at every distance.
    """
    node, follower, lots = Node(terms, first_epoch=1), Follower(), Random(1)
    poll, left, polls_at = None, list[float](), 0.0
    for now in (step * terms.lease_for / STEPS for step in range(leases * STEPS)):
        node.tick(now)
        if poll is None and now >= max(follower.poll_at, polls_at):
            poll = follower.poll(now)
            node.polled(poll, poll, now)
        while actions := node.take_actions():
            for action in actions:
                match action:
                    case Ask(number, Renew() | ReadLog()):
                        read = Renewed(there=True, log_epoch=1, salt=b"salt", after=0, entries=[], upto=0, head=0)
                        node.answered(number, read, now)
                    case Ask(number):
                        node.answered(number, None, now)
                    case Answered(key, answer) if key is poll and poll is not None:
                        follower.take(poll, answer, now, 0.0)
                        poll, polls_at = None, now + lots.random() * LATE * terms.lease_for
        left.append(follower.leased_for(now))
    return left[5 * STEPS :]


@pytest.mark.parametrize("lease_for", [1.0, 10.0, 60.0])
def test_j20_verifiers_survive_what_is_promised(lease_for: float) -> None:
    """Whenever the authority stops while the log is quiet, a verifier goes on for as long as `Terms.survives` says."""
    terms = Terms(lease_for=lease_for)
    left = left_at_every_moment(terms)
    least, most = terms.survives
    assert min(left) == pytest.approx(least, abs=2 * LATE * lease_for)
    assert max(left) == pytest.approx(most, abs=2 * LATE * lease_for)


def test_j20_the_documents_say_what_the_constants_give() -> None:
    """The seconds that people read are those of the default lease."""
    least, most = Terms().survives
    exact = f"{least:.1f} to {most:.1f} s"
    for name in ("operating/operating", "start/verifying", "contributing/revocation-fence", "reference/configuration"):
        assert exact in (ROOT / "docs" / f"{name}.md").read_text(), name
    (rounded,) = re.findall(r"verifiers go on for ([0-9]+ to [0-9]+) seconds", (ROOT / "README.md").read_text())
    assert rounded == f"{least:.0f} to {most:.0f}"
