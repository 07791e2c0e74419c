"""One rule for every file that holds a secret: which other users of the machine may access it."""

from __future__ import annotations

__all__ = ["is_closed_to_others"]


def is_closed_to_others(mode: int, owner: int, us: int) -> bool:
    """Whether only the intended user can read a secret's file, judged by its mode, its owner and the user we run as.

    Our own file must be closed to all other users. A file that another user owns may be readable by a group: Kubernetes
    gives a pod's secrets to its fsGroup, and systemd gives a credential to the service (its ACL shows as the group).
    """
    return mode & (0o077 if owner == us else 0o037) == 0
