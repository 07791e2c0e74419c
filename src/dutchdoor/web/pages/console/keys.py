"""The page of signing keys: their states, and the forms that create the next one and revoke one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dutchdoor.jose.signing_keys import KeyState, StoredKey, with_states
from dutchdoor.model.master_key import MasterKeys, sealed_by
from dutchdoor.texts import mark
from dutchdoor.web.admin import key_view, next_key
from dutchdoor.web.api import Call, Route
from dutchdoor.web.fences import wait_for
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.schemas import instant

__all__ = ["routes"]

PATH = f"{CONSOLE_PATH}/keys"

STATES: Mapping[KeyState, str] = {
    "upcoming": mark("Published, waits to sign"),
    "signing": mark("Signs"),
    "verifying": mark("Verifies"),
    "retired": mark("Retired"),
    "revoked": mark("Revoked"),
}


def routes(console: Console) -> list[Route]:
    page = KeysPage(console)
    return [
        console.page(PATH, page.show, summary="Show the signing keys and the master keys."),
        console.act(PATH, page.rotate, summary="Create the next signing key."),
        console.act(PATH + "/{kid}/revoke", page.revoke, summary="Revoke a signing key."),
    ]


class KeysPage:
    """Shows signing keys, the newest first, and the master keys that sealed them."""

    def __init__(self, console: Console) -> None:
        self.console = console

    async def show(self, call: Call) -> Response:
        authority = call.authority
        now = authority.clock()
        found = with_states(await authority.store.select(StoredKey), now)
        waiting = next((row for row, state in found if row.alg == authority.alg and state == "upcoming"), None)
        return self.console.show(
            call,
            "keys",
            keys=[_shown(row, state) for row, state in reversed(found)],
            waits_until=None if waiting is None else instant(waiting.signs_at),
            signs_at=instant(now + authority.policy.key_publish_for),
            masters=_masters(authority.master, found),
        )

    async def rotate(self, call: Call) -> Response:
        await next_key(call)
        return self.console.done(PATH, "key-created")

    async def revoke(self, call: Call) -> Response:
        done = await call.authority.kill_key(call.params["kid"], **call.by)
        return self.console.done(PATH, "key-revoked", await wait_for(call, done))


def _shown(row: StoredKey, state: KeyState) -> dict[str, Any]:
    view = key_view(row, state)
    return {
        "kid": view.kid,
        "alg": view.alg,
        "state": state,
        "words": STATES[state],
        "signs_at": view.signs_at,
        "signs_until": view.signs_until,
        "verifies_until": view.verifies_until,
        "revoked_at": None if row.revoked_at is None else instant(row.revoked_at),
        "exported": row.exported_at is not None,
        "master": sealed_by(row.sealed).hex(),
    }


def _masters(master: MasterKeys, found: list[tuple[StoredKey, KeyState]]) -> list[dict[str, Any]]:
    """Return the master keys of this process, and those that sealed a key and are not configured here."""
    used = Counter(sealed_by(row.sealed) for row, state in found if state not in {"retired", "revoked"})
    here = [key.id for key in master]
    elsewhere = dict.fromkeys(sealed_by(row.sealed) for row, _ in found if sealed_by(row.sealed) not in here)
    return [
        {"id": one.hex(), "first": place == 0, "here": one in here, "sealed": used[one]}
        for place, one in enumerate([*here, *elsewhere])
    ]
