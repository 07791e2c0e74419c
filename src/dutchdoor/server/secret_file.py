"""A file that holds one secret, such as Docker and Kubernetes mount it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dutchdoor.errors import Misconfigured
from dutchdoor.model.text_file import decode_text

__all__ = ["read_secret"]

AT_MOST: Final = 64 * 1024
"""Bytes. A wrong path, such as /dev/zero, must not fill the memory."""


def read_secret(path: str, source: str) -> str:
    """Return the text of a file, without white space around it. `source` is where the path was set, for the message.
    Raises `Misconfigured`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(AT_MOST + 1)
    except OSError as exc:
        raise Misconfigured(f"{source}: the file {path} cannot be read: {exc.strerror}.") from None
    if len(content) > AT_MOST:
        raise Misconfigured(f"{source}: the file {path} is too large to hold a secret.")
    text = decode_text(content, f"{source}: the file {path}").strip()
    if not text:
        raise Misconfigured(f"{source}: the file {path} contains no text.")
    return text
