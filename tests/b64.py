"""Base64url without padding, as tokens and keys are written."""

from __future__ import annotations

import base64


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
