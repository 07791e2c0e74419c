"""New passwords: what is accepted, and how it is hashed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dutchdoor.credentials.password import PASSWORD, PasswordHasher
from dutchdoor.credentials.strength import check_new_password, tries_log10
from dutchdoor.errors import InvalidInput
from dutchdoor.model.accounts import Credential, renewed
from dutchdoor.model.policy import Policy
from dutchdoor.services.hooks import Hooks
from dutchdoor.stores.base import Add, Swap
from dutchdoor.texts import mark

__all__ = ["WRONG_PASSWORD", "Passwords", "choosing"]

WRONG_PASSWORD = mark("The password is not right.")
"""What people read who typed the password of the account in which they are signed in."""


class Passwords:
    """The rule for new passwords, and the hasher."""

    def __init__(self, hasher: PasswordHasher, *, policy: Policy, product: str, hooks: Hooks) -> None:
        self.hasher, self.policy, self.product, self.hooks = hasher, policy, product, hooks

    async def encoded(self, password: str, key: str, name: str, *, field: str = "password") -> str:
        """Return the hash of a new password. Raises `WeakPassword`, `InvalidInput`, `Unavailable`."""
        return await self.hasher.hash(await self.accepted(password, key, name, field=field))

    async def accepted(self, password: str, key: str, name: str, *, field: str = "password") -> str:
        """Return the form of a new password that is hashed. Raises `WeakPassword`, `InvalidInput`."""
        # In a thread: the check takes milliseconds, and may read a list from a slow disk.
        return await asyncio.to_thread(self._check, password, key, (name,), field)

    async def judged(self, password: str, key: str, words: Sequence[str]) -> tuple[InvalidInput | None, float]:
        """Return why a new password would be refused, None if it would not; and the tries that an attacker needs, as a
        power of ten. `key` is the address of its owner, and `words` are names of the owner. Raises `Unavailable`.
        """

        def judge() -> tuple[InvalidInput | None, float]:
            try:
                self._check(password, key, words, "password")
            except InvalidInput as error:
                return error, 0.0
            return None, tries_log10(password, product=self.product, email=key or None, words=words)

        return await asyncio.to_thread(judge)

    def _check(self, password: str, key: str, words: Sequence[str], field: str) -> str:
        return check_new_password(
            password,
            minimum=self.policy.password_minimum,
            email=key or None,
            product=self.product,
            words=words,
            breached=self.hooks.breached,
            field=field,
        )


def choosing(subject: str, held: Sequence[Credential], proof: str, now: float) -> tuple[Credential, Add | Swap]:
    """Return the password that the owner of a `subject` chooses now, whose hash is `proof`, and the change that stores
    it. `held` are the credentials of the subject.
    """
    before = next((each for each in held if each.method == PASSWORD), None)
    if before is None:
        fresh = Credential(subject=subject, method=PASSWORD, handle="", proof=proof, created_at=now)
        return fresh, Add(fresh)
    fresh = renewed(before, proof, now)
    return fresh, Swap(fresh)
