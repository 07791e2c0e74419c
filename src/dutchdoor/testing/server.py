"""A real server for tests: `dutchdoor serve` in a process of its own, over a folder that is thrown away."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidInput, Misconfigured
from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id

__all__ = ["TestServer"]

STARTS_WITHIN: Final = 60.0
STOPS_WITHIN: Final = 30.0


class TestServer:
    """A server on a free port. `url` is its issuer. Use it as a context manager."""

    __test__ = False  # pytest takes it for a test otherwise

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        if isinstance(options, str):
            raise Misconfigured('dutchdoor_server_options returns a list, such as ["--audience", "orders"].')
        self.folder, self._options = folder, options
        self.url = ""
        self._passwords: dict[str, str] = {}

    def __enter__(self) -> Self:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
        command = [sys.executable, "-m", "dutchdoor.server", "serve", "--port", "0", "--handover-for", "0s"]
        with (self.folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this program, with the options of the test
                [*command, *self._options], cwd=self.folder, env=clean, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        lines: queue.Queue[str] = queue.Queue()
        out = self._process.stdout
        threading.Thread(target=lambda: lines.put(out.readline() if out else ""), daemon=True).start()
        try:
            ready = re.search(r"(https?)://\S+:([0-9]+)", lines.get(timeout=STARTS_WITHIN))
        except queue.Empty:
            ready = None
        if ready is None:
            self._stop()
            said = (self.folder / "server.log").read_text().strip()
            raise Misconfigured(f"dutchdoor_server did not start: {said or 'it wrote nothing'}")
        self.url = f"{ready[1]}://localhost:{ready[2]}"  # its issuer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def make_account(self, email: str, *, roles: Iterable[str] = (), password: str = "") -> Account:
        """Create an account on the server. Without a password it has a random one.

        Raises:
            Taken: the address has an account.
            InvalidInput: the address or a role is not acceptable.
        """
        if isinstance(roles, str):
            raise InvalidInput(f'roles is a list: roles=["{roles}"].', field="roles")
        return asyncio.run(self._made(email, tuple(roles), password or new_id()))

    async def _made(self, email: str, roles: tuple[str, ...], password: str) -> Account:
        database, keys = f"sqlite:///{self.folder / 'dutchdoor.db'}", self.folder / "dutchdoor.keys"
        auth = Auth(database, master_key=keys, hasher=PasswordHasher(CHEAPEST))
        await auth.open(upkeep=False)
        try:
            encoded = await auth.directory.hasher.hash(password)
            account = await auth.directory.registration.add(
                email, "", encoded, client=Client(), roles=roles, verified=True
            )
        finally:
            await auth.close()
        self._passwords[email] = password
        return account

    def sign_in(self, email: str, *, roles: Iterable[str] = ()) -> dict[str, Any]:
        """Sign in over HTTP in the mode `hybrid`, and return the answer. An account that is not there is created, with
        these roles.
        """
        if email not in self._passwords:
            self.make_account(email, roles=roles)
        body = {"email": email, "password": self._passwords[email], "mode": "hybrid"}
        asked = urllib.request.Request(  # noqa: S310 - the server of this test
            f"{self.url}/auth/login", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:  # noqa: S310
            signed_in: dict[str, Any] = json.load(answer)
        return signed_in

    def token(self, email: str = "ada@example.com", *, roles: Iterable[str] = ()) -> str:
        """Return an access token of the server for an account, as `sign_in` gets it."""
        token: str = self.sign_in(email, roles=roles)["access_token"]
        return token
