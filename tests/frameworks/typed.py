"""What an application writes, with its types: `test_types.py` checks it, and nothing runs it."""

# pyright: strict

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, assert_type

import fastapi
from litestar import get
from litestar.di import NamedDependency

import dutchdoor.fastapi
import dutchdoor.flask
import dutchdoor.litestar
from dutchdoor import AuditEvent, Auth, ExternalUsers, Policy, Principal

policy = Policy(modes=("session",), access_for="15m", idle_for=timedelta(days=3), reset_for=1800, registration="invite")
assert_type(policy.access_for, float)
Policy(access_for=None)  # wrong
Policy(modes=("sessions",))  # wrong
Policy(registration="opened")  # wrong
Auth("memory:", lease="10s", registration="closed", hsts="off")
Auth("memory:", hsts="none")  # wrong
Auth("memory:", registration="opened")  # wrong


@dataclass
class Member:
    id: int
    team: str


async def authenticate(login: str, password: str) -> int | None:
    return 7 if (login, password) == ("ada", "right") else None


async def load(subject: str) -> Member | None:
    return Member(int(subject), "blue")


def load_here(subject: str) -> Member | None:
    return Member(int(subject), "blue")


def roles(member: Member) -> list[str]:
    return [member.team]


def roles_of_text(member: str) -> list[str]:
    return [member]


assert_type(ExternalUsers(authenticate=authenticate, load=load, roles=roles), ExternalUsers[Member])
assert_type(ExternalUsers(authenticate=authenticate, load=load_here, roles=roles), ExternalUsers[Member])
ExternalUsers(authenticate=load, load=load)  # wrong
ExternalUsers(authenticate=authenticate, load=load, roles=roles_of_text)  # wrong

app = fastapi.FastAPI()
auth = dutchdoor.fastapi.Auth(app, users=ExternalUsers(authenticate=authenticate, load=load))
CurrentUser = Annotated[Member, fastapi.Depends(auth.current_user)]


@app.get("/team")
async def team(user: CurrentUser) -> str:
    assert_type(user, Member)
    return user.team


@app.get("/mail")
async def mail(user: dutchdoor.fastapi.CurrentUser, principal: dutchdoor.fastapi.CurrentPrincipal) -> str | None:
    assert_type(user, dutchdoor.fastapi.User)
    assert_type(principal, Principal)
    return user.email


@get("/team")
async def team_in_litestar(current_user: NamedDependency[Member]) -> str:
    return current_user.team


dutchdoor.litestar.Auth("memory:").on("logout")(print)


current_user: Member = dutchdoor.flask.Auth().current_user


@auth.on("account_created", "logout")
async def welcome(event: AuditEvent) -> None:
    assert_type(event.subject, str)


@auth.on("account_create")  # wrong
def misspelled(event: AuditEvent) -> None: ...
