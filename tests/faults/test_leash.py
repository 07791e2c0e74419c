"""What a run that was killed leaves behind: nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import sys
from pathlib import Path
from tests.faults.cluster import cluster
with cluster(Path(sys.argv[1]), nodes=1, workers=2) as ours:
    print(ours.nodes[0].pid, flush=True)
    sys.stdin.read()
"""


def are_there(group: int) -> bool:
    """Whether a process of a group runs. One that has ended may stay listed where nothing asks how it ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just gone
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                return True
    return False


@pytest.mark.long
def test_nodes_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    """A run of the tests that is killed takes its nodes along, with their workers: they would keep a processor busy for
    hours.
    """
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "cluster")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdin is not None
    group = int(run.stdout.readline())
    assert are_there(group)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdin.close()
    run.stdout.close()
    deadline = time.monotonic() + 60
    while are_there(group):
        assert time.monotonic() < deadline, "the node is still there"
        time.sleep(0.05)
