"""One rule for every file that holds a secret: which other users of the machine may access it."""

from __future__ import annotations

import grp
import os

__all__ = ["is_closed_to_others"]


def is_closed_to_others(found: os.stat_result) -> bool:
    """Whether only the user we run as can access a secret's file.

    Our own file must be closed to all other users. A file that another user owns may be readable by a group: Kubernetes
    gives a pod's secrets to its fsGroup, and systemd gives a credential to the service (its ACL shows as the group).

    Kubernetes also gives each file on a volume to the fsGroup, with mode 0660. So a group may read and write if it is a
    group of this process and has no name on this machine: such a number comes from a runtime, and users are put into
    groups that have names.
    """
    shared = 0o077 if found.st_uid == os.geteuid() else 0o037
    if _is_ours_alone(found.st_gid):
        shared &= ~0o060
    return found.st_mode & shared == 0


def _is_ours_alone(group: int) -> bool:
    if group not in {os.getegid(), *os.getgroups()}:
        return False
    try:
        grp.getgrgid(group)
    except KeyError:
        return True
    return False
