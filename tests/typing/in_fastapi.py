"""FastAPI: what a route's parameters are."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, assert_type

from fastapi import Depends, FastAPI, Request

from dutchdoor import Policy
from dutchdoor.fastapi import Auth, CurrentPrincipal, CurrentUser, OptionalPrincipal, OptionalUser, Principal, User

app = FastAPI()
auth = Auth(app, "sqlite:///app.db", policy=Policy(modes=("session",)))


@app.get("/user")
async def user(user: CurrentUser) -> str | None:
    assert_type(user, User)
    assert_type(user.email, str | None)
    assert_type(user.roles, tuple[str, ...])
    user.mail  # type: ignore[attr-defined] # noqa: B018
    return user.email


@app.get("/maybe")
async def maybe(user: OptionalUser, principal: OptionalPrincipal) -> str:
    assert_type(user, User | None)
    assert_type(principal, Principal | None)
    return user.id  # type: ignore[union-attr]


@app.get("/principal")
async def whole(principal: CurrentPrincipal, request: Request) -> str:
    assert_type(principal, Principal)
    assert_type(principal.session_id, str | None)
    assert_type(principal.auth_time, float)
    assert_type(await auth.csrf_token(request), str)
    return principal.subject


@app.get("/reports", dependencies=[Depends(auth.require(role="admin", fresh="5m", factors=2))])
async def reports(principal: Annotated[Principal, Depends(auth.require(scope="reports"))]) -> None:
    assert_type(principal, Principal)


auth.require(roles="admin")  # type: ignore[call-arg]
auth.require(role=5)  # type: ignore[arg-type]


@dataclass
class Member:
    name: str


CurrentMember = Annotated[Member, Depends(auth.current_user)]
OptionalMember = Annotated[Member | None, Depends(auth.optional_user)]


@app.get("/member")
async def member(member: CurrentMember, other: OptionalMember) -> str:
    assert_type(member, Member)
    assert_type(other, Member | None)
    return member.name


@auth.on("account_created", "session_started")
async def happened(event: object) -> None: ...


auth.on("account_make")  # type: ignore[arg-type]
