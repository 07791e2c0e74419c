"""A change of the password ends what the old one began, also what overlaps it."""

from __future__ import annotations

import asyncio

import pytest
from tests.services.house import THIRD_PASSWORD, House
from tests.standins import HOME, OTHER_PASSWORD, PASSWORD, Clock, Gate, Interleaved

from dutchdoor.errors import NotAuthenticated, WeakPassword, WrongCredentials
from dutchdoor.services.ongoing import Ongoing


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
@pytest.mark.parametrize("change", ["change", "reset", "disable"])
@pytest.mark.parametrize("held", ["known", "commit"])
async def test_a_sign_in_that_overlaps_a_change_of_password(house: House, mode: str, change: str, held: str) -> None:
    """`proof_epoch`, O05: a sign-in with the old password that a change overtakes, anywhere, does not survive it."""
    token = await house.reset_token()
    gate = Gate(house.store, held, after=held != "commit")
    signing_in = asyncio.create_task(house.sign_in(mode=mode, through=house.over(gate)))
    await gate.reached.wait()
    account = await house.ann()
    if change == "change":
        await house.clean.recovery.change_password(Ongoing(account, None, HOME, "app"), PASSWORD, OTHER_PASSWORD)
    elif change == "reset":
        await house.clean.recovery.reset_password(token, OTHER_PASSWORD, client=HOME)
    else:
        await house.clean.admin.disable(account.subject, client=HOME, actor="cli")
    gate.open.set()
    with pytest.raises(WrongCredentials):
        await signing_in
    assert await house.clean.authority.sessions(account.subject) == []


async def test_two_changes_of_the_password_at_once(house: House) -> None:
    """I-10: of two changes at once one happens; the other finds that the current password is not right any more."""
    account = await house.ann()
    one, other = await house.sign_in(), await house.sign_in()
    rows = []
    for signed_in in (one, other):
        assert signed_in.session is not None
        found = await house.store.session(signed_in.session.id)
        assert found is not None
        rows.append(found[0])
    racing = house.over(Interleaved(house.store, seed=4))
    results = await asyncio.gather(
        racing.recovery.change_password(Ongoing(account, rows[0], HOME, "app"), PASSWORD, OTHER_PASSWORD),
        racing.recovery.change_password(Ongoing(account, rows[1], HOME, "app"), PASSWORD, THIRD_PASSWORD),
        return_exceptions=True,
    )
    won = [result for result in results if not isinstance(result, BaseException)]
    assert len(won) == 1
    assert all(isinstance(result, tuple | NotAuthenticated) for result in results), results
    assert await house.opens(OTHER_PASSWORD) != await house.opens(THIRD_PASSWORD)
    assert await house.alive(won[0][0])
    assert len(await house.clean.authority.sessions(account.subject)) == 1


async def test_a_change_of_password_in_a_session_that_ends(house: House) -> None:
    """I-02: a change that a log-out of its own session overtakes does not happen and revives nothing."""
    mine = await house.sign_in()
    assert mine.session is not None
    found = await house.store.session(mine.session.id)
    assert found is not None
    gate = Gate(house.store, "commit")
    changing = asyncio.create_task(
        house.over(gate).recovery.change_password(
            Ongoing(await house.ann(), found[0], HOME, "app"), PASSWORD, OTHER_PASSWORD
        )
    )
    await gate.reached.wait()
    await house.clean.authority.end(mine.session.id, client=HOME, actor="ann")
    gate.open.set()
    with pytest.raises(NotAuthenticated):
        await changing
    assert not await house.alive(mine)
    assert await house.opens(PASSWORD)


async def test_changing_the_password_needs_the_current_one(house: House) -> None:
    """C07: a wrong current password changes nothing, and is an event."""
    account, mine = await house.ann(), await house.sign_in()
    with pytest.raises(WrongCredentials):
        await house.clean.recovery.change_password(Ongoing(account, None, HOME, "app"), "wrong", OTHER_PASSWORD)
    with pytest.raises(WeakPassword):
        await house.clean.recovery.change_password(Ongoing(account, None, HOME, "app"), PASSWORD, "password")
    assert await house.opens(PASSWORD)
    assert await house.alive(mine)


async def test_a_step_up_is_a_new_session(house: House) -> None:
    """S02, I-19: after proving the password again there is a new id, and the old session is dead."""
    for mode in ("session", "hybrid"):
        before = await house.sign_in(mode=mode)
        assert before.session is not None
        assert await house.alive(before)
        assert isinstance(house.clock, Clock)
        house.clock.forward(5)
        found = await house.store.session(before.session.id)
        assert found is not None
        ongoing = Ongoing(await house.ann(), found[0], HOME, "app")
        with pytest.raises(WrongCredentials):
            await house.clean.step_up.reauthenticate(ongoing, "wrong")
        assert await house.alive(before)
        after = await house.clean.step_up.reauthenticate(ongoing, PASSWORD)
        assert after.session is not None
        assert after.session.id != before.session.id
        assert after.session.auth_time == house.clock()
        assert not await house.alive(before)
        assert await house.alive(after)
