"""Mail the server sends: one message, and what carries it.

The members of this package each carry mail one way (console, file, SMTP); `templates` writes the words.
"""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Protocol

import msgspec

from dutchdoor.errors import InvalidInput

__all__ = ["Mail", "Transport", "as_message"]

_ADDRESS_AT_MOST = 320  # 64 before the @ and 255 after it, RFC 5321


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one person. `text` and `html` hold a one-time link and stay out of `repr`.

    Raises:
        InvalidInput: `to` or `subject` holds a line break or another control character, or `to` is not one address.
    """

    to: str
    subject: str
    text: str
    html: str

    def __post_init__(self) -> None:
        # A line break in a header is a second header: "victim@example.com\r\nBcc: everyone@example.com".
        for field, value in (("to", self.to), ("subject", self.subject)):
            if not value or not value.isprintable():
                raise InvalidInput("A mail header must be one line of text.", field=field)
        # A comma, a bracket or a space would make a list, a display name or a second address of it.
        if len(self.to) > _ADDRESS_AT_MOST or self.to.count("@") != 1 or any(c in self.to for c in ' ,;:<>()[]"\\'):
            raise InvalidInput("This is not one plain e-mail address.", field="to")

    def __repr__(self) -> str:
        return f"Mail(to={self.to!r}, subject={self.subject!r})"


class Transport(Protocol):
    """Carries mail. `send` returns once the next hop has taken the message; it never retries."""

    async def send(self, message: Mail) -> None:
        """Send one message.

        Raises:
            Unavailable: it could not be handed over now; nothing is known to have been sent.
        """
        ...


def as_message(mail: Mail, *, sender: str, now: float) -> EmailMessage:
    """Write a mail as RFC 5322 text with both bodies, the plain one first."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = mail.to
    message["Subject"] = mail.subject
    message["Date"] = formatdate(now)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].rstrip(">") or "localhost")
    # Out-of-office replies to an automatic message would tell the sender's mailbox who is away (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message
