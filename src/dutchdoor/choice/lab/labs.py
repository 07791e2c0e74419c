"""All labs of one process: few, each for one visitor and for a limited time."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final

from dutchdoor.choice.lab.laboratory import ACCESS_FOR, Lab

__all__ = ["AT_MOST", "IDLE_FOR", "Full", "Labs"]

AT_MOST: Final = 3
"""Each has a server of its own, of about 90 MB."""
IDLE_FOR: Final = 1800.0
"""Seconds after the last press of a button after which a lab is ended."""
_LOOKS_EVERY: Final = 30.0


class Full(Exception):
    """There are as many labs as may be."""


class Labs:
    """Finds the lab of a visitor by the secret in the visitor's cookie."""

    def __init__(self, access_for: str = ACCESS_FOR) -> None:
        self._access_for = access_for
        self._labs: dict[str, Lab] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._sweeping = threading.Thread(target=self._sweep, daemon=True)
        self._sweeping.start()

    def find(self, secret: str) -> Lab | None:
        return self._labs.get(secret)

    def open(self) -> tuple[str, Lab]:
        """Start a lab, and return the secret by which its visitor finds it.

        Raises:
            Full: there are as many as may be.
            Unavailable: its server does not start.
        """
        with self._lock:  # one at a time: a start takes a second of processor time
            if len(self._labs) >= AT_MOST:
                raise Full
            secret, lab = secrets.token_urlsafe(), Lab(self._access_for)
            self._labs[secret] = lab
            return secret, lab

    def end(self, secret: str) -> None:
        """End a lab, if it is there."""
        lab = self._labs.pop(secret, None)
        if lab is not None:
            with lab.lock:
                lab.close()

    def close(self) -> None:
        """End all of them."""
        self._closed.set()
        self._sweeping.join()
        with self._lock:
            for secret in list(self._labs):
                self.end(secret)

    def end_idle(self, now: float) -> None:
        """End those that were left alone, by the monotonic clock."""
        for secret, lab in list(self._labs.items()):
            if now - lab.used_at > IDLE_FOR:
                self.end(secret)

    def _sweep(self) -> None:
        while not self._closed.wait(_LOOKS_EVERY):
            self.end_idle(time.monotonic())
