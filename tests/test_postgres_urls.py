"""URLs of PostgreSQL that are wrong, as somebody meets them who sets it up for the first time."""

from __future__ import annotations

import asyncpg
import pytest

from dutchdoor.errors import InvalidInput, Misconfigured, Unavailable
from dutchdoor.stores.postgres import PostgresStore, _meant, from_url


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("sslmode=verify", "sslmode"),
        ("sslmode=verify-full&sslrootcert=/nowhere/root.crt", "/nowhere/root.crt|No such file"),
    ],
)
async def test_options_that_no_waiting_mends_are_named(options, said, postgres_url):
    """A wrong word or a certificate that is not there is said by its name, and never as a class of the driver's."""
    with pytest.raises((Misconfigured, Unavailable)) as refused:
        await from_url(f"{postgres_url}?{options}").open()
    assert any(word in refused.value.reason for word in said.split("|")), refused.value.reason
    assert "sslrootcert" in options or isinstance(refused.value, Misconfigured)


async def test_a_server_without_tls_says_so(postgres_url):
    """Where TLS is asked for and not spoken, that is what is said."""
    with pytest.raises(Unavailable) as refused:
        await from_url(f"{postgres_url}?sslmode=require").open()
    assert "rejected SSL upgrade" in refused.value.reason


def test_behind_pgbouncer_the_option_is_named():
    """PgBouncer refuses the settings that a connection of ours begins with, whichever way it pools."""
    refused = asyncpg.exceptions.ProtocolViolationError("unsupported startup parameter: default_transaction_isolation")
    assert "pooling=transaction" in _meant(refused).reason


async def test_a_number_that_is_too_large_is_the_callers_and_no_outage(postgres_url):
    """What the driver cannot send costs nobody a connection."""
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        await store.account("warm")
        for asked in (store.accounts(limit=2**70), store.read_log(1, 2**70), store.live_revocations("a\ud800", 0.0)):
            with pytest.raises(InvalidInput):
                await asked
        assert store._make.lost_at == 0.0
    finally:
        await store.close()
