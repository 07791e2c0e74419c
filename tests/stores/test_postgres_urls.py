"""URLs of PostgreSQL that are wrong, as an administrator writes them at the first set-up."""

from __future__ import annotations

import re
import ssl
import traceback
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import asyncpg
import pytest
from tests.backing import PASSWORD, new_database

from dutchdoor.errors import Conflict, InvalidInput, Misconfigured, Unavailable
from dutchdoor.stores.postgres import PostgresStore, connection, from_url
from dutchdoor.stores.postgres import url as url_of
from dutchdoor.stores.postgres.failures import meant
from dutchdoor.stores.urls import make_store, naming


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


@pytest.mark.parametrize(
    ("said", "url"),
    [
        (
            "PostgreSQL at 127.0.0.1:1, database door: no server listens at this address",
            "postgresql://door:hush@127.0.0.1:1/door",
        ),
        ("PostgreSQL at nowhere.invalid, database door: ", "postgresql://door:hush@nowhere.invalid/door"),
        ("password authentication failed for user", "HERE"),
    ],
)
async def test_an_address_without_a_server_is_named_and_no_password(said, url, postgres_url):
    """Who set a wrong host, port or password reads which server it was, and reads no password."""
    url = postgres_url.replace(PASSWORD, "hush") if url == "HERE" else url
    with pytest.raises((Misconfigured, Unavailable)) as refused, naming(url):
        await from_url(url).open()
    assert said in refused.value.reason
    assert "hush" not in refused.value.reason


async def test_who_embeds_it_reads_the_reason_in_the_traceback(postgres_url):
    """An application that opens a database which is not there ends in a traceback that says so."""
    with pytest.raises(Misconfigured) as refused:
        await PostgresStore(f"{postgres_url}_absent").open()
    assert "does not exist" in "".join(traceback.format_exception(refused.value))


async def test_a_database_of_another_encoding_is_named():
    """Of the two databases of a move the one that cannot be used is said."""
    with new_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as url:
        with pytest.raises(Misconfigured) as refused, naming(url):
            await from_url(url).open()
        assert url.rpartition("/")[2] in refused.value.reason
        assert "LATIN1" in refused.value.reason


async def test_an_error_about_a_role_names_the_missing_right(postgres_url):
    """A right that is missing is said, and which one."""
    role = f"guest_{uuid4().hex}"
    admin = await asyncpg.connect(postgres_url)
    try:
        await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        with pytest.raises(Misconfigured) as refused:
            await from_url(postgres_url.replace("//postgres:", f"//{role}:")).open()
        assert "GRANT CREATE ON DATABASE" in refused.value.reason
    finally:
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()


@pytest.mark.parametrize("option", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_file_that_is_not_there_is_named_before_anything_is_called(option):
    """`dutchdoor check`, which connects to no server, reports it too."""
    with pytest.raises(Misconfigured, match=f"{option}.*/nowhere/file.pem"):
        from_url(f"postgresql://door@db/door?sslmode=verify-full&{option}=/nowhere/file.pem")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+asyncpg://door:hush@db/door", r"Write postgresql://\.$"),
        ("door.db", "begins with sqlite:/// or postgresql://"),
        ("db:5432/door", "begins with sqlite:/// or postgresql://"),
    ],
)
def test_a_url_as_others_write_it_is_refused_with_ours(url, said):
    """Who copies the URL of another program, or writes no URL, reads how it begins here."""
    with pytest.raises(Misconfigured, match=said) as refused:
        make_store(url)
    assert "hush" not in str(refused.value)


HOSTED = (
    "?sslmode=prefer&channel_binding=prefer&connect_timeout=10&application_name=shop&gssencmode=disable"
    "&target_session_attrs=read-write&client_encoding=UTF8&keepalives=1&keepalives_idle=30&tcp_user_timeout=5000"
    "&options=-c%20work_mem%3D5MB"
)


async def test_p13_a_url_as_hosting_providers_write_it_is_used(postgres_url):
    """`postgres://` and the options of libpq that providers put into DATABASE_URL have their meaning: a connection has
    that name and those settings of the server, and our own settings stay.
    """
    url = postgres_url.replace("postgresql://", "postgres://") + HOSTED
    store = make_store(url)
    await store.open()
    try:
        asked = "SELECT current_setting('application_name'), current_setting('work_mem'), current_setting('jit')"
        assert [tuple(row) for row in await store._all(asked)] == [("dutchdoor shop", "5MB", "off")]
        with pytest.raises(Conflict, match="Another process has this database open"):
            await make_store(postgres_url).open(to_move=True)
    finally:
        await store.close()
    with pytest.raises(Misconfigured) as refused, naming(f"{url}_absent"):
        await make_store(url.replace("?", "_absent?")).open()
    assert "PostgreSQL at 127.0.0.1" in refused.value.reason


async def test_p13_what_stands_in_the_options_counts(postgres_url):
    """Host, user and password may be options, as libpq has them; a host there counts for more than one before it."""
    parts = urlsplit(postgres_url)
    options = f"host={parts.hostname}&port={parts.port}&user={parts.username}&password={parts.password}"
    store = make_store(f"postgres://nowhere.invalid{parts.path}?{options}")
    await store.open()
    await store.close()


WAITS = ("", 5.0), ("0", 5.0), ("-1", 5.0), ("1", 2.0), ("3", 3.0), ("60", 5.0)


@pytest.mark.parametrize(("given", "within"), WAITS)
async def test_p13_connect_timeout_bounds_the_wait(given, within, monkeypatch):
    """A connection is waited for no longer than `connect_timeout` says, as libpq reads it, and not longer than without
    it.
    """
    bounds = []

    def noted(seconds):
        bounds.append(seconds)
        raise TimeoutError

    monkeypatch.setattr(connection.asyncio, "timeout", noted)
    with pytest.raises(Unavailable):
        await from_url(f"postgresql://door@127.0.0.1:1/door{given and '?connect_timeout='}{given}").open()
    assert bounds == [within]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("sslmode=require&channel_binding=require", "channel_binding .*sslmode=verify-full&sslrootcert=system"),
        ("target_session_attrs=standby", "target_session_attrs .*takes writes"),
        ("gssencmode=require", "gssencmode .*sslmode"),
        ("client_encoding=latin1", "client_encoding .*Leave it out"),
        ("require_auth=scram-sha-256", "require_auth .*Leave it out"),
        ("service=door", "service .*Leave it out"),
        ("dbname=other", "dbname .*behind the host"),
        ("schema=public", "schema .*dutchdoor"),
        ("connection_limit=1", "connection_limit .*Leave it out"),
        ("sslmode=require&sslrootcert=system", "sslrootcert=system .*verify-full"),
        ("connect_timeout=soon", "Write postgresql://"),
        ("pgbouncer=hush", "Write postgresql://"),
        ("password=hu&sh=1", "Write postgresql://"),
    ],
)
def test_p13_an_option_that_cannot_be_kept_is_refused_by_name(options, said):
    """What a provider's URL asks for and cannot have is refused with the option's name and what to write instead; what
    may be a part of a password is not repeated.
    """
    with pytest.raises(Misconfigured, match=said) as refused:
        make_store(f"postgres://door:hush@db/door?{options}")
    assert not {"hush", "hu", "sh"} & set(re.findall(r"\w+", str(refused.value)))


def test_p13_the_machines_authorities_are_a_file(monkeypatch):
    """`sslrootcert=system` stands for the certificates that this machine trusts, and has the server's name checked."""
    trusted = ssl.get_default_verify_paths()._replace(cafile=__file__)
    monkeypatch.setattr(url_of.ssl, "get_default_verify_paths", lambda: trusted)
    (url,) = make_store("postgres://door@db/door?sslrootcert=system")._make._urls
    assert dict(parse_qsl(urlsplit(url).query)) == {"sslmode": "verify-full", "sslrootcert": __file__}
    monkeypatch.setattr(url_of.ssl, "get_default_verify_paths", lambda: trusted._replace(cafile=None))
    with pytest.raises(Misconfigured, match="Name one"):
        make_store("postgres://door@db/door?sslrootcert=system")


@pytest.mark.parametrize(
    ("options", "by_transaction"),
    [("", False), ("?pgbouncer=true", True), ("?pgbouncer=false", False), ("?pooling=session&pgbouncer=true", False)],
)
def test_p13_pgbouncer_is_pooling_by_transaction(options, by_transaction):
    """`pgbouncer=true`, as providers of pools write it, is our `pooling=transaction`."""
    assert make_store(f"postgres://door@db/door{options}")._make.by_transaction is by_transaction


@pytest.mark.parametrize(
    "password",
    ["s3/cr3t", "123/s3cr3t", "s3?cr3t", "s3#cr3t", "s3@cr/3t", "/s3cr3t", "s3cr3t/", "a/s3cr3t?b", "s3#cr3t@/"],
)
def test_a_password_that_ends_the_host_is_named(password):
    """A / in a password, written as it is, would make its rest a database. It is said what to write, and no part of
    it is repeated.
    """
    for url in (
        f"postgresql://door:{password}@db/door",
        f"postgresql://door:{password}@db:5432,db2/door?sslmode=require",
    ):
        with pytest.raises(Misconfigured) as refused:
            from_url(url)
        assert "%2F" in str(refused.value)
        assert not {"s3", "cr3t", "123", "db2"} & set(re.findall(r"\w+", f"{refused.value!r} {refused.value.reason}"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://door:a%2Fb%3Fc%23d%40e@db/door",
        "postgresql://door:p@ss@db/door",
        "postgresql://door@db/door?sslmode=verify-full&sslrootcert={file}",
    ],
)
def test_an_escaped_password_is_no_trouble(url, tmp_path):
    """What is written as it should be is read."""
    file = tmp_path / "a@b.pem"
    file.touch()
    from_url(url.format(file=file))


async def test_an_at_in_a_password_reaches_the_server(postgres_url):
    """The last @ ends the password, as people write it, and the driver does not look for a host behind the first."""
    role, place = f"door_{uuid4().hex}", urlsplit(postgres_url)
    administrator = await asyncpg.connect(postgres_url)
    await administrator.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'p@ss@1'")
    try:
        store = from_url(f"postgresql://{role}:p@ss@1@{place.hostname}:{place.port}{place.path}")
        await store.open()
        await store.close()
    finally:
        await administrator.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await administrator.close()


async def test_a_server_without_tls_says_so(postgres_url):
    """Where TLS is asked for and not spoken, that is what is said."""
    with pytest.raises(Unavailable) as refused:
        await from_url(f"{postgres_url}?sslmode=require").open()
    assert "rejected SSL upgrade" in refused.value.reason


def test_behind_pgbouncer_the_option_is_named():
    """PgBouncer refuses the settings that a connection of ours begins with, whichever way it pools."""
    refused = asyncpg.exceptions.ProtocolViolationError("unsupported startup parameter: default_transaction_isolation")
    assert "pooling=transaction" in meant(refused).reason


async def test_a_number_that_is_too_large_is_the_callers_and_no_outage(postgres_url):
    """What the driver cannot send costs no connection."""
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
