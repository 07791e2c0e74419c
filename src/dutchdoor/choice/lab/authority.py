"""The sign-in server of one lab: `dutchdoor serve` with its defaults in a temporary folder, and short access tokens."""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from http import HTTPStatus
from typing import Any, Final

import httpx2

from dutchdoor.choice.own_folder import own_folder
from dutchdoor.choice.own_server import ENDS_WITHIN, end, start
from dutchdoor.errors import Unavailable
from dutchdoor.model.ids import decode

__all__ = ["Authority"]

ANSWERS_WITHIN: Final = 30.0
_ADMIN: Final = "administrator@lab.example"
_SESSION: Final = (
    "id", "secret_hash", "salt", "epoch", "generation", "sibling", "device", "created_at", "last_seen_at",
    "idle_expires_at", "expires_at", "ended_at", "end_reason", "binding",
)  # fmt: skip
_INSTANTS: Final = frozenset({"created_at", "last_seen_at", "idle_expires_at", "expires_at", "ended_at"})


class Authority:
    """A running server, its only administrator, and its database."""

    def __init__(self, access_for: str) -> None:
        """Start it. Raises `Unavailable` if it does not start."""
        self._ending = ExitStack()
        self._folder = self._ending.enter_context(own_folder("dutchdoor-lab-"))
        self._settings = {
            "DUTCHDOOR_ACCESS_FOR": access_for,
            "DUTCHDOOR_HANDOVER_FOR": "0s",
            "DUTCHDOOR_MAIL": "file:mail",  # printed mail would fill a pipe that no one reads
        }
        self._password = secrets.token_urlsafe()
        (self._folder / "mail").mkdir()
        try:
            self._process, self._port = start(self._folder, self._settings)
            self.origin = f"http://localhost:{self._port}"
            link = (self._folder / "dutchdoor.setup").read_text()
            token = link.strip().partition("#")[2]
            self._call("/auth/setup", {"token": token, "email": _ADMIN, "password": self._password})
        except BaseException:
            self.close()
            raise

    def register(self, email: str, password: str) -> str:
        """Create the account of the lab's owner, and return its subject."""
        body = self._call("/auth/register", {"email": email, "password": password})
        return str(body["user"]["id"])

    def administrator(self) -> str:
        """Return a fresh access token of the administrator: the proof of one must be recent. Raises `Unavailable`."""
        body = self._call("/auth/login", {"email": _ADMIN, "password": self._password, "mode": "jwt"})
        return str(body["access_token"])

    def set_roles(self, subject: str, roles: tuple[str, ...], administrator: str) -> None:
        """Give an account these roles and no others, as an administrator does. Raises `Unavailable`."""
        sent_by = {"authorization": f"Bearer {administrator}"}
        self._call(f"/admin/api/accounts/{subject}/roles", {"roles": roles}, sent_by)

    # --- an outage ---

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Take it away without a warning."""
        self._process.kill()
        self._process.wait(ENDS_WITHIN)
        end(self._process)

    def start_again(self) -> None:
        """Start it once more, on the same port and with the same database."""
        if not self.is_up:
            self._process, _ = start(self._folder, self._settings, port=self._port)

    def close(self) -> None:
        """End it, and remove all that it wrote."""
        process: subprocess.Popen[str] | None = getattr(self, "_process", None)
        if process is not None:
            end(process)
        self._ending.close()

    # --- its database ---

    def session(self, sid: str) -> dict[str, str]:
        """Return the row of a sign-in, {} if there is none."""
        rows = self._rows(f"SELECT {', '.join(_SESSION)} FROM sessions WHERE id = ?", decode(sid))  # noqa: S608 - names
        return next(rows, {})

    def revocations(self) -> list[dict[str, str]]:
        """Return the log of what was revoked: it is about this lab's account alone."""
        return list(self._rows("SELECT seq, kind, id, min_epoch, expires_at FROM revocations ORDER BY seq"))

    def account(self, subject: str) -> dict[str, str]:
        """Return the row of an account."""
        return next(self._rows("SELECT subject, email, roles, epoch FROM accounts WHERE subject = ?", subject), {})

    def _rows(self, query: str, *values: object) -> Iterator[dict[str, str]]:
        path = self._folder / "dutchdoor.db"
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            for row in connection.execute(query, values).fetchall():
                yield {name: _text(row[name], is_instant=name in _INSTANTS) for name in row.keys()}  # noqa: SIM118

    def _call(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        try:
            with httpx2.Client(timeout=ANSWERS_WITHIN, trust_env=False) as client:
                answer = client.post(f"{self.origin}{path}", json=body, headers=dict(headers or {}))
        except httpx2.HTTPError as exc:
            raise Unavailable(f"the server of the lab does not answer: {exc}") from None
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            raise Unavailable(f"the server of the lab answered {answer.status_code} at {path}: {answer.text}")
        found: Mapping[str, Any] = json.loads(answer.text)
        return found


def _text(value: object, *, is_instant: bool) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if is_instant and isinstance(value, float):
        return f"{value:.3f}"
    return str(value)
