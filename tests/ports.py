"""Ports for servers that must know theirs before they listen.

Between the choice and the listening nothing else may take the port. So it is none of those that the system gives out by
itself, and each process of a run goes through them from a place of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket

FIRST, END = 10_000, 32_000
"""Linux gives out 32768 to 60999 by itself."""

_places = itertools.count(random.SystemRandom().randrange(END - FIRST))


def free_port() -> int:
    """Give a port of loopback that nothing listens at, another one each time."""
    for place in itertools.islice(_places, END - FIRST):
        port = FIRST + place % (END - FIRST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
