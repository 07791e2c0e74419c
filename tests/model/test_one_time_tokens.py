"""One-time tokens: what they carry."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dutchdoor.model.one_time_tokens import PAYLOAD_AT_MOST, issue


def test_a_payload_is_bounded():
    """A token carries what its maker needs when it comes back, and never more than a few kilobytes."""
    token, _ = issue("setup", subject="", email="", now=0.0, lives_for=60.0, payload=b"x" * PAYLOAD_AT_MOST)
    assert len(token.payload) == PAYLOAD_AT_MOST
    with pytest.raises(ValueError, match="at most 4096 bytes"):
        replace(token, payload=b"x" * (PAYLOAD_AT_MOST + 1))
    with pytest.raises(ValueError, match="at most 4096 bytes"):
        issue("setup", subject="", email="", now=0.0, lives_for=60.0, payload=b"x" * (PAYLOAD_AT_MOST + 1))
