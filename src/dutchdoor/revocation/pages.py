"""The log in its order, as pages for followers."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeAlias

from dutchdoor.revocation.log import OF_A_SUBJECT, Entry, Revocation, RevocationLog

__all__ = ["Pages"]

PAGE_KEPT, PAGES_KEPT = 64, 64
"""Short pages that are kept for reuse: most followers are at one of a few places."""
Page: TypeAlias = tuple[list[Entry], int]
"""Entries, and the number that they reach."""


class Pages:
    """A number, a kind and a name for each entry; the rest of it is in `log`. A page has `size` entries at most."""

    def __init__(self, log: RevocationLog, size: int) -> None:
        self._log, self._size = log, size
        self._seqs, self._kinds, self._names = array("q"), bytearray(), list[bytes]()
        self._cursor = 0
        self._kept: dict[int, Page] = {}

    def __len__(self) -> int:
        return len(self._seqs)

    def append(self, revocations: Sequence[Revocation], entries: Sequence[Entry]) -> None:
        """Add what the log has applied, each as it was committed and in wire form."""
        self._seqs.extend(revocation.seq for revocation in revocations)
        self._kinds.extend(entry.kind for entry in entries)
        self._names.extend(entry.name for entry in entries)
        self._kept.clear()

    def after(self, seq: int, head: int) -> Page:
        """Return a page of the entries after a number. The last page reaches `head`, up to which all are here."""
        page = self._kept.get(seq)
        if page is None:
            start = bisect_right(self._seqs, seq)
            end = min(start + self._size, len(self._seqs))
            found = (self._log.entry(self._kinds[at], self._names[at]) for at in range(start, end))
            page = [entry for entry in found if entry], head if end == len(self._seqs) else self._seqs[end - 1]
            if len(page[0]) <= PAGE_KEPT and len(self._kept) < PAGES_KEPT:
                self._kept[seq] = page
        return page

    def drop_expired(self, look_at: int | None) -> None:
        """Forget what the log has dropped. `look_at` bounds the work: so many entries, from where the last call
        stopped.
        """
        start = self._cursor if look_at is not None else 0
        end = len(self._seqs) if look_at is None else min(len(self._seqs), start + look_at)
        entry, kinds, names = self._log.entry, self._kinds, self._names
        # From the newest back: the last of a subject's entries covers the earlier ones. Otherwise a user who signs in
        # and out forever would keep an entry from expiring, and every older one with it.
        kept, said = list[int](), set[bytes]()
        for at in range(end - 1, start - 1, -1):
            if entry(kinds[at], names[at]) is not None and names[at] not in said:
                kept.append(at)
                if kinds[at] == OF_A_SUBJECT:
                    said.add(names[at])
        kept.reverse()
        if len(kept) < end - start:
            self._seqs[start:end] = array("q", [self._seqs[at] for at in kept])
            self._names[start:end] = [names[at] for at in kept]
            self._kinds[start:end] = bytes([kinds[at] for at in kept])
            self._kept.clear()
        at = start + len(kept)
        self._cursor = 0 if at >= len(self._seqs) else at
