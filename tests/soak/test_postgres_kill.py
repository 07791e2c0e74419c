"""PostgreSQL and `kill -9`, of our processes and of the whole server: a handful in `make test`, by the hundred in
`make soak` (I-09, I-10).
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from tests.backing import a_postgres, new_database
from tests.stores.postgres import kill_server

from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.testing.conformance.processes import (
    a_commit_is_seen_by_every_process,
    an_acknowledged_commit_survives_kill,
    contests_have_one_winner_over_processes,
)


@pytest.mark.soak
def test_five_hundred_kills():
    """I-09, I-10: no acknowledged commit is lost and none is half there, however often a process is killed."""
    for seed in range(10):
        with new_database() as url:
            an_acknowledged_commit_survives_kill(partial(PostgresStore, url), kills=50, seed=seed)


@pytest.mark.soak
def test_five_hundred_kills_of_the_server():
    """I-09, I-10: the same, where it is every process of the server that is killed, in the middle of commits."""
    with a_postgres() as server:
        for seed in range(10):
            name = f"killed{seed}"
            server.sql(f"CREATE DATABASE {name}")
            server.own = server.url(name)
            asyncio.run(kill_server(server, kills=50, seed=seed))


@pytest.mark.soak
def test_ten_thousand_reads_elsewhere():
    """I-01: what was answered to one process as done, another sees, over and over while a third writes."""
    with new_database() as url:
        a_commit_is_seen_by_every_process(partial(PostgresStore, url), rounds=10_000)


@pytest.mark.soak
def test_fifty_races():
    """I-17: every race over four processes has one winner, in fifty tries."""
    for _ in range(50):
        with new_database() as url:
            contests_have_one_winner_over_processes(partial(PostgresStore, url))
