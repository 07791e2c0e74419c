"""Mail the server sends: one message, and the transport that carries it.

Each transport is a module (console, file, SMTP); `letters` writes the messages from `templates`.
"""

from __future__ import annotations

import re
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Protocol

import msgspec

from dutchdoor.errors import InvalidInput, Misconfigured
from dutchdoor.model.email_address import mailbox

__all__ = ["Mail", "Transport", "as_message", "sender_of"]


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one person. `text` and `html` hold a one-time link and stay out of `repr`.

    Raises:
        InvalidInput: `to` is not one address as `mailbox` writes it, or `subject` is not one line of text.
    """

    to: str
    subject: str
    text: str
    html: str

    def __post_init__(self) -> None:
        # A line break in a header is a second header: "victim@example.com\r\nBcc: everyone@example.com". The library
        # that writes the header decodes an encoded word, which may contain anything.
        if not self.subject or not self.subject.isprintable() or "=?" in self.subject:
            raise InvalidInput("A mail header must be one line of text.", field="subject")
        try:
            is_plain = mailbox(self.to) == self.to
        except InvalidInput:
            is_plain = False
        if not is_plain:
            raise InvalidInput("This is not one plain e-mail address.", field="to")

    def __repr__(self) -> str:
        return f"Mail(to={self.to!r}, subject={self.subject!r})"


class Transport(Protocol):
    """Carries mail. `send` returns once the next hop has accepted the message; it never retries."""

    async def send(self, message: Mail) -> None:
        """Send one message.

        Raises:
            Unavailable: the message could not be handed over now, and is not known to have been sent.
        """
        ...


def sender_of(text: str) -> Address:
    """Read the sender of mail: `login@example.com`, or `Example <login@example.com>`. The domain may be in Unicode.

    Raises:
        Misconfigured: it is not one address.
    """
    found = _SENDER.fullmatch(text.strip())
    try:
        if found is None or not text.isprintable():
            raise InvalidInput("Write one address, or a name and an address in angle brackets.")
        local, _, domain = mailbox(found[2] or found[3], any_host=True).partition("@")
    except InvalidInput as exc:
        raise Misconfigured(f"Mail cannot be sent from this address. {exc}") from None
    return Address(display_name=(found[1] or "").strip().strip('"'), username=local, domain=domain)


_SENDER = re.compile(r"(?:([^<>]*)<([^<>]+)>|([^<>]+))")


def as_message(mail: Mail, *, sender: Address, now: float) -> EmailMessage:
    """Write a mail as RFC 5322 text with both bodies, the plain one first."""
    message = EmailMessage(policy=SMTP)
    # The address is passed in parts. Text would be parsed again, and that parser may find another address than we
    # checked.
    message["From"] = sender
    local, _, domain = mail.to.partition("@")
    message["To"] = Address(username=local, domain=domain)
    message["Subject"] = mail.subject
    message["Date"] = formatdate(now)
    message["Message-ID"] = make_msgid(domain=sender.domain)
    # Suppresses out-of-office replies, which would show the sender's mailbox who is away (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message
