"""The text of a file that a person wrote, such as a configuration."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from dutchdoor.errors import Misconfigured

__all__ = ["decode_text"]


def decode_text(content: bytes, what: str) -> str:
    """Decode UTF-8, without the byte order mark that editors on Windows put before it. `what` names the file.

    Raises:
        Misconfigured: it has another encoding, or is no text; the message says which, and repeats nothing of it.
    """
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise Misconfigured(f"{what} is UTF-16. Save it as UTF-8.")
    if b"\0" in content:
        raise Misconfigured(f"{what} is not a text file. Is it the right one?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise Misconfigured(f"{what} is not UTF-8 in line {line}. Save it as UTF-8.") from None
