"""SQLite and `kill -9`: a handful in `make test`, by the hundred in `make soak` (I-09, I-10)."""

from __future__ import annotations

import sqlite3
from functools import partial

import pytest

from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.testing.conformance.processes import (
    a_commit_is_seen_by_every_process,
    an_acknowledged_commit_survives_kill,
    contests_have_one_winner_over_processes,
)


def assert_intact(path):
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    # The partial index holds what it should, which integrity_check does not count.
    indexed = "SELECT count(*) FROM sessions INDEXED BY sessions_not_ended WHERE ended_at IS NULL AND account > 0"
    live = "SELECT count(*) FROM sessions NOT INDEXED WHERE ended_at IS NULL"
    assert connection.execute(indexed).fetchone() == connection.execute(live).fetchone()
    connection.close()


def test_ten_kills(tmp_path):
    """I-09, I-10: no acknowledged commit is lost and none is half there, however often the writer is killed."""
    path = tmp_path / "test.db"
    an_acknowledged_commit_survives_kill(partial(SqliteStore, path), kills=10, seed=2)
    assert_intact(path)


@pytest.mark.soak
def test_five_hundred_kills(tmp_path):
    """I-09, I-10: the same, five hundred times, on ten files."""
    for seed in range(10):
        path = tmp_path / f"{seed}.db"
        an_acknowledged_commit_survives_kill(partial(SqliteStore, path), kills=50, seed=seed)
        assert_intact(path)


@pytest.mark.soak
def test_twenty_thousand_reads_elsewhere(tmp_path):
    """I-01: what was answered to one process as done, another sees, over and over while a third writes."""
    a_commit_is_seen_by_every_process(partial(SqliteStore, tmp_path / "test.db"), rounds=20_000)


@pytest.mark.soak
def test_fifty_races(tmp_path):
    """I-17: every race over four processes has one winner, in fifty tries."""
    for n in range(50):
        contests_have_one_winner_over_processes(partial(SqliteStore, tmp_path / f"{n}.db"))
