"""Litestar: what is injected."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from typing import Any, assert_type

from litestar import Litestar, Request, get

from dutchdoor.litestar import Auth, CurrentPrincipal, CurrentUser, OptionalPrincipal, OptionalUser, Principal, User

auth = Auth("sqlite:///app.db")


@get("/user")
async def user(
    current_user: CurrentUser,
    optional_user: OptionalUser,
    current_principal: CurrentPrincipal,
    optional_principal: OptionalPrincipal,
    request: Request[Any, Any, Any],
) -> str:
    assert_type(current_user, User)
    assert_type(optional_user, User | None)
    assert_type(current_principal, Principal)
    assert_type(optional_principal, Principal | None)
    assert_type(await auth.csrf_token(request), str)
    return current_user.id


@get("/reports", guards=[auth.require(role="admin", fresh=300)])
async def reports() -> None: ...


app = Litestar([user, reports], plugins=[auth])
