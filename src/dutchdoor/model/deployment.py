"""The settings of a database's servers, stored so that a command beside them need not guess.

A command may run in a shell without the servers' settings. With defaults in their place, it would create a signing key
of another algorithm or delete audit events that the servers keep. Secrets are not stored: `withheld` names them, and a
command that needs one asks for it.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from dutchdoor.errors import Misconfigured
from dutchdoor.model.policy import Policy

__all__ = ["SERVERS", "Deployment", "Served", "read_served"]

SERVERS = "servers"
"""The id of the one record."""


class Served(Struct, frozen=True, kw_only=True):
    """The settings that shape what is stored, mailed or issued."""

    policy: Policy
    alg: str
    audience: tuple[str, ...]
    public_url: str | None
    local_url: str
    base_path: str
    lease: float
    product: str
    withheld: tuple[str, ...]
    """Names of settings that the servers have and that may be secret, or are code: `mail`, `pepper`, `breached`."""
    webhook_network: tuple[str, ...] = ()
    breached: str = ""
    """Path of the list of breached passwords; "" without one."""


class Deployment(Struct, frozen=True, kw_only=True):
    """The record: the settings of the server that started last."""

    id: str = SERVERS
    settings: str
    """A `Served`, as JSON."""
    revision: int = 0


def read_served(record: Deployment) -> Served:
    """Raises `Misconfigured` for a record of a version whose settings are not those of this program."""
    try:
        return msgspec.json.decode(record.settings, type=Served)
    except (msgspec.ValidationError, msgspec.DecodeError, Misconfigured):
        raise Misconfigured(
            "The servers' settings in the database are of another version. Use the version that the servers have."
        ) from None
