"""A part of the directory, and what all parts share."""

from __future__ import annotations

from typing import NamedTuple

from dutchdoor.services.attempts import Attempts
from dutchdoor.services.one_time import OneTimeTokens
from dutchdoor.services.passwords import Passwords
from dutchdoor.services.post import Post
from dutchdoor.services.sessions import Authority

__all__ = ["Part", "Shared"]


class Shared(NamedTuple):
    """What the parts of one directory have in common."""

    authority: Authority
    attempts: Attempts
    post: Post
    one_time: OneTimeTokens
    passwords: Passwords


class Part:
    """Verbs about the accounts of one authority."""

    def __init__(self, shared: Shared) -> None:
        self.authority, self.attempts, self.post, self.one_time, self.passwords = shared
        self.store, self.policy, self.clock = self.authority.store, self.authority.policy, self.authority.clock
