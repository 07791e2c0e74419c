"""A store over PostgreSQL, another client beside it, a server that may be killed, and a client of Redis."""

from __future__ import annotations

import random

import asyncpg
import pytest
import redis.asyncio
from tests.backing import a_postgres
from tests.stores.postgres import patiently
from tests.stores.valkey import PATIENCE

from dutchdoor.stores import redis_connection
from dutchdoor.stores.postgres import PostgresStore


@pytest.fixture
async def store(postgres_url):
    store = PostgresStore(postgres_url)
    await patiently(store.open)
    yield store
    await store.close()


@pytest.fixture
async def beside(postgres_url):
    """A connection of another client."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    connection.terminate()


@pytest.fixture(scope="session")
def one_server():
    with a_postgres() as server:
        yield server


@pytest.fixture
def server(one_server):
    """A server that may be stopped and killed, with a database that the test has to itself: `server.own`."""
    name = f"own_{random.randrange(10**12)}"
    one_server.sql(f"CREATE DATABASE {name}")
    one_server.own = one_server.url(name)
    yield one_server
    if not one_server.is_running():
        one_server.start()
    one_server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def patient_links(monkeypatch):
    """Wait for an answer of Redis as long as it takes: a busy machine is no outage."""
    monkeypatch.setattr(redis_connection, "TRY_FOR", PATIENCE)


@pytest.fixture
async def emptied(valkey_url):
    """A client of Redis without a store."""
    client = redis.asyncio.Redis.from_url(valkey_url)
    yield client
    await client.aclose()
