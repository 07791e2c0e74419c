"""What our adapters have in common here: a database at SQLITE_PATH, no limits, no hash (HASH=none)."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.peers.in_process import SignIn, bearer

ACCOUNT = {"email": "bench@example.com", "password": "correct horse battery staple"}
REGISTER = SignIn("/auth/register", ACCOUNT, lambda _: {})
WAYS = {
    "cookie": SignIn("/auth/login", {**ACCOUNT, "mode": "session"}, lambda answer: answer.cookie()),
    "bearer": SignIn("/auth/login", {**ACCOUNT, "mode": "hybrid", "transport": "body"}, bearer("access_token")),
}


def settings(*, users_elsewhere: bool = False) -> dict[str, Any]:
    """Return the settings of the engine: those of `benchmarks.ours`, with tokens that live as long as this measures."""
    from benchmarks.ours import NoHash, unlimited  # noqa: PLC0415 - it reads the environment
    from dutchdoor.model.policy import Policy  # noqa: PLC0415

    path = os.environ["SQLITE_PATH"]
    return {
        "database": f"sqlite:///{path}",
        "master_key": f"{path}.keys",
        "policy": Policy(access_for=3600.0),
        "limits": unlimited(),
        **({} if users_elsewhere else {"hasher": NoHash()}),
    }
