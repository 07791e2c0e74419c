"""The bottom rows of both tables of refresh-rotation, measured on the real authority over the real SQLite store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from rotation.simulator import (
    SCENARIOS,
    SCHEDULES,
    STRANGER,
    VICTIM,
    Caught,
    Counter,
    Dutchdoor,
    LeewayFork,
    Scenario,
    Schedule,
    Strict,
    caught,
    false_logouts,
    lives,
)

from dutchdoor.model import refresh_tokens
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.services import refreshing
from dutchdoor.stores.sqlite import SqliteStore

PLAIN = replace(STANDARD, fingerprint="off")

ALL, NONE = 1.0, 0.0
NEVER = Caught(NONE, None, ALL)
SILENT = Caught(NONE, None, NONE)
"""Not seen, and not there any more: it took one token and fell silent."""

# What the reference model's bottom rows say: share caught, median periods until then, share still in at the end.
THEFTS: dict[tuple[str, str], dict[Schedule, Caught]] = {
    ("default policy", "a stranger"): {
        "lock-step": Caught(ALL, 1, NONE),
        "late": Caught(ALL, 1, NONE),
        "tailgate": Caught(ALL, 2, NONE),
        "old copy": Caught(ALL, 3, NONE),
        "once": Caught(ALL, 1, NONE),
    },
    ("default policy", "an imitator"): {
        "lock-step": Caught(ALL, 2, NONE),
        "late": Caught(ALL, 2, NONE),
        "tailgate": NEVER,  # lands within 30 s of every refresh, with the victim's browser: only a bound token stops it
        "old copy": Caught(ALL, 3, NONE),
        "once": SILENT,
    },
    ("fingerprint off", "a stranger"): {
        "lock-step": Caught(ALL, 2, NONE),
        "late": Caught(ALL, 2, NONE),
        "tailgate": NEVER,
        "old copy": Caught(ALL, 3, NONE),
        "once": SILENT,
    },
}
POLICIES = {"default policy": STANDARD, "fingerprint off": PLAIN}
THIEVES = {"a stranger": STRANGER, "an imitator": VICTIM}
ROWS = [(*row, schedule) for row in THEFTS for schedule in SCHEDULES]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "rotation.db")
    await store.open()
    yield store
    await store.close()


async def no_false_logout(
    store: SqliteStore, scenario: Scenario, policy: Policy, sessions: int, refreshes: int
) -> None:
    assert await false_logouts(partial(Dutchdoor, store, policy), scenario, sessions, refreshes) == 0


async def caught_as_promised(
    store: SqliteStore, policy: str, thief: str, schedule: Schedule, thefts: int, slack: float
) -> None:
    actual = await caught(partial(Dutchdoor, store, POLICIES[policy]), schedule, THIEVES[thief], thefts)
    promised = THEFTS[policy, thief][schedule]
    assert abs(actual.share - promised.share) <= slack
    assert abs(actual.still_in - promised.still_in) <= slack
    assert actual.after == promised.after or (actual.share <= slack and promised.after is None)


@pytest.mark.parametrize("sessions", [10, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
async def test_no_one_honest_is_logged_out(store: SqliteStore, scenario: Scenario, sessions: int) -> None:
    """O02: lost answers, deaths before storing, and tabs at the same moment cost no honest session its sign-in."""
    await no_false_logout(store, scenario, STANDARD, sessions, 24)


@pytest.mark.soak
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[s.name for s in SCENARIOS])
async def test_no_one_honest_is_logged_out_in_a_day(store: SqliteStore, scenario: Scenario, policy: str) -> None:
    """O02: of 1,000 honest sessions of 96 refreshes not one is lost: the bottom row of the first table."""
    await no_false_logout(store, scenario, POLICIES[policy], 1000, 96)


@pytest.mark.parametrize(("policy", "thief", "schedule"), ROWS)
async def test_thieves_are_caught(store: SqliteStore, policy: str, thief: str, schedule: Schedule) -> None:
    """I-07: a copied token ends its session within two refreshes of its owner, but for the thieves we say we miss."""
    await caught_as_promised(store, policy, thief, schedule, 10, 0.0)


@pytest.mark.soak
@pytest.mark.parametrize(("policy", "thief", "schedule"), ROWS)
async def test_thieves_are_caught_of_200(store: SqliteStore, policy: str, thief: str, schedule: Schedule) -> None:
    """I-07: the bottom rows of the second table, over 200 thefts each; one in a hundred may fall to bad luck."""
    await caught_as_promised(store, policy, thief, schedule, 200, 0.01)


async def test_a_theft_is_reported_once(store: SqliteStore) -> None:
    """I-07: a theft ends one session with one notice and one event, and all other sessions go on (I-08)."""
    from_thief = (SCENARIOS[0], 24)
    made: list[Dutchdoor] = []

    def make() -> Dutchdoor:
        made.append(Dutchdoor(store))
        return made[-1]

    honest = await lives(make, *from_thief, [(n, None) for n in range(8)])
    assert not any(server.ended for _, server in honest)
    await caught(make, "lock-step", STRANGER, 8)
    thefts = [server for server in made if server.ended]
    assert len(thefts) == 8
    assert [server.thefts for server in thefts] == [1] * 8
    events = await store.events(name="refresh_theft", limit=1000)
    assert sorted(event.session_id for event in events) == sorted(server.session_id for server in thefts)
    assert not any(server.ended for _, server in honest)


async def test_the_simulator_tells_algorithms_apart(store: SqliteStore) -> None:
    """The tables can fail: the algorithms in wide use lose honest sessions or miss thieves in the same schedules."""
    assert await false_logouts(Strict, SCENARIOS[1], 40, 48) > 500
    assert await false_logouts(LeewayFork, SCENARIOS[2], 40, 96) > 300
    assert await false_logouts(Counter, SCENARIOS[4], 40, 96) > 50
    assert (await caught(Counter, "lock-step", STRANGER, 10)) == NEVER
    assert (await caught(LeewayFork, "tailgate", STRANGER, 10)) == NEVER


def without(rule: str) -> object:
    """The decision with one of its rules answered as simpler algorithms do."""
    real = refresh_tokens.decide

    def decide(session: object, token: object, client: Client, now: float, policy: Policy) -> refresh_tokens.Outcome:
        outcome = real(session, token, client, now, policy)  # type: ignore[arg-type]
        match rule, outcome:
            case "converge", refresh_tokens.Repeated():
                return refresh_tokens.Stolen("none is repeated")
            case "split", refresh_tokens.Replayed():
                return refresh_tokens.Stolen("no lost answer is believed")
            case "losing sibling", refresh_tokens.Stolen("R4"):
                return refresh_tokens.Repeated(session.generation, session.sibling)  # type: ignore[attr-defined]
        return outcome

    return decide


@pytest.mark.parametrize(("rule", "scenario"), [("converge", SCENARIOS[3]), ("split", SCENARIOS[2])])
async def test_the_simulator_notices_a_missing_rule(
    store: SqliteStore, rule: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables can fail: without convergence or without the split, honest sessions are lost."""
    monkeypatch.setattr(refreshing, "decide", without(rule))
    assert await false_logouts(partial(Dutchdoor, store), scenario, 30, 32) > 0


async def test_the_simulator_notices_a_forgiven_sibling(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables can fail: without the proof by a losing sibling, a thief in lock-step stays in."""
    monkeypatch.setattr(refreshing, "decide", without("losing sibling"))
    assert (await caught(partial(Dutchdoor, store), "late", VICTIM, 6)).share < ALL
