"""What the `claims` hook adds is readable in `principal.claims`, whichever proof came."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
import uvicorn
from standins import HOME, PASSWORD, Clock
from tests.ports import free_port

from dutchdoor import Auth, Principal, Verifier
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Misconfigured
from dutchdoor.model.accounts import Account
from dutchdoor.model.policy import Mode
from dutchdoor.services.browser import Browser
from dutchdoor.stores.base import REMEMBERED_FOR

WHO = {"email": "ada@example.com", "password": PASSWORD}


class Plan:
    """A hook that counts its calls."""

    def __init__(self, plan: object = "pro") -> None:
        self.plan, self.asked = plan, list[tuple[str, str | None]]()

    def __call__(self, account: Account, session_id: str | None) -> dict[str, object]:
        self.asked.append((account.subject, session_id))
        return {"plan": self.plan, "teams": ("red", "blue"), "since": 2021}


def engine(hook: Plan, **named: Any) -> Auth:
    return Auth("memory:", hasher=PasswordHasher(CHEAPEST), claims=hook, **named)


async def sign_in(auth: Auth, mode: Mode) -> Any:
    if await auth.store.account_by_email(WHO["email"]) is None:
        await auth.directory.registration.register(WHO["email"], PASSWORD, "", client=HOME)
    signed_in, _ = await auth.directory.sign_in.by_password(WHO["email"], PASSWORD, Browser(HOME), mode=mode)
    return signed_in


@pytest.mark.usefixtures("patient_verifiers")
async def test_a_claim_is_the_same_by_cookie_token_and_verifier() -> None:
    """Each of them gives what JSON gives back, for the account and the session that the hook was asked about."""
    hook, port = Plan(), free_port()
    auth = engine(hook, local_url=f"http://localhost:{port}")
    server = uvicorn.Server(uvicorn.Config(auth.asgi(), port=port, log_level="warning"))
    async with auth:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        by_cookie, by_token, alone = [await sign_in(auth, mode) for mode in ("session", "hybrid", "jwt")]
        found = [
            (await auth.authority.resume(by_cookie.session_token)).principal,
            await auth.authority.verify(by_token.access_token),
            await auth.authority.verify(alone.access_token),
        ]
        async with Verifier(f"http://localhost:{port}") as verifier:
            found.append(await verifier.check(by_token.access_token))
        server.should_exit = True
        await serving
    said = {"plan": "pro", "teams": ["red", "blue"], "since": 2021}
    assert [principal.claims for principal in found] == [said] * 4
    sessions = {each.session.id if each.session else None for each in (by_cookie, by_token, alone)}
    assert {session for _, session in hook.asked} == sessions


async def test_the_hook_is_asked_once_for_each_look_up_of_a_session() -> None:
    """A request by cookie does not call it; another result shows within a minute, or at once after other roles."""
    hook, clock = Plan(), Clock()
    async with engine(hook, clock=clock) as auth:
        token = (await sign_in(auth, "session")).session_token

        async def plan() -> object:
            return (await auth.authority.resume(token)).principal.claims["plan"]

        assert hook.asked == []
        assert [await plan() for _ in range(10)] == ["pro"] * 10
        assert len(hook.asked) == 1
        hook.plan = "free"
        assert await plan() == "pro"
        clock.forward(REMEMBERED_FOR)
        assert (await plan(), len(hook.asked)) == ("free", 2)
        hook.plan = "gold"
        await auth.directory.admin.set_roles(hook.asked[0][0], ["buyer"], client=HOME, actor="cli")
        assert (await plan(), len(hook.asked)) == ("gold", 3)


@pytest.mark.parametrize("plan", ["x" * 3000, object(), float("nan")], ids=["too large", "no JSON", "no number"])
async def test_what_no_token_may_carry_no_cookie_gives(plan: object) -> None:
    """A claim that would be refused in a token is refused for a cookie, too: an application can change the mode."""
    async with engine(Plan(plan)) as auth:
        token = (await sign_in(auth, "session")).session_token
        with pytest.raises(Misconfigured, match="extra claims"):
            await auth.authority.resume(token)


def test_a_principal_can_be_kept_in_a_set_and_copied() -> None:
    """Claims are a mapping, and a principal stays hashable, comparable and copyable."""
    one = Principal(
        subject="ada", method="session", session_id="s", client_id="app", roles=(), scope="", auth_time=1.0,
        amr=("pwd",), expires_at=2.0, claims={"plan": "pro"},
    )  # fmt: skip
    assert copy.deepcopy(one) == one and len({one, copy.deepcopy(one)}) == 1
    assert json.dumps(one.claims) == '{"plan": "pro"}'
