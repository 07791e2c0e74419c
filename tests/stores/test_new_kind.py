"""A new kind of record is one description and one migration for each dialect of SQL, and no other edit."""

from __future__ import annotations

import re
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace
from tests.backing import new_database, shared_valkey

from dutchdoor.errors import Misconfigured
from dutchdoor.model.accounts import Credential
from dutchdoor.stores.base import Add, Expect, Remove, Swap, Take
from dutchdoor.stores.kinds import KINDS, Kind, Kinds
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.redis import around
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.testing.conformance import LAWS, MOVE_LAWS, NOW, SHARED_LAWS, a_credential, an_account
from dutchdoor.testing.conformance.kinds import LAWS as LAWS_OF_KINDS
from dutchdoor.testing.conformance.kinds import a_record

pytestmark = pytest.mark.usefixtures("patience")  # a busy machine is no outage


class Badge(Struct, frozen=True, kw_only=True):
    """Made up, from outside the package."""

    id: str
    number: int
    shelf: str
    code: str
    subject: str
    picture: bytes
    note: str | None
    expires_at: float
    revision: int = 0


BADGE = Kind(
    record=Badge,
    table="badges",
    unique=(("number",), ("shelf", "code")),
    indexes=(("subject",),),
    owner="subject",
    ids=("id",),
    expires="expires_at",
    order=("number",),
)
WITH_BADGES = KINDS.plus(BADGE, migrations=Path(__file__).parent / "badges")


def making(place: str, folder: Path, stack: ExitStack, kinds: Kinds = WITH_BADGES):
    if place == "memory":
        return partial(MemoryStore, kinds=kinds, clock=lambda: NOW - 1e6)
    if place == "sqlite":
        return partial(SqliteStore, folder / "test.db", kinds=kinds)
    url = stack.enter_context(new_database())
    if place == "postgres":
        return partial(PostgresStore, url, kinds=kinds)
    return lambda: around(PostgresStore(url, kinds=kinds), shared_valkey())


@asynccontextmanager
async def opened(store, **how):
    await store.open(**how)
    try:
        yield store
    finally:
        await store.close()


def tried(place: str, law):
    """A law and a place. A short run has only what is about kinds: `test_store_laws.py` and `test_redis.py` have all
    laws without the new kind.
    """
    marks = [] if law in LAWS_OF_KINDS and place != "valkey" else pytest.mark.long
    return pytest.param(place, law, id=f"{law.__name__}-{place}", marks=marks)


@pytest.mark.parametrize(
    ("place", "law"),
    [
        tried(place, law)
        for law in LAWS
        for place in ("memory", "sqlite", "postgres", "valkey")
        if place != "valkey" or law in LAWS_OF_KINDS
    ],
)
async def test_law_with_a_new_kind(law, place, tmp_path):
    """A store that keeps one more kind obeys every law, for that kind as for the others."""
    with ExitStack() as stack:
        async with opened(making(place, tmp_path, stack)()) as store:
            await law(store)


@pytest.mark.long
@pytest.mark.parametrize("place", ["sqlite", "postgres"])
@pytest.mark.parametrize("law", SHARED_LAWS, ids=lambda law: law.__name__)
def test_shared_law_with_a_new_kind(law, place, tmp_path):
    """Processes that share a store with one more kind obey the laws over processes."""
    with ExitStack() as stack:
        law(making(place, tmp_path, stack))


@pytest.mark.parametrize(
    "places",
    [
        ("sqlite", "postgres"),
        pytest.param(("memory", "sqlite"), marks=pytest.mark.long),
        pytest.param(("postgres", "sqlite"), marks=pytest.mark.long),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("law", MOVE_LAWS, ids=lambda law: law.__name__)
async def test_move_law_with_a_new_kind(law, places, tmp_path):
    """A new kind moves with all others, in both directions."""
    with ExitStack() as stack:
        folders = [tmp_path / "from", tmp_path / "to"]
        for folder in folders:
            folder.mkdir()
        source, target = (making(place, folder, stack)() for place, folder in zip(places, folders, strict=True))
        async with opened(source), opened(target, to_move=True):
            await law(source, target)


async def test_a_program_without_the_kind_runs_beside_the_newer_schema(tmp_path):
    """Rolling upgrade: the older program reads and writes as before, and with an account that it removes the records go
    that it does not know of.
    """
    with new_database() as url:
        async with opened(PostgresStore(url, kinds=WITH_BADGES)) as newer, opened(PostgresStore(url)) as older:
            ada, bob = an_account("ada"), an_account("bob")
            mine, theirs = a_record(BADGE, 1, subject=ada.subject), a_record(BADGE, 2, subject=bob.subject)
            await newer.commit(Add(ada), Add(bob), Add(mine), Add(theirs))
            await older.commit(Expect(ada.subject, 0), Add(a_credential(ada)))
            await older.commit(Swap(replace(a_credential(ada), proof="another")))
            credential = await newer.get(Credential, ada.subject, "password", "")
            assert credential is not None
            assert credential.proof == "another"
            await older.commit(Remove(ada))
            assert await newer.select(Badge) == [theirs]
            assert "badges" not in await older.counts()
            with pytest.raises(TypeError, match="Badge is not kept"):
                await older.get(Badge, mine.id)


async def test_a_column_of_a_newer_version_keeps_its_default(tmp_path):
    """Rolling upgrade: a newer migration adds a column; the older program adds, swaps and moves records without it."""
    with ExitStack() as stack:
        make = making("postgres", tmp_path, stack)
        async with opened(make()) as store:
            await store._all("ALTER TABLE dutchdoor.badges ADD COLUMN later text NOT NULL DEFAULT 'none yet'")
            await store._all("ALTER TABLE dutchdoor.credentials ADD COLUMN later text NOT NULL DEFAULT 'none yet'")
            badge, ada = a_record(BADGE, 1), an_account()
            await store.commit(Add(badge), Swap(replace(badge, note="new")), Add(ada), Add(a_credential(ada)))
            assert await store.select(Badge) == [replace(badge, note="new", revision=1)]
            (row,) = await store._all("SELECT later FROM dutchdoor.badges")
            assert row[0] == "none yet"


async def test_a_program_without_the_kind_moves_nothing(tmp_path):
    """The records of a kind that a program does not know would stay behind: it refuses to move the database."""
    with new_database() as url:
        async with opened(PostgresStore(url, kinds=WITH_BADGES)):
            pass
        with pytest.raises(Misconfigured, match="badges"):
            await PostgresStore(url).open(to_move=True)
    async with opened(SqliteStore(tmp_path / "test.db", kinds=WITH_BADGES)):
        pass
    with pytest.raises(Misconfigured, match="newer than this program"):
        await SqliteStore(tmp_path / "test.db").open()


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": ()}, {"key": ("nothing",)}, {"key": ("note",)}, {"key": ("picture",)}, {"unique": (("picture",),)},
        {"owner": "note"}, {"owner": "number"}, {"expires": "number"}, {"ids": ("number",)}, {"order": ("note",)},
        {"table": "Badges"}, {"table": 'b"; DROP TABLE accounts; --'}, {"indexes": (("missing",),)},
    ],
    ids=str,
)  # fmt: skip
def test_a_description_fits_its_record(wrong):
    """A description that names a field which is not there, or which no column can hold so, is refused."""
    with pytest.raises(TypeError):
        replace(BADGE, **wrong)


def test_two_kinds_share_no_table():
    """Two kinds of one record or one table are refused: each would delete the rows of the other."""
    for kind in (
        BADGE,
        replace(
            BADGE,
            record=Credential,
            table="others",
            key=("subject",),
            unique=(),
            owner="",
            ids=(),
            expires="",
            order=(),
        ),
    ):
        with pytest.raises(TypeError, match="one table, or one record"):
            WITH_BADGES.plus(kind, migrations=Path())


PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "stores.md"


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
async def test_the_page_about_stores_is_true(place, tmp_path, monkeypatch):
    """The example of the page works as it stands: its description, both its migrations, and its reads and changes."""
    declared, used = re.findall(r"```py(?:thon)?\n(.*?)```", PAGE.read_text(), re.DOTALL)[:2]
    scripts = dict(
        zip(("sqlite", "postgres"), re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL), strict=True)
    )
    for dialect, text in scripts.items():
        (tmp_path / "migrations" / dialect).mkdir(parents=True)
        (tmp_path / "migrations" / dialect / "badges_0001.sql").write_text(text)
    monkeypatch.chdir(tmp_path)
    names = {"Add": Add, "Swap": Swap, "Take": Take, "replace": replace}
    exec(declared, names)
    account = an_account()
    names |= {"account": account, "badge": names["Badge"](id="b", subject=account.subject, number=7)}
    expected = [None, names["badge"], names["badge"], [names["badge"]], None, None]
    with ExitStack() as stack:
        store = names["store"] if place == "sqlite" else making(place, tmp_path, stack, names["kinds"])()
        async with opened(store):
            names["store"] = store
            for line, value in zip(used.splitlines(), expected, strict=True):
                done = await eval(line.removeprefix("await "), names)
                assert value is None or done == value, line
                if "Swap" in line:  # the page takes what it has read last
                    assert (await store.get(names["Badge"], "b")).number == 8
