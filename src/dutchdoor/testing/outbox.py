"""Mail that a test reads instead of sending it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dutchdoor.mail import Mail

__all__ = ["Outbox", "SentMail"]

_LINK = re.compile(r"https?://[^\s<>\"]+")


class SentMail(Mail, frozen=True, kw_only=True):
    """A mail, with the links in its text."""

    @property
    def links(self) -> list[str]:
        """The links in the text, in their order."""
        return _LINK.findall(self.text)

    @property
    def link(self) -> str:
        """The one link in the text. Raises `AssertionError` if it has none or several."""
        links = self.links
        if len(links) != 1:
            raise AssertionError(f"The mail {self.subject!r} has {len(links)} links: use `links`.")
        return links[0]

    @property
    def token(self) -> str:
        """The one-time token in the link, which the page behind it sends to the API."""
        return self.link.partition("#")[2]


class Outbox(Sequence[SentMail]):
    """The mails that were sent, oldest first. A mail is here when the answer that caused it is."""

    def __init__(self) -> None:
        self._sent: list[SentMail] = []

    async def send(self, message: Mail) -> None:
        """Take a mail, as the transport of the engine."""
        self._sent.append(SentMail(to=message.to, subject=message.subject, text=message.text, html=message.html))

    def to(self, address: str) -> list[SentMail]:
        """Return the mails to an address."""
        return [mail for mail in self._sent if mail.to == address]

    def clear(self) -> None:
        """Forget all mails."""
        self._sent.clear()

    def __getitem__(self, index: Any) -> Any:
        return self._sent[index]

    def __len__(self) -> int:
        return len(self._sent)

    def __eq__(self, other: object) -> bool:
        return self._sent == (other._sent if isinstance(other, Outbox) else other)

    __hash__ = None  # type: ignore[assignment] # it changes

    def __repr__(self) -> str:
        return f"Outbox({self._sent!r})"
