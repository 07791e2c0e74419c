"""The laws of `dutchdoor.stores.base` as code, for whoever writes a store.

A law takes an open, empty store and fails by an `AssertionError`; its docstring names the law it holds. Those in
`SHARED_LAWS` are for stores that several processes share, or that outlive theirs: they take what makes the store,
something that can be pickled, and try it from processes of their own.

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    async def test_law(law, tmp_path):
        store = SqliteStore(tmp_path / "test.db")
        await store.open()
        await law(store)
        await store.close()


    @pytest.mark.parametrize("law", SHARED_LAWS, ids=lambda law: law.__name__)
    def test_shared_law(law, tmp_path):
        law(partial(SqliteStore, tmp_path / "test.db"))

Those in `MOVE_LAWS` take two empty stores, one to move from and one to move into, opened both; the second with
`to_move=True`. Each wants stores of its own.

The races are part of the law; none of it waits for luck. Law 10 is about the records and not about the store. That a
commit raises `Unavailable` when its backing is gone is for the store's own tests, who alone know how to take the
backing away.
"""

from __future__ import annotations

from dutchdoor.testing.conformance import commits, kinds, limits, log, nodes, reads
from dutchdoor.testing.conformance.processes import SHARED_LAWS, an_acknowledged_commit_survives_kill
from dutchdoor.testing.conformance.samples import (
    AT_ONCE,
    FAST,
    NOW,
    PATIENCE,
    SLOW,
    Law,
    MakeStore,
    MoveLaw,
    SharedLaw,
    World,
    a_client,
    a_credential,
    a_key,
    a_revocation,
    a_row,
    a_session,
    a_token,
    a_verifier,
    an_account,
    an_event,
    first,
    how_many_succeed,
    is_refused,
    the_log,
    tokens_of,
)
from dutchdoor.testing.conformance.transfer import MOVE_LAWS, log_state

__all__ = [
    "AT_ONCE",
    "FAST",
    "LAWS",
    "MOVE_LAWS",
    "NOW",
    "PATIENCE",
    "SHARED_LAWS",
    "SLOW",
    "Law",
    "MakeStore",
    "MoveLaw",
    "SharedLaw",
    "World",
    "a_client",
    "a_credential",
    "a_key",
    "a_revocation",
    "a_row",
    "a_session",
    "a_token",
    "a_verifier",
    "an_account",
    "an_acknowledged_commit_survives_kill",
    "an_event",
    "first",
    "how_many_succeed",
    "is_refused",
    "log_state",
    "the_log",
    "tokens_of",
]

LAWS: tuple[Law, ...] = (
    *kinds.LAWS, *commits.LAWS, *reads.LAWS, *log.LAWS, *nodes.LAWS, *limits.LAWS,
)  # fmt: skip
