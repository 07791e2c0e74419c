"""From URLs to a transport for mail: a new one adds one line here.

console:                                 printed to standard error: for trying out
file:outgoing                            a file for each mail, in a directory
smtps://user:password@host:465           a mail server, over TLS from the beginning
smtp://user:password@host:587            a mail server, with STARTTLS
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dutchdoor.errors import InvalidInput, Misconfigured
from dutchdoor.mail import Transport, sender_of
from dutchdoor.model.choices import near
from dutchdoor.model.email_address import mailbox

__all__ = ["make_transport", "noreply"]

SCHEMES: Final = ("console", "file", "smtp", "smtps")


def make_transport(url: str, *, sender: str, source: str = "mail", sender_source: str = "mail_from") -> Transport:
    """Create the transport that a URL names. `sender` is who its mail is from. The sources name the two settings in
    messages.

    Raises:
        Misconfigured: no such scheme, a URL that is not valid, or a sender that is no address.
    """
    try:
        sender_of(sender)
    except Misconfigured as exc:
        raise Misconfigured(f"{sender_source}: {exc}") from None
    scheme, colon, rest = url.partition(":")
    # Imported when they are needed: a deployment does not pay for what it does not use.
    if scheme == "console" and colon and not rest.strip("/"):
        console: Transport = import_module("dutchdoor.mail.console").ConsoleTransport()
        return console
    if scheme == "file" and rest.strip("/"):
        directory = Path("/" + rest.lstrip("/") if rest.startswith("///") else rest)
        file: Transport = import_module("dutchdoor.mail.file").FileTransport(directory, sender=sender)
        return file
    if scheme in {"smtp", "smtps"} and colon:
        smtp: Transport = import_module("dutchdoor.mail.smtp").SmtpTransport(url, sender=sender)
        return smtp
    # The value is not repeated: it may contain a password, also before the first colon.
    meant = near(scheme, SCHEMES) if "://" in url and scheme not in SCHEMES else ""
    raise Misconfigured(
        f"{source} must be console:, file:DIRECTORY, smtp://user:password@host:587 or smtps://user:password@host:465."
        + (f" Did you mean {meant}:?" if meant else "")
    )


def noreply(public_url: str | None) -> str:
    """Return the sender of a server at this URL that was not given another."""
    host = urlsplit(public_url or "").hostname or "localhost"
    try:
        return mailbox(f"noreply@{host}", any_host=True)
    except InvalidInput:  # an address in brackets
        return "noreply@localhost"
