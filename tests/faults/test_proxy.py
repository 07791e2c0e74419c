"""The proxy breaks what the test asks it to break, and nothing else: or every test over it would prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time

import pytest
from tests.faults.proxy import How, Proxy, proxy

SOON = 60.0
NEVER = 0.15
"""Seconds in which what is held does not come. Too short could only let a broken proxy pass."""


class Echo:
    """Sends back what it receives, and knows how each of its connections ended."""

    def __init__(self):
        self.ends = asyncio.Queue()
        self.began = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc):
        self.server.close()

    async def talk(self, reader, writer):
        self.began += 1
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            self.ends.put_nowait("end")
        except ConnectionResetError:
            self.ends.put_nowait("reset")
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def echo():
    async with Echo() as server, Proxy("127.0.0.1", server.port) as link:
        yield server, link


@contextlib.asynccontextmanager
async def client(link):
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def says(ends, text, *, n=None):
    reader, writer = ends
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(n or len(text)), SOON)


async def nothing_comes(reader):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), NEVER)


def one_answer(port, at_most):
    """Ask for b"abcd"; give what came and how it ended. After so many bytes nothing may come."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), SOON) as ours:
        ours.sendall(b"abcd")
        try:
            while True:
                ours.settimeout(NEVER if len(got) == at_most else SOON)
                if not (piece := ours.recv(1)):
                    break
                got += piece
        except ConnectionResetError:
            return got, How.RST
        except TimeoutError:
            return got, How.SILENT
        return got, How.FIN


async def until(condition):
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_passes_is_what_was_sent():
    """Undisturbed, every byte arrives, in both directions, an end included, and is counted."""
    sent = bytes(range(256)) * 4096
    async with echo() as (server, link), client(link) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), SOON) == sent
        assert await server.ends.get() == "end"
        assert (link.accepted, link.up.passed, link.down.passed) == (1, len(sent), len(sent))
        await until(lambda: link.open == 0)


async def test_a_delay_is_for_one_direction():
    """What is delayed comes late and whole; without the delay it comes at once."""
    async with echo() as (_, link), client(link) as ends:
        link.down.delay = 0.2
        began = time.monotonic()
        assert await says(ends, b"slow") == b"slow"
        assert time.monotonic() - began >= 0.2
        link.heal()
        assert await says(ends, b"fast") == b"fast"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_what_is_held_waits(way):
    """A black hole in one direction: nothing comes until it is released, and then nothing is missing."""
    async with echo() as (_, link), client(link) as ends:
        assert await says(ends, b"a") == b"a"
        getattr(link, way).hold()
        ends[1].write(b"held")
        await nothing_comes(ends[0])
        await until(lambda: link.up.passed == (1 if way == "up" else 5))
        link.heal()
        assert await asyncio.wait_for(ends[0].readexactly(4), SOON) == b"held"


async def test_a_black_hole_accepts_and_says_nothing():
    """A connection made into a black hole is made, and the target does not know of it before it is over."""
    async with echo() as (server, link):
        link.hold()
        async with client(link) as ends:
            ends[1].write(b"hello")
            await nothing_comes(ends[0])
            assert server.began == 0
            link.heal()
            assert await asyncio.wait_for(ends[0].readexactly(5), SOON) == b"hello"


async def test_a_reset_reaches_both_ends():
    """RST, not an end: each side gets an error. The next connection is good."""
    async with echo() as (server, link), client(link) as ends:
        assert await says(ends, b"a") == b"a"
        link.reset()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(ends[0].read(1), SOON)
        assert await asyncio.wait_for(server.ends.get(), SOON) == "reset"
        async with client(link) as again:
            assert await says(again, b"b") == b"b"


@pytest.mark.parametrize("how", [How.RST, How.FIN, How.SILENT])
@pytest.mark.parametrize("after", [0, 1, 3, 4])
async def test_a_cut_comes_after_so_many_bytes(how, after):
    """Exactly so many bytes of the answer arrive, then the end that was asked for; `once` spares the next one."""
    async with echo() as (server, link):
        link.down.cut(after=after, how=how, once=True)
        # Not a stream of asyncio's, which forgets what it has read when a reset follows.
        got, ended = await asyncio.to_thread(one_answer, link.port, after if how is How.SILENT else None)
        assert (got, ended) == (b"abcd"[:after], how)
        await until(lambda: link.up.passed == 4)  # the target hears the whole question
        await until(lambda: link.down.cuts == 1)
        assert await asyncio.wait_for(server.ends.get(), SOON) in {"reset", "end"}, "the target's side is over too"
        async with client(link) as again:
            assert await says(again, b"whole") == b"whole"


async def test_a_cut_counts_from_when_it_was_asked_for():
    """On a connection that is open already, earlier answers do not count."""
    async with echo() as (_, link), client(link) as ends:
        assert await says(ends, b"before") == b"before"
        link.down.cut(after=2)
        ends[1].write(b"after")
        assert await asyncio.wait_for(ends[0].readexactly(2), SOON) == b"af"
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(ends[0].read(1), SOON)


async def test_half_open():
    """The target sees a reset; the client keeps a connection on which nothing happens, whatever it says."""
    async with echo() as (server, link), client(link) as ends:
        assert await says(ends, b"a") == b"a"
        link.half_open()
        assert await asyncio.wait_for(server.ends.get(), SOON) == "reset"
        ends[1].write(b"anybody?")
        await nothing_comes(ends[0])
        assert link.open == 1


async def test_refused():
    """No server listens, until it is healed; then on the same port."""
    async with echo() as (_, link):
        port = link.port
        async with client(link) as ends:
            assert await says(ends, b"a") == b"a"
            link.refuse()
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(ends[0].read(1), SOON)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        link.heal()
        assert link.port == port
        async with client(link) as ends:
            assert await says(ends, b"b") == b"b"


async def test_refused_to_new_ones_only():
    """With `keep`, what is open goes on."""
    async with echo() as (_, link), client(link) as ends:
        assert await says(ends, b"a") == b"a"
        link.refuse(keep=True)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", link.port)
        assert await says(ends, b"b") == b"b"


@pytest.mark.parametrize("turns", [1, 4, *(pytest.param(n, marks=pytest.mark.long) for n in (0, 2, 3, 5, 6, 7))])
@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
async def test_closed_at_any_moment_it_leaves_no_socket(turns, leaves, recwarn):
    """Whatever a connection is about when its proxy ends (it comes, connects, carries or ends), all of it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        async with Proxy(*target.getsockname()) as link:
            with socket.create_connection(("127.0.0.1", link.port), SOON) as ours:
                if leaves:
                    ours.sendall(b"a")
                    await until(lambda: link.up.passed)
                    target.accept()[0].close()
                for _ in range(turns):
                    await asyncio.sleep(0)
                link.reset()
                await asyncio.sleep(0)
        await until(lambda: link.open == 0)
    gc.collect()
    assert not [str(one.message) for one in recwarn]


async def test_accepted_and_reset():
    """A port whose every connection is reset at once."""
    async with echo() as (server, link):
        link.resetting = True
        with pytest.raises(ConnectionResetError):
            async with client(link) as (reader, _):  # which may notice while it still connects
                await asyncio.wait_for(reader.read(1), SOON)
        assert server.began == 0
        link.heal()
        async with client(link) as ends:
            assert await says(ends, b"b") == b"b"


async def test_a_target_that_is_not_there():
    """A client of a target that refuses is reset: it is not left waiting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Proxy("127.0.0.1", port) as link:
        with pytest.raises(ConnectionResetError):
            async with client(link) as (reader, _):
                await asyncio.wait_for(reader.read(1), SOON)
        await until(lambda: link.open == 0)


async def test_several_targets_take_turns():
    """Connections go to one target after the other, and past one that cannot be reached."""
    async with Echo() as one, Echo() as other, Proxy("127.0.0.1", 1) as link:
        link.retarget(("127.0.0.1", one.port), ("127.0.0.1", 1), ("127.0.0.1", other.port))
        for _ in range(6):
            async with client(link) as ends:
                assert await says(ends, b"a") == b"a"
        assert one.began + other.began == 6
        assert min(one.began, other.began) >= 2


def test_from_another_thread():
    """With a loop of its own it takes calls from any thread, and has acted when the call returns. It leaves nothing."""
    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as target, proxy(*target.getsockname()) as link:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", link.port), SOON) as ours:
                theirs, _ = target.accept()
                with theirs:
                    ours.sendall(b"x")
                    assert theirs.recv(1) == b"x"
                    link.refuse()
                    with pytest.raises(ConnectionRefusedError):
                        socket.create_connection(("127.0.0.1", link.port), SOON)
                    with pytest.raises(ConnectionResetError):
                        ours.recv(1)
                    link.heal()
    assert threading.active_count() == threads
