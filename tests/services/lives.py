"""The life of a session in the tests of the authority: how it begins, and whether it is dead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from tests.standins import HOME, authority, proof_of

from dutchdoor.errors import NotAuthenticated, Superseded, Unavailable
from dutchdoor.model.accounts import Account
from dutchdoor.model.policy import Policy
from dutchdoor.model.sessions import Session
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Change


def beside(over: Authority, store: Any, policy: Policy | None = None) -> Authority:
    """Another authority over the same records, through a store that may misbehave."""
    return authority(store, over.clock, policy or over.policy)  # type: ignore[arg-type]


async def begin(
    over: Authority, mode: Literal["session", "hybrid", "jwt"] = "hybrid", subject: str = "alice", **more: Any
) -> SignedIn:
    return await over.start(await proof_of(over, subject), mode=mode, client=HOME, **more)


async def stored(over: Authority, signed_in: SignedIn) -> Session:
    """What the row says, whatever this process has read in the log."""
    assert signed_in.session is not None
    found = await over.store._inner.session(signed_in.session.id)  # type: ignore[attr-defined]
    assert found is not None
    return found[0]


async def refused(work: Awaitable[Any]) -> bool:
    """Whether something is refused as not signed in. Any other failure is a failure of the test."""
    try:
        await work
    except NotAuthenticated:
        return True
    return False


async def dead(over: Authority, signed_in: SignedIn) -> bool:
    """Whether everything that was given out is refused, by a process that was there and by one that starts now."""
    for one in (over, beside(over, over.store)):
        if signed_in.session_token and not await refused(one.resume(signed_in.session_token)):
            return False
        if signed_in.refresh_token and not await refused(one.refresh(signed_in.refresh_token, HOME)):
            return False
        if signed_in.access_token and not await refused(one.verify(signed_in.access_token)):
            return False
    return True


Ending = Callable[[Authority, SignedIn], Awaitable[Any]]


async def log_out(over: Authority, signed_in: SignedIn) -> None:
    assert signed_in.session is not None
    await over.end(signed_in.session.id, client=HOME, actor="alice")


async def log_out_everywhere(over: Authority, _: SignedIn) -> None:
    await over.end_all("alice", client=HOME, actor="alice")


async def disable(over: Authority, _: SignedIn) -> None:
    await over.end_all(
        "alice", client=HOME, actor="cli", reason="disabled", change=lambda a: replace(a, status="disabled")
    )


async def end_the_others(over: Authority, signed_in: SignedIn) -> None:
    await over.end_others("alice", "another", client=HOME)


ENDINGS: list[Ending] = [log_out, log_out_everywhere, disable, end_the_others]


async def broken(test: Awaitable[None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, Superseded, Unavailable)):
        await test


async def unlogged(self: Authority, account: Account, *_: Any, **__: Any) -> tuple[list[Change], Account]:
    """What stands in for `Authority._revoking`: an end is written without its entry in the log."""
    return [], account
