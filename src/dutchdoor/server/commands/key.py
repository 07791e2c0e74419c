"""`dutchdoor key`: the keys that sign access tokens, and the master key that seals them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import click
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from dutchdoor.auth import Auth
from dutchdoor.errors import Conflict, InvalidInput, Misconfigured, NotFound
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.signing_keys import KeyState, StoredKey, state_of, waiting, with_states
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.audit_events import event
from dutchdoor.model.ids import encode
from dutchdoor.model.master_key import MasterKey, MasterKeys, sealed_by
from dutchdoor.model.sessions import Session
from dutchdoor.server.config import Settings
from dutchdoor.server.options import (
    as_json,
    ask_first,
    no_wait,
    say_fence,
    settings_from,
    wait_for,
    with_auth,
    with_settings,
)
from dutchdoor.server.terminal import instant, print_json, print_table, say, write
from dutchdoor.services.fencing import as_one
from dutchdoor.services.tokens import RING_FRESH_FOR
from dutchdoor.stores.base import Log, Swap
from dutchdoor.stores.transfer import Movable
from dutchdoor.stores.urls import make_store
from dutchdoor.web.schemas import Fence

__all__ = ["key"]

ENDED_TOGETHER = 50
"""Sessions that are revoked at the same moment: the store commits all that wait as one transaction."""


@click.group()
def key() -> None:
    """List, rotate, revoke and export signing keys; generate, list and revoke master keys."""


def view(row: StoredKey, state: KeyState) -> dict[str, object]:
    return {
        "kid": row.kid,
        "number": row.number,
        "alg": row.alg,
        "state": state,
        "created_at": instant(row.created_at),
        "signs_at": instant(_signs_at(row)),
        "signs_until": instant(row.signs_until),
        "verifies_until": instant(row.verifies_until),
        "revoked_at": instant(row.revoked_at) or None,
        "exported_at": instant(row.exported_at) or None,
    }


def _signs_at(row: StoredKey) -> float:
    """When a key begins to sign. A first key is stored with five minutes before its creation, for nodes whose clocks
    are behind.
    """
    return max(row.signs_at, row.created_at)


@key.command("list")
@as_json
@with_settings("database", "master_key")
def list_(*, as_json: bool, **options: Any) -> None:
    """List signing keys, the oldest first."""
    rows, now = with_auth(settings_from(options), lambda auth: auth.store.select(StoredKey)), time.time()
    if as_json:
        print_json([view(row, state) for row, state in with_states(rows, now)])
        return
    print_table(
        ("no", "kid", "alg", "state", "signs from", "signs until", "exported"),
        (
            (
                row.number,
                row.kid,
                row.alg,
                state,
                instant(_signs_at(row)),
                instant(row.signs_until),
                instant(row.exported_at) or "-",
            )
            for row, state in with_states(rows, now)
        ),
        empty="There are no keys yet.",
    )


@key.command(epilog="Examples: dutchdoor key rotate; dutchdoor key rotate --alg EdDSA")
@click.option(
    "--at-once",
    is_flag=True,
    help=f"Sign with the new key within {RING_FRESH_FOR:.0f} s, although verifiers may not have fetched it yet.",
)
@as_json
@with_settings("database", "master_key", "alg", "key_sign_for", "key_publish_for")
def rotate(*, at_once: bool, as_json: bool, **options: Any) -> None:
    """Create the next signing key. The server publishes it first, and signs with it when every cache has it.

    Algorithm and times are those of the servers, unless you set others. While a key waits to sign, there is nothing to
    do: without --at-once, another one of the same algorithm is refused.
    """

    async def work(auth: Auth) -> StoredKey:
        after = waiting(await auth.store.select(StoredKey), auth.authority.alg, auth.authority.clock())
        if after is not None and not at_once:
            text = (
                f"Key {after.kid} is the next one already: it signs from {instant(after.signs_at)}. To sign with "
                "another one now, add --at-once."
            )
            raise Conflict(text, message=text)
        return await auth.authority.rotate(**BY_COMMAND, at_once=at_once)

    needs = ("alg", "key_sign_for", "key_publish_for")
    row, now = with_auth(settings_from(options), work, needs=needs), time.time()
    if as_json:
        print_json(view(row, state_of(row, now)))
    else:
        write(
            f"Created key {row.kid} ({row.alg}). "
            + (
                f"Every server signs with it within {RING_FRESH_FOR:.0f} s."
                if at_once
                else f"Every server shows it in its key set within {RING_FRESH_FOR:.0f} s. It signs from "
                f"{instant(_signs_at(row))}."
            )
        )


@key.command(epilog="Example: dutchdoor key revoke yB6s1S5v... --yes")
@click.argument("kid")
@click.option("--yes", is_flag=True, help="Do not ask.")
@no_wait
@as_json
@with_settings("database", "master_key")
def revoke(kid: str, *, yes: bool, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Revoke a leaked key. Tokens that it signed are refused, and another key signs."""
    settings = settings_from(options)

    async def look(auth: Auth) -> None:
        if all(row.kid != kid for row in await auth.store.select(StoredKey)):
            text = f"There is no key {kid[:100]!a}."
            raise NotFound(text, message=text)

    async def work(auth: Auth) -> tuple[int, Fence]:
        await look(auth)
        done = await auth.authority.kill_key(kid, **BY_COMMAND)
        return done.seq, await wait_for(auth, done, no_wait=no_wait)

    if not yes:
        ask_first(settings, "Every access token that this key signed will be refused. Continue?", look)
    seq, fenced = with_auth(settings, work)
    if as_json:
        print_json({"kid": kid, "state": "revoked", "seq": seq, **to_builtins(fenced)})
    else:
        write(f"Revoked key {kid}.")
        say_fence(fenced)


@key.command(epilog="Example: dutchdoor key export > secret.txt")
@click.argument("kid", required=False)
@as_json
@with_settings("database", "master_key")
def export(kid: str | None, *, as_json: bool, **options: Any) -> None:
    """Print the HS256 secret for a verifier, once. From then on, this server's own API refuses tokens that it signed.

    A service that can verify with this secret can also issue tokens. Give it to one service only, or use ES256.
    """

    async def work(auth: Auth) -> tuple[StoredKey, bytes]:
        rows, now = await auth.store.select(StoredKey), time.time()
        wanted = [row for row, state in with_states(rows, now) if (row.kid == kid if kid else state == "signing")]
        if not wanted:
            text = f"There is no key {kid[:100]!a}." if kid else "No key signs at this time."
            raise NotFound(text, message=text)
        row = wanted[-1]
        if not row.alg.startswith("HS"):
            raise InvalidInput(
                f"{row.kid} is an {row.alg} key: its private part never leaves this server. Verifiers read the public "
                f"part at {auth.authority.issuer}/.well-known/jwks.json."
            )
        if state_of(row, now) == "revoked":
            text = f"{row.kid} is revoked: no verifier may accept it."
            raise Conflict(text, message=text)
        if row.exported_at is not None:
            text = f"{row.kid} was exported at {instant(row.exported_at)}. Create another with `dutchdoor key rotate`."
            raise Conflict(text, message=text)
        secret = Key.from_private_bytes(row.alg, auth.authority.master.open(row.sealed, row.kid), kid=row.kid)
        record = event("key_exported", now=now, **BY_COMMAND, detail=row.kid)
        try:
            # Marked before it is shown: otherwise the holder of an unmarked secret could forge tokens for this API.
            await auth.store.commit(Swap(replace(row, exported_at=now)), Log(record))
        except Conflict:
            raise Conflict(message="Another process changed the key. Try again.") from None
        return row, secret.private_bytes()

    row, raw = with_auth(settings_from(options), work)
    if as_json:
        print_json({"kty": "oct", "alg": row.alg, "use": "sig", "kid": row.kid, "k": encode(raw)})
    else:
        say(f"{row.kid} ({row.alg}), base64url. The secret is shown only once.")
        write(encode(raw))


@key.command(epilog="Example: dutchdoor key masters")
@as_json
@with_settings("database", "master_key")
def masters(*, as_json: bool, **options: Any) -> None:
    """List master keys, with what each of them made: signing keys that may still verify, and live sessions.

    The master key of a session derives its refresh tokens. Sessions with a cookie alone need none, and are not counted.
    """
    settings = settings_from(options)

    async def work(auth: Auth) -> list[_Made]:
        made = {one.id: _Made(one.id.hex(), place) for one, place in _places(auth.authority.master)}
        now = auth.authority.clock()
        for row, state in with_states(await auth.store.select(StoredKey), now):
            each = made.setdefault(sealed_by(row.sealed), _Made(sealed_by(row.sealed).hex()))
            each.keys += state not in {"retired", "revoked"}
        async for session in _refreshable(settings, now):
            made.setdefault(session.master_key_id, _Made(session.master_key_id.hex())).sessions += 1
        return list(made.values())

    found = with_auth(settings, work)
    if as_json:
        print_json(found)
        return
    print_table(
        ("master key", "in the file", "signing keys", "sessions"),
        ((each.id, each.place, each.keys, each.sessions) for each in found),
        empty="There are no master keys.",
    )


@key.command("revoke-master", epilog="Example: dutchdoor key revoke-master 5f0c91aa --yes")
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@no_wait
@as_json
@with_settings("database", "master_key")
def revoke_master(id: str, *, yes: bool, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Revoke all that a lost or leaked master key made: its signing keys, and the sessions that refresh with it.

    ID is one that `key masters` lists. The first key of the file is refused: the servers go on making keys and sessions
    with it. Put a new key above it first, and restart all servers.
    """
    settings = settings_from(options)

    async def look(auth: Auth) -> tuple[list[str], list[Session]]:
        if auth.authority.master.current.id.hex() == id:
            raise InvalidInput(
                f"{id} is the first key of the master key file. Put a new key above it, and restart all servers: "
                "otherwise they go on with this one."
            )
        now = auth.authority.clock()
        rows = await auth.store.select(StoredKey)
        kids = [
            row.kid
            for row, state in with_states(rows, now)
            if sealed_by(row.sealed).hex() == id and state not in {"retired", "revoked"}
        ]
        sessions = [each async for each in _refreshable(settings, now) if each.master_key_id.hex() == id]
        if not kids and not sessions:
            text = f"No master key {id[:100]!a} made a key or a session that is still in use."
            raise NotFound(text, message=text)
        return kids, sessions

    async def work(auth: Auth) -> tuple[int, int, Fence]:
        kids, sessions = await look(auth)
        authority = auth.authority
        done = [await authority.kill_key(kid, **BY_COMMAND) for kid in kids]
        for first in range(0, len(sessions), ENDED_TOGETHER):
            ended = [
                authority.end(each.id, **BY_COMMAND, reason="ended_by_admin")
                for each in sessions[first : first + ENDED_TOGETHER]
            ]
            done += await asyncio.gather(*ended)
        return len(kids), len(sessions), await wait_for(auth, as_one(done), no_wait=no_wait)

    async def count(auth: Auth) -> None:
        kids, sessions = await look(auth)
        say(f"Master key {id} made {len(kids)} signing keys that may verify, and {len(sessions)} live sessions.")

    if not yes:
        ask_first(settings, "All of them will be revoked, and these people must sign in again. Continue?", count)
    kids, sessions, fenced = with_auth(settings, work)
    if as_json:
        print_json({"master_key": id, "keys": kids, "sessions": sessions, **to_builtins(fenced)})
    else:
        write(f"Revoked {kids} signing keys and {sessions} sessions.")
        say_fence(fenced)


class _Made(Struct):
    """What a master key made, and its place in the file."""

    id: str
    place: str = "no"
    keys: int = 0
    sessions: int = 0


def _places(master: MasterKeys) -> Iterator[tuple[MasterKey, str]]:
    for one in master:
        yield one, "first" if one is master.current else "yes"


async def _refreshable(settings: Settings, now: float) -> AsyncIterator[Session]:
    """Read all sessions that have refresh tokens and are live."""
    store = make_store(settings.database.reveal())
    if not isinstance(store, Movable):
        raise Misconfigured("The sessions of this store cannot be listed.")
    await store.open()
    try:
        after: str | None = None
        while True:
            page = await store.export("sessions", after)
            for each in page.records:
                if isinstance(each, Session) and each.master_key_id and each.ended_at is None and each.expires_at > now:
                    yield each
            if (after := page.after) is None:
                return
    finally:
        await store.close()


@key.command(epilog="Example: (umask 077; dutchdoor key master > dutchdoor.keys)")
def master() -> None:
    """Print a new master key. Run this once: all nodes need the same line in their master key files.

    With one server, put it on the first line, above the older keys. With several nodes, add it as the last line on each
    node. When all of them have it and were restarted, move it to the first line on each.
    """
    while True:
        text = MasterKey.generate().text()
        try:
            # A random key may contain the text of a placeholder, which the server refuses.
            MasterKey.parse(text)
        except Misconfigured:
            continue
        write(text)
        return
