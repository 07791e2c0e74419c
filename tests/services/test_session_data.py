"""Session data over real stores: what requests keep, what their races may do, and what is left when a session ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from tests.backing import new_database
from tests.standins import HOME, Clock, authority, make, proof_of

from dutchdoor.errors import InvalidInput, Misconfigured, TooMuchData
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.model.session_data import SessionData, StoredData, VisitorToken, joined
from dutchdoor.model.sessions import Session
from dutchdoor.services.session_data import MERGES
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Remove
from dutchdoor.stores.postgres import PostgresStore

AT_ONCE = 12


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite", "postgres"])
async def over(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, patience: None
) -> AsyncIterator[Authority]:
    with new_database() as url:
        store = PostgresStore(url) if request.param == "postgres" else make(request.param, tmp_path)
        made = authority(store, clock)
        await made.open()
        try:
            await made.provide("alice")
            yield made
        finally:
            await made.close()


async def begin(
    over: Authority, mode: Literal["session", "hybrid"] = "session", subject: str = "alice", **more: Any
) -> Session:
    started = await over.start(await proof_of(over, subject), mode=mode, client=HOME, **more)
    assert started.session is not None
    return started.session


async def of(over: Authority, session: Session) -> SessionData:
    return await over.data.of_session(session.id, session.subject)


async def keep(over: Authority, session: Session, **values: object) -> None:
    data = await of(over, session)
    data.update(values)
    assert await over.data.save(data) == "keep"


async def kept(over: Authority, session: Session) -> dict[str, Any]:
    return dict(await of(over, session))


async def a_visitor(over: Authority, **values: object) -> VisitorToken:
    data = await over.data.of_visitor()
    data.update(values)
    assert await over.data.save(data) == "set"
    assert data.token is not None
    return data.token


async def kept_for(over: Authority, visitor: VisitorToken) -> dict[str, Any]:
    return dict(await over.data.of_visitor(visitor.text()))


async def rows(over: Authority) -> int:
    return (await over.store.counts())["session_data"]


async def test_values_are_kept_for_the_next_request(over: Authority) -> None:
    """What JSON can hold comes back; what is nested may be changed in place; what is deleted is gone; an unchanged
    request writes nothing.
    """
    session = await begin(over)
    values = {
        "text": "Zoë \0\1 \u2028",
        "number": 1.5,
        "big": 2**70,
        "none": None,
        "nested": {"list": [1, {"a": True}]},
    }
    await keep(over, session, **values)
    data = await of(over, session)
    assert (dict(data), len(data), "text" in data, "other" in data) == (values, 5, True, False)
    data["nested"]["list"].append(2)
    del data["text"]
    assert data.pop("number") == 1.5
    await over.data.save(data)
    data = await of(over, session)
    assert dict(data) == {"big": 2**70, "none": None, "nested": {"list": [1, {"a": True}, 2]}}
    assert data.record is not None
    assert data.get("nested") == {"list": [1, {"a": True}, 2]}
    data["none"] = None
    await over.data.save(data)
    assert (await of(over, session)).record == data.record, "what was read only, or set to what it was, is not written"
    data.clear()
    await over.data.save(data)
    assert (await kept(over, session), await rows(over)) == ({}, 0)


async def test_requests_at_once_that_change_different_keys_lose_nothing(over: Authority) -> None:
    """Each request applies only what it changed to the newest data, whether that was there before or not."""
    session = await begin(over)
    visitor = await a_visitor(over, first=True)

    async def add(name: str, load: Callable[[], Awaitable[SessionData]]) -> None:
        data = await load()
        await barrier.wait()
        data[name] = [name]
        await over.data.save(data)

    barrier = asyncio.Barrier(2 * AT_ONCE)
    work = [add(f"key {n}", lambda: of(over, session)) for n in range(AT_ONCE)]
    work += [add(f"key {n}", lambda: over.data.of_visitor(visitor.text())) for n in range(AT_ONCE)]
    await asyncio.gather(*work)
    wanted: dict[str, Any] = {f"key {n}": [f"key {n}"] for n in range(AT_ONCE)}
    assert await kept(over, session) == wanted
    assert await kept_for(over, visitor) == {"first": True, **wanted}
    one, other = await of(over, session), await of(over, session)
    one["key 0"], other["key 0"] = "one", "other"
    del other["key 1"]
    one["new"] = 1
    await over.data.save(one)
    await over.data.save(other)
    found = await kept(over, session)
    assert (found["key 0"], "key 1" in found, found["new"]) == ("other", False, 1)


async def test_a_crowd_of_requests_is_stored(over: Authority) -> None:
    """More requests at once than a write is tried: none of them gives up, because they take turns."""
    session = await begin(over)
    crowd = [await of(over, session) for _ in range(MERGES + 16)]
    for n, data in enumerate(crowd):
        data[f"key {n}"] = n
    await asyncio.gather(*map(over.data.save, crowd))
    assert len(await kept(over, session)) == len(crowd)


async def test_a_visitors_data_moves_to_the_session(over: Authority) -> None:
    """A basket survives the sign-in under a new id: the visitor's record is gone, and its token finds nothing."""
    for mode in ("session", "hybrid"):
        visitor = await a_visitor(over, basket=["tea"])
        session = await begin(over, mode, visitor=visitor.text())
        assert await kept(over, session) == {"basket": ["tea"]}
        assert await kept_for(over, visitor) == {}
        await over.end(session.id, client=HOME, actor="alice")
    assert await rows(over) == 0
    visitor = await a_visitor(over, basket=["tea"])
    started = await over.start(await proof_of(over), mode="jwt", client=HOME, visitor=visitor.text())
    assert started.visitor_moved is False
    assert await kept_for(over, visitor) == {"basket": ["tea"]}, "a stateless token has no session"


async def test_a_write_during_a_sign_in_is_not_lost(over: Authority) -> None:
    """A visitor's request that writes while the visitor signs in is moved, or gets a record of its own."""
    for n in range(AT_ONCE):
        visitor = await a_visitor(over, basket=["tea"])
        data = await over.data.of_visitor(visitor.text())
        data["late"] = n
        signing = begin(over, visitor=visitor.text())
        session, _ = await asyncio.gather(signing, over.data.save(data))
        found = await kept(over, session)
        assert found["basket"] == ["tea"]
        assert data.token is not None
        if "late" not in found:
            assert data.token.text() != visitor.text(), "an id that others may know is never used again"
            assert await kept_for(over, data.token) == {"late": n}


async def test_a_sign_in_anew_keeps_the_data_of_the_same_account_alone(over: Authority) -> None:
    """A session that another one of its account replaces passes its data on; one of another account does not."""
    await over.provide("bob")
    first = await begin(over)
    await keep(over, first, basket=["tea"], page=1)
    visitor = await a_visitor(over, page=2)
    found = await over.store.session(first.id)
    assert found is not None
    second = await begin(over, replacing=[found], visitor=visitor.text())
    assert await kept(over, second) == {"basket": ["tea"], "page": 2}
    third = await begin(over, inside=second)
    assert await kept(over, third) == {"basket": ["tea"], "page": 2}
    found = await over.store.session(third.id)
    assert found is not None
    theirs = await begin(over, subject="bob", replacing=[found])
    assert (await kept(over, theirs), await rows(over)) == ({}, 0)


async def test_every_end_of_a_session_leaves_no_data(over: Authority, clock: Clock) -> None:
    """Log-out, the end of all or of the other sessions, theft, removal and expiry: no data is left."""

    async def theft() -> None:
        await over.end(session.id, client=HOME, actor="alice")
        started = await over.start(await proof_of(over), mode="hybrid", client=HOME)
        assert started.session is not None
        await keep(over, started.session, secret=1)
        newest = started
        for _ in range(3):
            clock.forward(STANDARD.refresh_window * 2)
            newest = await over.refresh(newest.refresh_token, HOME)
        with pytest.raises(Exception, match="not valid"):
            await over.refresh(started.refresh_token, HOME)

    async def others() -> None:
        await over.end_others("alice", (await begin(over)).id, client=HOME)

    async def removal() -> None:
        account = await over.store.account("alice")
        assert account is not None
        await over.store.commit(Remove(account))
        await over.provide("alice")

    async def expiry() -> None:
        clock.forward(STANDARD.absolute_for + DAY)
        await over.tidy()

    session = await begin(over)
    ways: list[Callable[[], Awaitable[object]]] = [
        lambda: over.end(session.id, client=HOME, actor="alice"),
        lambda: over.end_all("alice", client=HOME, actor="alice"),
        lambda: over.end_everything(client=HOME, actor="an administrator"),
        others, theft, removal, expiry,
    ]  # fmt: skip
    for way in ways:
        session = await begin(over)
        await keep(over, session, secret=1)
        assert await rows(over) >= 1
        await way()
        assert (await kept(over, session), await rows(over)) == ({}, 0), way


async def test_the_kept_session_keeps_its_data(over: Authority) -> None:
    """When the other sessions end, this one's data stays."""
    session, other = await begin(over), await begin(over)
    await keep(over, session, basket=["tea"])
    await keep(over, other, basket=["coffee"])
    await over.end_others("alice", session.id, client=HOME)
    assert (await kept(over, session), await kept(over, other)) == ({"basket": ["tea"]}, {})


async def test_a_request_that_runs_while_its_session_ends_brings_nothing_back(over: Authority) -> None:
    """The write comes before the end, which deletes it, or it is dropped: first writes and later ones, of a session and
    of a removed account.
    """
    ends: list[Callable[[Session], Awaitable[object]]] = [
        lambda session: over.end(session.id, client=HOME, actor="alice"),
        lambda session: over.end_all(session.subject, client=HOME, actor="alice"),
    ]
    for n in range(AT_ONCE):
        session = await begin(over)
        if n % 3:
            await keep(over, session, first=1)
        data = await of(over, session)
        data["late"] = n
        if n % 4 == 3:
            await ends[n % 2](session)
            await over.data.save(data)
        else:
            await asyncio.gather(over.data.save(data), ends[n % 2](session))
        assert (await kept(over, session), await rows(over)) == ({}, 0)
    session = await begin(over)
    data = await of(over, session)
    account = await over.store.account("alice")
    assert account is not None
    await over.store.commit(Remove(account))
    data["late"] = 1
    await over.data.save(data)
    assert await rows(over) == 0


async def test_an_id_that_was_not_issued_here_never_becomes_a_key(over: Authority) -> None:
    """Session fixation: what a client makes up, what has expired, and the id of a session find nothing, and what is
    stored then has an id of its own.
    """
    session = await begin(over)
    await keep(over, session, secret=1)
    mine = await a_visitor(over, basket=["tea"])
    for text in (
        "",
        "x" * 53,
        "ddv1_" + "A" * 48,
        VisitorToken.mint(session.id).text(),
        VisitorToken.mint(mine.id).text(),
        mine.text()[:-1] + ("A" if mine.text()[-1] != "A" else "B"),
    ):
        data = await over.data.of_visitor(text)
        assert dict(data) == {}
        data["planted"] = 1
        assert await over.data.save(data) == "set"
        assert data.token is not None
        assert data.token.text() != text
        assert data.token.id not in {session.id, mine.id}
    assert await kept_for(over, mine) == {"basket": ["tea"]}
    assert await kept(over, session) == {"secret": 1}
    records = await over.store.select(StoredData)
    assert not any(mine.text() in repr(record) + record.data for record in records), "the token is nowhere"
    assert '"tea"' not in repr(records), "nor is data in a log"


async def test_a_visitors_data_expires_when_it_is_idle(over: Authority, clock: Clock) -> None:
    """Each visit extends it, at most once a day; after the idle time it is as if it had never been there."""
    visitor = await a_visitor(over, basket=["tea"])
    data = await over.data.of_visitor(visitor.text())
    data["basket"].append("milk")
    assert await over.data.save(data) == "keep", "the cookie is not set anew with each write"
    clock.forward(DAY + 1)
    assert await over.data.save(await over.data.of_visitor(visitor.text())) == "set", "reading extends it, too"
    clock.forward(STANDARD.visitor_data_for - 1)
    assert await kept_for(over, visitor) == {"basket": ["tea", "milk"]}
    clock.forward(2)
    assert await kept_for(over, visitor) == {}
    clock.forward(DAY)
    await over.tidy()
    assert await rows(over) == 0
    visitor = await a_visitor(over, a=1)
    data = await over.data.of_visitor(visitor.text())
    data.clear()
    assert (await over.data.save(data), await rows(over)) == ("clear", 0)


async def test_data_is_bounded(over: Authority) -> None:
    """Too much is refused where it is set or when it is stored, and nothing is written; it may then shrink."""
    session = await begin(over)
    await keep(over, session, a="x" * 40_000, c="x" * 2000)
    data = await of(over, session)
    with pytest.raises(TooMuchData):
        data["b"] = "x" * 70_000
    data["b"] = "x" * 40_000
    with pytest.raises(TooMuchData) as refused:
        await over.data.save(data)
    assert (refused.value.at_most, "session_data_at_most" in refused.value.reason) == (65_536, True)
    assert isinstance(refused.value, InvalidInput)
    assert list(await kept(over, session)) == ["a", "c"]
    less = authority(over.store, over.clock, replace(over.policy, session_data_at_most=1024))  # type: ignore[arg-type]
    smaller = await less.data.of_session(session.id, "alice")
    smaller["a"] = smaller["a"][:1000]
    await less.data.save(smaller)
    assert len((await kept(over, session))["a"]) == 1000
    with pytest.raises(Misconfigured, match="session_data_at_most"):
        replace(over.policy, session_data_at_most=10)


async def test_what_does_not_fit_does_not_stop_a_sign_in(over: Authority) -> None:
    """A visitor's basket and the session's data together may be too large: then keys are left out."""
    session = await begin(over)
    await keep(over, session, a="x" * 40_000)
    visitor = await a_visitor(over, b="y" * 40_000, c=1)
    found = await over.store.session(session.id)
    assert found is not None
    assert set(await kept(over, await begin(over, replacing=[found], visitor=visitor.text()))) == {"a", "c"}


def test_joining_counts_exactly() -> None:
    """Data that fits to the byte is joined whole, and a key that a later record has replaces the earlier."""
    assert joined(['{"a":1}', '{"b":"xy"}'], 16) == '{"a":1,"b":"xy"}'
    assert joined(['{"a":1}', '{"b":"xy"}'], 15) == '{"a":1}'
    assert joined(['{"a":[1,2,3]}', '{"a":1}', '{"b":2}'], 13) == '{"a":1,"b":2}'


NOT_JSON = [{1, 2}, object(), float("nan"), b"bytes", "\ud800", 1j]


@pytest.mark.parametrize("value", NOT_JSON, ids=lambda value: type(value).__name__)
def test_what_is_not_json_is_refused_where_it_is_set(value: object) -> None:
    """A value that would come back as another, or not at all, is refused with its key."""
    data = SessionData(None, at_most=1000)
    with pytest.raises(TypeError, match="'basket' is not JSON"):
        data["basket"] = value
    data["basket"] = []
    data["basket"].append(value)
    with pytest.raises(TypeError, match="'basket' is not JSON"):
        data.changes()
    with pytest.raises(TypeError, match="is text"):
        data[1] = 1  # type: ignore[index]
