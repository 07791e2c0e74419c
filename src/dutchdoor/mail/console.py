"""Prints mail instead of sending it: the default of a server that has no mail transport configured.

The output holds one-time links. That is its purpose on a developer's machine. A server in production needs another
transport; `dutchdoor check` reports this.
"""

from __future__ import annotations

import sys

from dutchdoor.mail import Mail

__all__ = ["ConsoleTransport"]

_RULE = "-" * 72


class ConsoleTransport:
    """Writes each message's plain text to standard error, in one piece."""

    async def send(self, message: Mail) -> None:
        # An escape sequence in a mail would move the terminal's cursor and overwrite the lines above.
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in message.text).rstrip()
        sys.stderr.write(f"{_RULE}\nTo: {message.to}\nSubject: {message.subject}\n\n{text}\n{_RULE}\n")
        sys.stderr.flush()
