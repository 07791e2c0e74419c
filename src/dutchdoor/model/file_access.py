"""One rule for every file that holds a secret: which other users of the machine may have rights to it."""

from __future__ import annotations

__all__ = ["is_closed_to_others"]


def is_closed_to_others(mode: int, owner: int, us: int) -> bool:
    """Whether a secret's file is for whom it was put there alone, by its mode, its owner and the user we run as.

    One of our own must be closed to everybody else. One that is somebody else's was handed to us, and the group is how:
    Kubernetes gives a pod's secrets to its fsGroup, systemd gives a credential to the service (its ACL shows as group).
    """
    return mode & (0o077 if owner == us else 0o037) == 0
