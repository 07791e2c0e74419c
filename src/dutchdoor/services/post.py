"""Mail to the owners of accounts, most of it sent after the answer."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from dutchdoor.errors import DutchdoorError, RateLimited
from dutchdoor.mail import Mail, Transport
from dutchdoor.mail.letters import Done, Letters, Notice
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.services.attempts import Attempts
from dutchdoor.services.hooks import notify
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Change, Swap

__all__ = ["Post"]

log = logging.getLogger("dutchdoor")

CLOSES_WITHIN = 5.0
LANGUAGE = "language"
"""The method of a record without a secret: the tag of the language in which an account gets its mail."""


class Post:
    """Writes letters and gives them to the transport."""

    def __init__(self, transport: Transport, letters: Letters, attempts: Attempts, authority: Authority) -> None:
        self.transport, self.letters, self.attempts = transport, letters, attempts
        self.hooks, self.store, self.clock = authority.hooks, authority.store, authority.clock
        self._posting: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def send(self, write: Callable[..., Mail], address: str, **more: object) -> None:
        """Write a letter and give it to the transport. A thread writes it: in the event loop, other callers would wait
        for it, and the delay would reveal that there is an account.
        """
        letter, is_sent = await asyncio.to_thread(write, address, **more), False
        try:
            await self.transport.send(letter)
            is_sent = True
        finally:
            notify(self.hooks.mailed, is_sent)

    def notify(
        self, notice: Notice, account: Account, client: Client, at: float, *, deeds: Sequence[Done] = ()
    ) -> None:
        """Mail a `notice` to the account's owner if its address was ever verified: a stranger can register any other
        address. `deeds` are what the account did as an administrator, for the owner to look at.
        """
        if account.address and account.email_verified_at is not None:
            self.later(self._send_notice(notice, account, account.address, client, at, deeds))

    async def _send_notice(
        self, notice: Notice, account: Account, address: str, client: Client, at: float, deeds: Sequence[Done]
    ) -> None:
        key = f"{notice.name.lower()}:{self.attempts.digest(canonical(address))}"
        with suppress(RateLimited):
            await self.attempts.take([bucket_of(self.attempts.limits.notice_by_mailbox, key)])
            # Not in the language of the client, which may be the thief: the owner might not read it.
            language = await self.language_of(account.subject)
            write = partial(self.letters.notice, notice, deeds=deeds)
            await self.send(write, address, client=client, at=at, language=language)

    async def language_of(self, subject: str) -> str:
        """Return the language in which an account gets its mail, "" if none is known."""
        kept = await self.store.get(Credential, subject, LANGUAGE, "")
        return kept.proof if kept else ""

    async def keeping_language(self, account: Account, client: Client) -> list[Change]:
        """Return what stores the language of a client that has just proved that it reads the account's mailbox."""
        kept = await self.store.get(Credential, account.subject, LANGUAGE, "")
        tag = self.letters.languages.of(client.languages).tag
        if kept and kept.proof == tag:
            return []
        if kept:
            return [Swap(replace(kept, proof=tag))]
        now = self.clock()
        return [Add(Credential(subject=account.subject, method=LANGUAGE, handle="", proof=tag, created_at=now))]

    def later(self, work: Awaitable[None]) -> None:
        """Do something after the answer: mail is slow, and its time would reveal which addresses are known."""

        async def carefully() -> None:
            try:
                await work
            except RateLimited as exc:
                log.info("mail was not sent: %s", exc.reason)
            except Exception as exc:  # noqa: BLE001 - no caller waits for it; it is reported in the log
                # The text of a foreign exception may quote an address. Its place is enough to find a fault of our own.
                place = traceback.extract_tb(exc.__traceback__)[-1]
                ours = exc.reason.removeprefix("mail not sent: ") if isinstance(exc, DutchdoorError) else ""
                log.warning("mail was not sent: %s", ours or f"{type(exc).__name__} at {place.filename}:{place.lineno}")

        task = asyncio.ensure_future(carefully())
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until `close` if that comes first."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def close(self) -> None:
        """Wait for mail that is being sent, a few seconds at most."""
        self._closing.set()
        until = asyncio.get_running_loop().time() + CLOSES_WITHIN
        while self._posting and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._posting, timeout=left)  # what has waited for this may send more
        self._closing = asyncio.Event()
