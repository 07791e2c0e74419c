"""Connections over ASGI that stay open: a WebSocket or a stream ends when the proof that opened it is revoked.

Each message is checked before it is passed on, and a connection without messages is looked at whenever something was
revoked.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import Final

from dutchdoor.errors import DutchdoorError, Misconfigured, Unavailable
from dutchdoor.guard.asgi_visit import SIGNED_OUT, Visit, close_code, store_at_end
from dutchdoor.guard.gates import Gate, Message, Receive, Send

__all__ = ["LOOKS_EVERY", "Answer", "Open", "Socket"]

LOOKS_EVERY: Final = 0.25
"""Seconds between two looks at the log while connections are open."""
LOOKS_AT_ALL_EVERY: Final = 5.0
"""Seconds between two looks at each open connection: proofs also expire."""

_log = logging.getLogger("dutchdoor")


class Open:
    """The connections that are open behind one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._streams: set[_Stream] = set()
        self._watching: asyncio.Task[None] | None = None

    def keep(self, stream: _Stream) -> None:
        """Watch a connection until it ends."""
        self._streams.add(stream)
        watching, loop = self._watching, asyncio.get_running_loop()
        if watching is None or watching.done() or watching.get_loop() is not loop:  # a TestClient has a loop a request
            self._watching = loop.create_task(self._watch())

    def leave(self, stream: _Stream) -> None:
        """Stop watching a connection whose last message has been sent."""
        self._streams.discard(stream)

    async def _watch(self) -> None:
        """End connections whose proof is not valid any more. Runs while there are some."""
        position: object = None
        looked_at_all = -math.inf
        now = asyncio.get_running_loop().time
        while self._streams:
            try:
                newest = await self._gate.position()
                if newest != position or now() - looked_at_all > LOOKS_AT_ALL_EVERY:
                    for stream in tuple(self._streams):
                        await stream.look()
                    position, looked_at_all = newest, now()
            except Unavailable:
                pass  # an outage ends no connection; but no message passes meanwhile
            except Exception:  # noqa: BLE001
                # The loop must go on: otherwise no quiet connection would end any more.
                _log.exception("could not look at open connections")
            await asyncio.sleep(LOOKS_EVERY)

    def stop(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()


class _Ended(ConnectionError):
    """The proof of this connection is not valid any more. ASGI reports by an `OSError` that a client is gone."""


class _Stream:
    """One request and its answer. Once the proof is known, what passes is checked."""

    __slots__ = (
        "_closing", "_ending", "_is_kept", "_next", "_open", "_receive", "_send", "_visit", "ended", "started",
    )  # fmt: skip

    gone = "http.disconnect"

    def __init__(self, connections: Open, visit: Visit, receive: Receive, send: Send) -> None:
        self._open, self._visit, self._receive, self._send = connections, visit, receive, send
        self._closing: asyncio.Future[None] | None = None
        self._next: asyncio.Task[Message] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.started = self.ended = self._is_kept = False

    async def look(self) -> None:
        """End this connection if its proof is not valid any more."""
        if not self.ended:
            try:
                await self._visit.check()
            except Unavailable:
                pass
            except DutchdoorError as error:
                # In a task of its own: a client that reads nothing must not keep open what others have.
                self._ending = asyncio.ensure_future(self._end_if_there(error))

    async def _end_if_there(self, error: DutchdoorError) -> None:
        with suppress(Exception):  # the client is gone already: servers differ in what they raise then
            await self.end(error)

    def watched(self) -> None:
        """Look at this connection from now on, if the proof is known."""
        if not self._is_kept and self._visit.known is not None:
            self._is_kept = True
            self._open.keep(self)

    async def end(self, error: DutchdoorError) -> None:
        """End this connection. The application sees that its client is gone."""
        if not self.ended:
            self.ended = True
            if self._closing is not None and not self._closing.done():
                self._closing.set_result(None)
            await self._finish(error)

    async def checked(self) -> None:
        """Let one message pass. Raises `_Ended`."""
        if not self.ended and self._visit.known is not None:
            self.watched()
            try:
                await self._visit.check()
            except DutchdoorError as error:
                await self.end(error)
        if self.ended:
            raise _Ended("the session has ended")

    async def _received(self) -> Message:
        """Wait for a message of the client, or for the end of its proof."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        closing = self._closing = self._closing or asyncio.get_running_loop().create_future()
        if not self.ended:
            await asyncio.wait({self._next, closing}, return_when=asyncio.FIRST_COMPLETED)
        if self.ended:
            return {"type": self.gone, "code": SIGNED_OUT, "reason": ""}
        message, self._next = self._next.result(), None
        return message

    def close(self) -> None:
        """Stop what still waits beside the application."""
        if self._next is not None:
            self._next.cancel()

    async def _finish(self, error: DutchdoorError) -> None:
        raise NotImplementedError


class Answer(_Stream):
    """A response. One that is sent whole was just asked for; each piece of a stream is checked, also the first: it may
    come an hour after the status.
    """

    __slots__ = ("_has_body", "_is_bounded", "_is_refused", "_is_stream")

    def __init__(self, connections: Open, visit: Visit, receive: Receive, send: Send) -> None:
        super().__init__(connections, visit, receive, send)
        self._has_body = self._is_bounded = self._is_refused = self._is_stream = False

    async def receive(self) -> Message:
        if self._has_body:  # what waits now waits for the client to hang up
            return await self._received()
        message = await self._receive()
        self._has_body = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self.started = self._visit.has_begun = True
            if self._visit.data is not None and not await self._stored(message):
                return
            self._is_bounded = any(name == b"content-length" for name, _ in message.get("headers", ()))
        elif self._is_stream or message.get("more_body", False):
            self._is_stream = True
            await self.checked()
            if not message.get("more_body", False):
                self._open.leave(self)  # a task may go on in the background
        await self._send(message)

    async def _stored(self, message: Message) -> bool:
        """Store session data. If that fails, the client gets the error instead of the response."""
        try:
            await self._visit.store(message)
        except Misconfigured:
            raise
        except DutchdoorError as error:
            # Not raised: the framework has begun to respond, and would not answer any more.
            self._is_refused = True
            await self._visit.refuse(error, self._send)
        return not self._is_refused

    async def _finish(self, error: DutchdoorError) -> None:  # noqa: ARG002 - the status has been sent
        if not self._is_bounded:  # otherwise the server cuts the connection, because the body is not whole
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class Socket(_Stream):
    """A WebSocket. Every message in either direction is checked."""

    __slots__ = ()

    gone = "websocket.disconnect"

    async def receive(self) -> Message:
        if self._visit.known is None or not self.started:
            return await self._receive()
        message = await self._received()
        if message["type"] == self.gone:
            return message
        try:
            await self.checked()
        except _Ended:
            return {"type": self.gone, "code": SIGNED_OUT, "reason": ""}
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            await self._visit.store(message)
            self.started = True
            self.watched()
        elif message["type"] == "websocket.send":
            await self.checked()
        elif message["type"] == "websocket.close" and self.started:
            await store_at_end(self._visit)  # a client that sees the end finds what was stored
            self._open.leave(self)
        if not self.ended:  # it has been closed already
            await self._send(message)

    async def _finish(self, error: DutchdoorError) -> None:
        await self._send({"type": "websocket.close", "code": close_code(error), "reason": str(error)[:100]})
