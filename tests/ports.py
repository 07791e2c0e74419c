"""Ports for servers that must know theirs before they listen.

Between the choice and the listening nothing else may take the port. So it is none of those that the system gives out by
itself, and each process of a run has a share of them, which it goes through from a place that is another one each run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

FIRST, END = 10_000, 32_000
"""Linux gives out 32768 to 60999 by itself."""

_run = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_share = (END - FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_places = itertools.count(_run.randrange(END - FIRST) + _worker * _share)


def free_port() -> int:
    """Give a port of loopback that nothing listens at, another one each time."""
    for place in itertools.islice(_places, END - FIRST):
        port = FIRST + place % (END - FIRST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
