"""The URLs of Redis, its passwords and TLS: what opens it, and what no one is shown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import traceback

import pytest
import redis.asyncio
from tests.backing import a_valkey, shared_valkey
from tests.server.certificates import write_certificate
from tests.stores.valkey import SLOW, Far, a_signed_in, copied, is_counting, opened, timed, until

from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.redis import RedisStore
from dutchdoor.stores.redis_connection import Address
from dutchdoor.stores.urls import make_store, with_redis
from dutchdoor.testing.conformance import NOW

SECRET = "hunter2%40hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", Address(kind="single", hosts=(("h", 6379),))),
        ("redis://h:7/3", Address(kind="single", hosts=(("h", 7),), db=3)),
        ("redis://h?db=3", Address(kind="single", hosts=(("h", 6379),), db=3)),
        ("redis://:p%40w@[::1]:7", Address(kind="single", hosts=(("::1", 7),), password="p@w")),
        ("rediss://u:p@h", Address(kind="single", hosts=(("h", 6379),), tls=True, username="u", password="p")),
        ("unix:///run/v.sock?db=2", Address(kind="socket", path="/run/v.sock", db=2)),
        ("unix://u:p@/run/v.sock", Address(kind="socket", path="/run/v.sock", username="u", password="p")),
        (
            "redis+sentinel://u:p@a,b:7/door/4?sentinel_password=s",
            Address(
                kind="sentinel", hosts=(("a", 26379), ("b", 7)), service="door", db=4, username="u", password="p",
                sentinel_password="s",
            ),
        ),
        ("rediss+cluster://:p@a,b:7", Address(kind="cluster", hosts=(("a", 6379), ("b", 7)), tls=True, password="p")),
        ("redis+cluster://[::1]:1,[::2]", Address(kind="cluster", hosts=(("::1", 1), ("::2", 6379)))),
    ],
)  # fmt: skip
def test_urls_are_read(url, expected):
    """Each kind of URL says where Redis is."""
    assert Address.read(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://h/x", "redis://h/0/1", "redis://a,b", "redis://h?timeout=3", "redis://h#x", "redis://h:x",
        "redis+sentinel://a,b", "redis+sentinel://a,b/s/x", "redis+cluster://", "redis+cluster://a/s/0",
        "redis+cluster://a/1", "unix://", "unix://host/path", "unix:///", "http://h", "redis", "", "redis://h?db=1&db=2",
        "redis://h:99999", "unix:///run/v.sock/?db=x", "redis://a..b", "redis://.h", "redis+cluster://a,b..c",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_refused_and_not_repeated(url):
    """What may hold a password is in no message."""
    for text in (url, url.replace("://", f"://u:{SECRET}@")):
        with pytest.raises(Misconfigured) as refused:
            with_redis(MemoryStore(), text)
        assert "hunter2" not in str(refused.value) + refused.value.reason + "".join(
            traceback.format_exception(refused.value)
        )


async def test_a_password_opens_redis_and_is_shown_to_no_one(caplog):
    """A user with the commands it needs is enough; a wrong password is logged without repeating it."""
    caplog.set_level(logging.DEBUG)
    with a_valkey() as server:
        admin = redis.asyncio.Redis.from_url(server.url)
        allowed = "+@read +@write +@scripting +ping +publish +subscribe +unsubscribe +client|setinfo +select +type +del"
        await admin.execute_command(
            "ACL", "SETUSER", "door", "on", ">hunter2@hunter2", "resetkeys", "~{dd:*", "resetchannels", "&dd:*",
            "-@all", *allowed.split(),
        )  # fmt: skip
        await admin.execute_command("ACL", "SETUSER", "default", "off")
        record = Far()
        ada, session = await a_signed_in(record)
        url = f"redis://door:{SECRET}@127.0.0.1:{server.port}/0"
        async with opened(record, url) as store:
            await copied(store, ada, session)
            assert await is_counting(store)
            await store.purge(before=0, events_before=0)
            woken = []
            store.watch(lambda: woken.append(1))
            await until(lambda: woken)
            shown = [repr(store), repr(store._address), repr(store._limits._client), str(vars(store))]
        async with opened(record, url.replace("hunter2@", "hunter3@")) as store:
            refused, _ = await timed(store.hit([Bucket("slow:x", SLOW)], NOW))
            assert isinstance(refused, Unavailable)
            await until(lambda: caplog.records)
            shown += [str(refused), refused.reason, caplog.text]
        assert "hunter" not in "".join(shown)
        await admin.aclose()


async def test_a_server_that_repeats_what_it_is_sent_reveals_nothing(caplog):
    """What is no Redis, or one too old for AUTH, repeats the password in its error: none of it is passed on."""
    caplog.set_level(logging.DEBUG)

    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                writer.write(
                    b"-ERR unknown command `AUTH`, with args beginning with: `door`, `hunter2@hunter2`\r\n" * 4
                )
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(Far(), f"redis://door:{SECRET}@127.0.0.1:{port}") as store:
        refused, _ = await timed(store.hit([Bucket("slow:x", SLOW)], NOW))
        assert isinstance(refused, Unavailable)
        await until(lambda: caplog.records)
        shown = "".join(traceback.format_exception(refused)) + refused.reason + caplog.text
        assert "hunter" not in shown
    server.close()


async def test_a_socket_of_this_machine_is_enough(tmp_path):
    """unix:///path reaches a server that listens on no port."""
    path = tmp_path / "v.sock"
    with a_valkey("--unixsocket", str(path)):
        record = Far()
        ada, session = await a_signed_in(record)
        async with opened(record, f"unix://{path}?db=1") as store:
            await copied(store, ada, session)
            assert await is_counting(store)


@contextlib.asynccontextmanager
async def behind_tls(url, directory):
    """A server's port with TLS before it, for the name localhost."""
    write_certificate(directory, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    ((_, target),) = Address.read(url).hosts

    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_tls_is_spoken_with_whom_the_machine_trusts_and_with_no_one_else(valkey_url, tmp_path, monkeypatch):
    """rediss:// reaches a server whose certificate this machine trusts, under its own name; any other is
    out of reach, and nothing is said in the clear.
    """
    async with behind_tls(valkey_url, tmp_path) as place:
        async with opened(Far(), f"rediss://{place}") as store:
            assert not await is_counting(store)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        async with opened(Far(), f"rediss://{place}") as store:
            await until(lambda: is_counting(store))
        async with opened(Far(), f"rediss://{place.replace('localhost', '127.0.0.1')}") as store:
            assert not await is_counting(store)


async def test_two_deployments_share_a_server(valkey_url):
    """What another deployment counts and copies is never met, though its keys were given the same secret."""
    first, second = Far(), Far()
    ada, session = await a_signed_in(first)
    async with opened(first, valkey_url) as one, opened(second, valkey_url) as other:
        await copied(one, ada, session)
        assert await other.recent_session(session.id, 1) is None
        for _ in range(SLOW.burst):
            await one.hit([Bucket("slow:x", SLOW)], NOW)
        assert await other.hit([Bucket("slow:x", SLOW)], NOW) == (0.0, "")


async def test_the_environments_server_will_do():
    """`make_store` puts Redis beside what it makes; nothing is connected before it is opened."""
    store = make_store("memory:", shared_valkey())
    assert isinstance(store, RedisStore)
    await store.open()
    assert await is_counting(store)
    await store.close()
