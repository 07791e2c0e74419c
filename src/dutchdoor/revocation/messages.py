"""The messages between a verifier and a node: a poll and its answer, both JSON.

A poll is also the acknowledgement of the answer before it, and asks for a lease. There is no other call: a verifier
that knows nothing polls from 0 and gets the log page by page.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from dutchdoor.revocation.log import Entry

__all__ = ["MAX_SEQ", "SEEN_AT_MOST", "Answer", "Poll", "Seen"]

MAX_SEQ: Final = 2**53
_Seq = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
_Milliseconds = Annotated[int, Meta(ge=0, le=600_000)]


SEEN_AT_MOST: Final = 8
"""Sightings in one poll."""


class Seen(Struct, frozen=True, array_like=True):
    """A sighting at a verifier: a token that it was given, and the network that it came from."""

    token: Annotated[str, Meta(max_length=8192)]
    network: Annotated[str, Meta(max_length=64)]
    """As `model/sightings.py` has it: the /24 of an IPv4 address, the /48 of an IPv6 address."""


class Poll(Struct, frozen=True, kw_only=True):
    """A verifier asks for new entries. The code that reads a poll bounds every field."""

    holder: Annotated[str, Meta(min_length=16, max_length=64, pattern=r"\A[A-Za-z0-9_-]+\Z")]
    """Random, created by this process since its start or fork; bound to the credential it polls with."""
    log_epoch: _Seq = 0
    """The log that `applied_seq` belongs to; 0 before the first answer."""
    applied_seq: _Seq = 0
    """The `seq` up to which every thread of the process sees the entries. Never that of entries still being applied."""
    wait_ms: _Milliseconds = 0
    """How long the verifier waits for news. 0: it follows on demand, and cannot be woken."""
    seen: Annotated[tuple[Seen, ...], Meta(max_length=SEEN_AT_MOST)] = ()
    """Where tokens were used. An authority may ignore it."""


class Answer(Struct, frozen=True, kw_only=True):
    """A node's answer: what is new since the poll."""

    log_epoch: int
    """0: this node knows nothing yet."""
    salt: bytes
    """The salt of every name in an entry."""
    after_seq: _Seq
    """The entries follow this number; a verifier that has applied less cannot use the answer."""
    upto_seq: _Seq
    """The `seq` applied once the verifier has applied the entries."""
    entries: list[Entry]
    reaches_head: bool
    """Whether the log had no further entries when the answer was written."""
    lease_ms: _Milliseconds
    """Counted from the moment the poll was sent; 0 is no lease. A page that does not reach the head never has a
    lease.
    """
