"""A store in a file."""

from __future__ import annotations

import pytest

from dutchdoor.stores.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.db"


@pytest.fixture
async def store(path):
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()
