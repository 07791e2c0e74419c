"""Users of the application's own: it keeps them and their passwords, and dutchdoor keeps their sessions.

    users = ExternalUsers(authenticate=check, load=find)
    auth = Auth(app, users=users)

`external_accounts` has the accounts that stand for them here, and `external_sign_in` signs them in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeAlias, TypeVar, overload
from uuid import UUID

from dutchdoor.errors import Misconfigured
from dutchdoor.model.spelling import spelt
from dutchdoor.services.calling import is_coroutine_function

__all__ = ["ExternalUsers", "SubjectLike"]

UserT = TypeVar("UserT")
SubjectLike: TypeAlias = str | int | UUID | None
"""The id of a user, or None. It is kept as text."""


class ExternalUsers(Generic[UserT]):
    """The users of an application, for `Auth(users=...)`.

    Args:
        authenticate: gets what a person typed as login and as password. It returns the id of the user (text, an int or
            a UUID), which never belongs to another user later, or None. It must take as long for an unknown login as
            for a wrong password: check a hash either way.
        load: gets an id as text. It returns the user, an object of any type that is not None, or None if there is none
            any more or they may not sign in.
        roles: gets a user, and returns their roles. Without it, administrators of dutchdoor give roles.
        name: gets a user, and returns what pages, passkeys and authenticator apps call them, such as the login. Without
            it, that is the id.

    `authenticate` and `load` are coroutine functions, or plain functions, which run in threads. If one of them raises,
    the request is answered 503 and no one is signed out; the log says why.
    """

    @overload
    def __init__(
        self,
        *,
        authenticate: Callable[[str, str], Awaitable[SubjectLike]] | Callable[[str, str], SubjectLike],
        load: Callable[[str], Awaitable[UserT | None]],
        roles: Callable[[UserT], Iterable[str]] | None = None,
        name: Callable[[UserT], str] | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        authenticate: Callable[[str, str], Awaitable[SubjectLike]] | Callable[[str, str], SubjectLike],
        load: Callable[[str], UserT | None],
        roles: Callable[[UserT], Iterable[str]] | None = None,
        name: Callable[[UserT], str] | None = None,
    ) -> None: ...

    @spelt
    def __init__(
        self,
        *,
        authenticate: Callable[[str, str], object],
        load: Callable[[str], object],
        roles: Callable[[Any], Iterable[str]] | None = None,
        name: Callable[[Any], str] | None = None,
    ) -> None:
        """Raises `Misconfigured` for what cannot be called."""
        for each, given in {"authenticate": authenticate, "load": load, "roles": roles, "name": name}.items():
            of_user = each in {"roles", "name"}
            if not callable(given) and not (of_user and given is None):
                raise Misconfigured(f"ExternalUsers: {each} is a function, and not {given!r}.")
            if of_user and given is not None and is_coroutine_function(given):
                raise Misconfigured(
                    f"ExternalUsers: {each} is a plain function of the user. Let `load` load what it needs."
                )
        self.authenticate, self.load, self.roles, self.name = authenticate, load, roles, name
