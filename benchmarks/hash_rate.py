"""How often a second one core hashes with Argon2id at 19 MiB, t=2, p=1: `hash_rate.py LIBRARY SECONDS`.

Runs in any contender's environment, so it imports the library it is asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module

SALT = b"sixteen bytes ok"


def hasher(library: str) -> Callable[[], object]:
    if library == "cryptography":
        argon2id = import_module("cryptography.hazmat.primitives.kdf.argon2").Argon2id
        return lambda: argon2id(salt=SALT, length=32, iterations=2, lanes=1, memory_cost=19456).derive(b"password")
    low = import_module("argon2.low_level")
    return lambda: low.hash_secret_raw(b"password", SALT, 2, 19456, 1, 32, low.Type.ID)


def main() -> None:
    work, seconds = hasher(sys.argv[1]), float(sys.argv[2])
    work()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        work()
        count += 1
    print(count / spent)


if __name__ == "__main__":
    main()
