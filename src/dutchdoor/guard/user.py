"""The account behind a request, as an application sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Struct

from dutchdoor.model.principal import FromProof, Principal

if TYPE_CHECKING:
    from dutchdoor.model.accounts import Account  # not imported: a service that only verifies lacks its packages

__all__ = ["Anonymous", "User"]


class User(Struct, frozen=True, kw_only=True):
    """Who is signed in. In a service that only verifies tokens, what the token says."""

    id: Annotated[str, FromProof]
    """The opaque name of the account (`sub`): what an application stores."""
    email: str | None = None
    """The address for mail. None in a service that only verifies tokens, and for users of the application's own."""
    name: str = ""
    """The name people see; "" if there is none."""
    roles: tuple[str, ...] = ()
    """The account's roles."""
    email_verified: bool = False
    """Whether the owner of the mailbox has confirmed the address."""
    created_at: float | None = None
    """When the account was created, in seconds since 1970; None in a service that only verifies tokens."""

    def has_role(self, role: str) -> bool:
        """Return whether the account has a `role`."""
        return role in self.roles

    # What Starlette's and Flask's conventions ask of a user.

    @property
    def is_authenticated(self) -> bool:
        """True. An `Anonymous` says False."""
        return True

    @property
    def display_name(self) -> str:
        """The name, or the address, or the id: the first that is there."""
        return self.name or self.email or self.id

    @property
    def identity(self) -> str:
        """The id."""
        return self.id

    @classmethod
    def of(cls, account: Account) -> User:
        """Return the user of an `account`."""
        return cls(
            id=account.subject,
            email=account.address,
            name=account.name,
            roles=account.roles,
            email_verified=account.email_verified_at is not None,
            created_at=account.created_at,
        )

    @classmethod
    def named(cls, principal: Principal) -> User:
        """Return the user of a `principal`, as far as its proof describes it."""
        return cls(id=principal.subject, email=principal.email, name=principal.name, roles=principal.roles)


class Anonymous:
    """A client that is not signed in."""

    id = email = None
    name = display_name = identity = ""
    roles: tuple[str, ...] = ()
    is_authenticated = email_verified = False

    def has_role(self, role: str) -> bool:  # noqa: ARG002 - as a User has it
        """Return False."""
        return False
