"""What travels between a verifier and a node: one question, one answer, both JSON.

A poll is also the acknowledgement of the answer before it, and asks for a lease. There is no other call: whoever knows
nothing polls from 0 and gets the log page by page.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from dutchdoor.revocation.log import Entry

__all__ = ["MAX_SEQ", "Answer", "Poll"]

MAX_SEQ: Final = 2**53
_Seq = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
_Milliseconds = Annotated[int, Meta(ge=0, le=600_000)]


class Poll(Struct, frozen=True, kw_only=True):
    """A verifier asks for what is new. Everything in it is bounded where it is read."""

    holder: Annotated[str, Meta(min_length=16, max_length=64, pattern=r"\A[A-Za-z0-9_-]+\Z")]
    """Random, made by this process in this life; bound to the credential it polls with."""
    log_epoch: _Seq = 0
    """The log that `applied_seq` counts in; 0 before the first answer."""
    applied_seq: _Seq = 0
    """What every thread of the process already sees. Never what is still being applied."""
    wait_ms: _Milliseconds = 0
    """How long it will wait for news. 0: it follows on demand, and cannot be woken."""


class Answer(Struct, frozen=True, kw_only=True):
    """A node tells what is new since a poll."""

    log_epoch: int
    """0: this node knows nothing yet."""
    salt: bytes
    """What goes into every name of an entry."""
    after_seq: _Seq
    """Entries are those after this number; whoever has applied less cannot use the answer."""
    upto_seq: _Seq
    """What has been applied once these have."""
    entries: list[Entry]
    reaches_head: bool
    """Whether there was no more when it was written."""
    lease_ms: _Milliseconds
    """From the moment the poll was sent; 0 is none. Never with a page that does not reach the head."""
