"""Who acts, and from which client: what an audit event records of a change."""

from __future__ import annotations

from typing import Final, TypedDict

from dutchdoor.model.http_client import Client

__all__ = ["BY_COMMAND", "BY_SYSTEM", "COMMAND", "NO_CLIENT", "SYSTEM", "Acting"]

COMMAND: Final = "cli"
"""The actor of a command: a person with a shell on the server's machine."""
SYSTEM: Final = "system"
"""The actor of what no person asked for, and of the application's own code."""
NO_CLIENT: Final = Client()


class Acting(TypedDict):
    """The arguments with which each verb is asked for a change: `disable(subject, **call.by)`."""

    client: Client
    actor: str
    """A subject, `COMMAND` or `SYSTEM`."""


BY_COMMAND: Final = Acting(client=NO_CLIENT, actor=COMMAND)
BY_SYSTEM: Final = Acting(client=NO_CLIENT, actor=SYSTEM)
