"""Every store obeys every law of `dutchdoor.store`."""

from __future__ import annotations

import multiprocessing
from functools import partial

import pytest

from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.testing.store_laws import LAWS, SHARED_LAWS

# Processes that have imported this much start in a hundredth of a second.
multiprocessing.get_context("forkserver").set_forkserver_preload(["pytest", "dutchdoor.testing.store_laws"])


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "test.db")
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
async def test_law(store, law):
    """A store obeys the law, tasks that race included."""
    await law(store)


@pytest.mark.parametrize("law", SHARED_LAWS, ids=lambda law: law.__name__)
def test_shared_law(law, tmp_path):
    """A store that processes share obeys the law over processes, those that are killed included."""
    law(partial(SqliteStore, tmp_path / "test.db"))
