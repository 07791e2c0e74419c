"""QR codes, as pictures inside of the page: one with a secret must not have an address of its own."""

from __future__ import annotations

import segno

__all__ = ["qr_code"]


def qr_code(text: str) -> str:
    """Return the picture of a QR code as a `data:` address. It is dark on white, also at night: not every camera reads
    the other way around.
    """
    made: str = segno.make(text, error="m", micro=False).svg_data_uri(scale=5, border=4, dark="#000", light="#fff")
    return made
