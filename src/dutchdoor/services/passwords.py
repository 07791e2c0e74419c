"""New passwords: what is accepted, and how it is hashed."""

from __future__ import annotations

import asyncio

from dutchdoor.credentials.password import PasswordHasher
from dutchdoor.credentials.strength import check_new_password
from dutchdoor.model.policy import Policy
from dutchdoor.services.hooks import Hooks

__all__ = ["Passwords"]


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
        return await asyncio.to_thread(
            check_new_password,
            password,
            minimum=self.policy.password_minimum,
            email=key or None,
            product=self.product,
            words=(name,),
            breached=self.hooks.breached,
            field=field,
        )
