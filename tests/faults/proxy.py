"""A proxy for TCP that breaks what goes through it: one for each link of a cluster, steered at run time.

    async with Proxy("127.0.0.1", 5432) as link:    # in the loop of the test
    with proxy("127.0.0.1", 5432) as link:          # in a thread of its own, for tests without a loop

    link.port                         where clients connect
    link.up.delay = 0.2               towards the target, each piece waits
    link.down.hold()                  nothing comes back; `link.hold()` is both ways. New connections are accepted.
    link.down.cut(after=17)           each connection ends after 17 bytes more; `once`: the first only
    link.reset()                      RST to both ends of every open connection
    link.half_open()                  the target sees the end of the connection, the client does not
    link.refuse()                     no server listens; open connections are reset, or go on with `keep=True`
    link.resetting = True             accepted and reset at once
    link.heal()                       everything passes again; what was held goes on, as after a cable is plugged in

Every verb may be called from any thread. What has happened is counted: `accepted`, `open`, `up.passed`, `down.passed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Self

from tests.ports import free_port

__all__ = ["How", "Proxy", "Way", "proxy"]

PIECE = 65536
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that throws away what was not sent, and sends RST."""


class How(enum.Enum):
    """How a connection ends that is cut."""

    RST = "the client sees a reset"
    FIN = "the client sees an orderly end, too early"
    SILENT = "the client sees nothing more"


class Cut:
    def __init__(self, after: int, how: How, once: bool) -> None:
        self.after, self.how, self.once = after, how, once


class Way:
    """One direction of a proxy."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.passed = 0
        self.cuts = 0
        self._cut: Cut | None = None
        self._flows = True
        self._changed: list[asyncio.Future[None]] = []
        self._tell: Callable[[Callable[[], None]], None] = lambda act: act()

    @property
    def held(self) -> bool:
        return not self._flows

    def hold(self) -> None:
        """Let nothing pass until it is released; what arrives waits."""
        self._flows = False

    def release(self) -> None:
        self._flows = True
        self._tell(self._wake)

    def cut(self, *, after: int, how: How = How.RST, once: bool = False) -> None:
        """End each connection that is to carry more than this many bytes from now on, and the one that would end with
        exactly these: the cut comes when the last of them has gone, or with 0 when the first would.
        """
        self._cut = Cut(after, how, once)

    def heal(self) -> None:
        self.delay, self._cut = 0.0, None
        self.release()

    def _wake(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_open(self) -> None:
        while not self._flows:
            future = asyncio.get_running_loop().create_future()
            self._changed.append(future)
            await future


class Connection:
    def __init__(self, client: socket.socket, target: socket.socket | None) -> None:
        self.client, self.target = client, target
        self.task: asyncio.Task[None] | None = None
        self.pumps: list[asyncio.Task[None]] = []
        self.silent = False
        """The target is gone, and the client does not know."""
        self.ending = False
        """It closes what it has. Cancelled now, it would not come to it."""


class Proxy:
    def __init__(self, host: str, port: int, *, listen: int = 0) -> None:
        """Forward to `host:port`, from the loopback port `listen`, or from one that the system gives."""
        self.targets = [(host, port)]
        self.port = listen
        self.up, self.down = Way(), Way()
        self.up._tell = self.down._tell = self._tell
        self.accepted = 0
        self.resetting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._connections: set[Connection] = set()

    @property
    def open(self) -> int:
        """Connections that are open, those included whose target is gone."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = [each.task for each in self._connections if each.task]
        self._stop_listening()
        self._reset()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # What it can be asked to do

    def hold(self) -> None:
        """A black hole: connections are made, and nothing passes either way."""
        self.up.hold()
        self.down.hold()

    def heal(self) -> None:
        """Everything passes, as in the beginning."""
        self.resetting = False
        self.up.heal()
        self.down.heal()
        self._tell(self._listen)

    def reset(self) -> None:
        """RST to both ends of every connection. New ones pass."""
        self._tell(self._reset)

    def half_open(self) -> None:
        """Every open connection's target gets an RST; its client keeps a connection on which nothing happens."""
        self._tell(self._half_open)

    def refuse(self, *, keep: bool = False) -> None:
        """Stop listening: to connect is refused."""

        def act() -> None:
            self._stop_listening()
            if not keep:
                self._reset()

        self._tell(act)

    @property
    def target(self) -> tuple[str, int]:
        return self.targets[0]

    def retarget(self, *targets: tuple[str, int]) -> None:
        """New connections go elsewhere; with several, to one after the other, or the next that can be reached."""
        self.targets = list(targets)

    # How it does that

    def _tell(self, act: Callable[[], None]) -> None:
        """Do something in the proxy's own loop, and return when it is done."""
        assert self._loop is not None, "not open"
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            act()
            return
        done = threading.Event()

        def there() -> None:
            try:
                act()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(there)
        assert done.wait(60), "the proxy's loop does not run"

    def _listen(self) -> None:
        if self._socket is not None:
            return
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port or free_port()))
        listening.listen(512)
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _stop_listening(self) -> None:
        if self._socket is not None:
            # The loop lets go of it before it is closed, or the next socket with its number would be taken for it.
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _accept(self, listening: socket.socket) -> None:
        """Take what has come. A task that waited for `sock_accept` would lose the one that comes as it is cancelled."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = listening.accept()
            client.setblocking(False)
            self.accepted += 1
            if self.resetting:
                _close(client, reset=True)
                return
            connection = Connection(client, None)
            self._connections.add(connection)
            connection.task = asyncio.ensure_future(self._carry(connection))
            connection.task.add_done_callback(lambda _: self._forget(connection))

    def _forget(self, connection: Connection) -> None:
        connection.client.close()  # by itself it closes nothing if it was cancelled before it began
        self._connections.discard(connection)

    def _reset(self) -> None:
        for each in list(self._connections):
            if each.task is not None and not each.ending:
                each.task.cancel()

    def _half_open(self) -> None:
        for each in self._connections:
            each.silent = True
            for pump in each.pumps:
                pump.cancel()

    async def _carry(self, connection: Connection) -> None:
        """One connection from its beginning to its end."""
        client = connection.client
        reset = True
        try:
            await self.up.wait_open()
            target = connection.target = await self._connect()
            for one in (client, target):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.pumps = [
                asyncio.ensure_future(self._pump(connection, self.up, client, target)),
                asyncio.ensure_future(self._pump(connection, self.down, target, client)),
            ]
            ended, going = await asyncio.wait(connection.pumps, return_when=asyncio.FIRST_EXCEPTION)
            if connection.silent:
                await self._silence(connection)
            reset = any(each.cancelled() or each.exception() is not None for each in ended) or bool(going)
            if any(not each.cancelled() and isinstance(each.exception(), EarlyEnd) for each in ended):
                reset = False
        except OSError:
            pass
        except asyncio.CancelledError:
            pass
        finally:
            connection.ending = True
            for pump in connection.pumps:
                pump.cancel()
            await asyncio.gather(*connection.pumps, return_exceptions=True)
            _close(client, reset=reset)
            if connection.target is not None:
                _close(connection.target, reset=reset)

    async def _connect(self) -> socket.socket:
        targets = self.targets
        first = self.accepted
        for n in range(len(targets)):
            target = socket.socket()
            target.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(target, targets[(first + n) % len(targets)])
            except OSError:
                target.close()
                if n == len(targets) - 1:
                    raise
            except BaseException:
                target.close()
                raise
            else:
                return target
        raise ConnectionRefusedError

    async def _silence(self, connection: Connection) -> None:
        """Tell the target, not the client, and keep the client until it gives up."""
        for pump in connection.pumps:
            pump.cancel()
        await asyncio.gather(*connection.pumps, return_exceptions=True)
        if connection.target is not None:
            _close(connection.target, reset=True)
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(connection.client, PIECE):
            pass

    async def _pump(self, connection: Connection, way: Way, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        counted: Cut | None = None
        left = 0
        while True:
            piece = await loop.sock_recv(source, PIECE)
            if way.delay:
                await asyncio.sleep(way.delay)
            await way.wait_open()
            if not piece:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
            cut = way._cut
            if cut is not counted:
                counted, left = cut, cut.after if cut else 0
            if cut is not None and len(piece) >= left:
                if cut.once:
                    way._cut = None
                await loop.sock_sendall(sink, piece[:left])
                way.passed += left
                way.cuts += 1
                if cut.how is How.SILENT:
                    connection.silent = True
                    raise ConnectionResetError
                raise EarlyEnd if cut.how is How.FIN else ConnectionResetError
            left -= len(piece)
            await loop.sock_sendall(sink, piece)
            way.passed += len(piece)


class EarlyEnd(Exception):
    """The connection ends in good order, before everything has passed."""


def _close(one: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        one.close()


@contextlib.contextmanager
def proxy(host: str, port: int, *, listen: int = 0) -> Iterator[Proxy]:
    """A proxy with a thread and a loop of its own."""
    made = Proxy(host, port, listen=listen)
    ready, stop = threading.Event(), asyncio.Event()
    failed: list[BaseException] = []

    async def run() -> None:
        try:
            async with made:
                ready.set()
                await stop.wait()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(60)
    if failed:
        raise failed[0]
    try:
        yield made
    finally:
        assert made._loop is not None
        made._loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()
