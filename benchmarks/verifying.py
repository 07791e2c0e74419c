"""One verifier in a process of its own: `python -m benchmarks.verifying ISSUER FOLDER NUMBER`, for `fence_live.py`.

It checks the token that the shared board names, every millisecond or without pause, and writes to the board when it
last accepted which. CLOCK_MONOTONIC is one clock for all processes of a machine.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from mmap import mmap
from pathlib import Path

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable

HEAD, EACH = 8, 8
"""Numbers on the board: a head for all, then so many for each verifier."""
CURRENT, PAUSE, SET, STOP = range(4)
CHECKS, SEEN, BEGAN, DONE, STALE = range(5)
"""Per verifier: checks so far; the token last looked at, and when the check that last accepted one began and was done;
how often it could not tell."""


def board(folder: Path, verifiers: int) -> memoryview:
    """Open the shared board, and make it where it is not there."""
    path = folder / "board"
    size = (HEAD + EACH * verifiers) * 8
    if not path.exists():
        path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        return memoryview(mmap(file.fileno(), size)).cast("d")


def main() -> None:
    issuer, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    shared = board(folder, number + 1)
    mine = HEAD + EACH * number
    tokens: list[str] = []
    loaded = -1.0
    with Verifier(issuer, audience=issuer, stale="refuse") as verify:
        while not shared[STOP]:
            if shared[SET] != loaded:
                loaded = shared[SET]
                tokens = json.loads((folder / f"tokens{loaded:.0f}").read_text())
            current = shared[CURRENT]
            began = time.monotonic()
            if current < len(tokens):
                with suppress(InvalidToken):
                    try:
                        verify(tokens[int(current)])
                    except Unavailable:
                        shared[mine + STALE] += 1
                    else:
                        shared[mine + DONE] = time.monotonic()
                        shared[mine + BEGAN] = began
                        shared[mine + SEEN] = current + 1
                shared[mine + CHECKS] += 1
            if shared[PAUSE]:
                time.sleep(shared[PAUSE])


if __name__ == "__main__":
    main()
