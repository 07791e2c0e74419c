"""A receiver of webhooks: a real server in threads of its own, which verifies each message by the library of Standard
Webhooks and answers as a test says.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks.webhooks import Webhook as Verifying
from standardwebhooks.webhooks import WebhookVerificationError

PATIENCE = 60.0


class Message(NamedTuple):
    id: str
    type: str
    subject: str
    verified: bool
    body: dict[str, Any]
    headers: dict[str, str]
    status: int


class Reply(NamedTuple):
    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Receiver:
    """What came in, in order. `answers` decides what is answered; a message that is refused is noted, too."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.secrets: list[str] = []
        self.answers: Callable[[Message], Reply] = lambda _message: Reply()
        self.url = ""
        self.sent: Callable[[BaseHTTPRequestHandler], bool] = lambda _handler: False
        self._came = threading.Condition()

    def note(self, headers: dict[str, str], raw: bytes) -> Reply:
        body = json.loads(raw)
        message = Message(
            id=headers.get("webhook-id", ""),
            type=body["type"],
            subject=body["data"].get("subject", ""),
            verified=any(self._verifies(secret, headers, raw) for secret in self.secrets),
            body=body,
            headers=headers,
            status=0,
        )
        reply = self.answers(message)
        with self._came:
            self.messages.append(message._replace(status=reply.status))
            self._came.notify_all()
        return reply

    def _verifies(self, secret: str, headers: dict[str, str], raw: bytes) -> bool:
        try:
            Verifying(secret).verify(raw, headers)
        except WebhookVerificationError:
            return False
        return True

    @property
    def taken(self) -> list[Message]:
        return [message for message in self.messages if 200 <= message.status < 300]

    def first(self, subject: str | None = None) -> list[str]:
        """The ids that were taken, each once, in the order in which they first came."""
        return list(dict.fromkeys(each.id for each in self.taken if subject is None or each.subject == subject))

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait in another thread than the event loop's until something has come in."""
        with self._came:
            assert self._came.wait_for(until, PATIENCE), f"only {len(self.messages)} messages came"


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            reply = receiver.note({name.lower(): value for name, value in self.headers.items()}, raw)
            if receiver.sent(self):
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            if reply.status != 204:
                self.wfile.write(reply.body)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", port), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks?key=of-the-receiver"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


def slowly(seconds: float) -> Callable[[Message], Reply]:
    def answer(_message: Message) -> Reply:
        time.sleep(seconds)
        return Reply()

    return answer
