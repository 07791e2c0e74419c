"""The engine, its settings, and a verifier."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from dutchdoor import Auth, Policy, Principal, Verifier

Policy(modes=("sessions",))  # type: ignore[arg-type]
Policy(registration="opened")  # type: ignore[arg-type]
Auth("memory:", hsts="never")  # type: ignore[arg-type]
auth = Auth("memory:", policy=Policy(registration="invite"), lease=10.0)


async def who(scope: dict[str, object]) -> None:
    assert_type(await auth.principal(scope), Principal | None)


verify = Verifier("https://auth.example.com", audience="orders")
assert_type(verify("token"), Principal)


async def check(token: str) -> None:
    assert_type(await verify.check(token), Principal)


verify(None)  # type: ignore[arg-type]
Policy(access_for="15m", idle_for=timedelta(days=3), absolute_for=86400 * 30)
Policy(access_for=("15m",))  # type: ignore[arg-type]
