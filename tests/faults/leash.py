"""`dutchdoor serve` that ends with the run that started it, killed or not: `python -m tests.faults.leash serve ...`.

Its standard input is a pipe of the run's. The pipe closes with the run, and all processes of the node end.
"""

from __future__ import annotations

import os
import signal
import threading


def hold() -> None:
    """End this process group when its standard input is closed."""

    def end() -> None:
        os.read(0, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()


if __name__ == "__main__":
    hold()
    from dutchdoor.server.cli import main

    main()
