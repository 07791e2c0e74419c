"""The laws of `dutchdoor.stores.base` as code, for authors of a store.

A law takes an open, empty store and fails with an `AssertionError`; its docstring states the law. The laws in
`SHARED_LAWS` are for stores that several processes share, or that outlive their processes. They take a factory of the
store, which must be picklable, and use the store from processes of their own.

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    async def test_law(law, tmp_path):
        store = SqliteStore(tmp_path / "test.db")
        await store.open()
        await law(store)
        await store.close()


    @pytest.mark.parametrize("law", SHARED_LAWS, ids=lambda law: law.__name__)
    def test_shared_law(law, tmp_path):
        law(partial(SqliteStore, tmp_path / "test.db"))

The laws in `MOVE_LAWS` take two empty, open stores: one to move from, and one to move into, which was opened with
`to_move=True`. Each law needs stores of its own.

The races are part of the laws; none of them depends on luck. Law 10 is about the records and not about the store. A
store's own tests must check that a commit raises `Unavailable` when its backing is gone: only they know how to take the
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
