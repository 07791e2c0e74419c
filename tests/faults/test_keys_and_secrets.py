"""Signing keys that change under load (I-22), and secrets that are nowhere (I-23), over three nodes."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from msgspec.structs import replace
from tests.backing import a_postgres, a_valkey
from tests.faults.cluster import Cluster, begin, cluster
from tests.faults.test_nodes import OTHER_PASSWORD, address, mailed

from dutchdoor.model.policy import STANDARD

HOUR = 3600.0
CANARY = "a canary phrase of 27 letters"


@pytest.mark.parametrize("nodes", [2, pytest.param(3, marks=pytest.mark.long)])
async def test_i22_keys_change_and_nothing_valid_is_refused(tmp_path: Path, nodes: int) -> None:
    """Through the whole lives of keys what any node signs every node accepts at once; and the first key is gone from
    the published set in the end.
    """
    with cluster(tmp_path / "cluster", nodes=nodes, clocks=True, key_publish_for="6h", key_sign_for="24h") as ours:
        hours = replace(STANDARD, key_publish_for=6 * HOUR, key_sign_for=24 * HOUR)
        async with ours.beside(policy=hours) as node, ours.wires(nodes) as wires:
            (first,) = await node.authority.jwks()
            token = (await begin(node)).refresh_token
            kids = set()
            for hour in range(0, 62, 5):
                for each in ours.nodes:
                    each.set_clock(hour * HOUR)
                for wire in wires:
                    answer = await wire.served("POST", "/auth/refresh", {"refresh_token": token})
                    assert answer.status == 200, answer
                    token, access = answer.json["refresh_token"], answer.json["access_token"]
                    kids.add(access.partition(".")[0])
                    for other in wires:
                        assert (await other.served("GET", "/auth/me", bearer=access)).status == 200
            assert len(kids) == 3, "the keys did not change: nothing was tested"
            published = [(await wire.served("GET", "/.well-known/jwks.json")).json["keys"] for wire in wires]
            assert all(each == published[0] for each in published)
            assert first["kid"] not in {key["kid"] for key in published[0]}


async def test_i22_a_killed_key_is_dead_on_every_node(several: Cluster) -> None:
    """After `dutchdoor key revoke` is fenced no node accepts what the key signed; every node signs with another, and
    sessions live on.
    """
    async with several.wires(3) as wires, several.beside() as node:
        held = [await begin(node) for _ in range(3)]
        for wire in wires:
            for one in held:
                assert (await wire.served("GET", "/auth/me", bearer=one.access_token)).status == 200
        kid = node.authority.ring.signing(node.authority.clock(), "ES256").kid
        said = await asyncio.to_thread(several.nodes[0].command, "key", "revoke", "--yes", "--json", "--", kid)
        assert json.loads(said)["fenced"] is True
        for wire, one in zip(wires, held, strict=True):
            for each in held:
                assert (await wire.served("GET", "/auth/me", bearer=each.access_token)).status == 401
            answer = await wire.served("POST", "/auth/refresh", {"refresh_token": one.refresh_token})
            assert answer.status == 200
            for other in wires:
                assert (await other.served("GET", "/auth/me", bearer=answer.json["access_token"])).status == 200


# --- I-23 -------------------------------------------------------------------------------------------------------------


async def tell_a_story(ours: Cluster) -> list[str]:
    """Everything that handles a secret, on each node in turn; gives the secrets."""
    secrets = [CANARY, OTHER_PASSWORD]
    async with ours.wires(3) as wires:
        email = address()
        body = {"email": email, "password": CANARY}
        assert (await wires[0].served("POST", "/auth/register", body)).status in {201, 202}  # a 503 is tried again
        for n, more in enumerate(
            ({"mode": "session"}, {"mode": "hybrid", "transport": "body"}, {"mode": "hybrid"}, {"mode": "jwt"})
        ):
            answer = await wires[n % 3].served("POST", "/auth/login", {**body, **more})
            assert answer.status == 200, answer
            said = answer.json
            secrets += [said[name] for name in ("access_token", "refresh_token", "csrf_token") if name in said]
            secrets += [value for name, value in answer.cookies.items() if value and "mark" not in name]
            for wire in wires:
                if "access_token" in said:
                    assert (await wire.served("GET", "/auth/me", bearer=said["access_token"])).status == 200
                if cookie := answer.cookies.get("__Host-dd_session"):
                    await wire.served("GET", "/auth/me", cookie=f"__Host-dd_session={cookie}")
            if "refresh_token" in said:
                again = await wires[1].served("POST", "/auth/refresh", {"refresh_token": said["refresh_token"]})
                secrets += [again.json["refresh_token"], again.json["access_token"]]
        await wires[0].served("POST", "/auth/login", {"email": CANARY, "password": CANARY})
        await wires[1].served("GET", f"/auth/me?access_token={secrets[2]}", bearer=CANARY.replace(" ", "_"))
        await wires[2].served("POST", "/auth/password/forgot", {"email": email})
        async with asyncio.timeout(60):
            while not (link := mailed(ours, email)):
                await asyncio.sleep(0.02)
        secrets.append(link)
        changed = await wires[0].served("POST", "/auth/password/reset", {"token": link, "new_password": OTHER_PASSWORD})
        assert changed.status in {200, 202}, changed
    made = await asyncio.to_thread(ours.nodes[0].command, "verifier", "add", "canary", "--json")
    secrets.append(json.loads(made)["key"])
    made = await asyncio.to_thread(ours.nodes[0].command, "client", "add", "orders", "--json")
    secrets += [value for value in json.loads(made).values() if isinstance(value, str) and value.startswith("dd")]
    secrets += [line for line in ours.master.read_text().split() if len(line) > 30]
    return secrets


def search(secrets: list[str], places: dict[str, bytes], *, there: bytes) -> None:
    """No secret, nor the part of it that proves something, is in any place; and the search finds what is there."""
    assert any(there in content for content in places.values()), "the search finds nothing at all"
    assert len(secrets) > 14
    for secret in secrets:
        for name, content in places.items():
            assert secret.encode() not in content, f"a secret is in {name}"
            assert secret[-24:].encode() not in content, f"the end of a secret is in {name}"


def files_under(*folders: Path, but: str = "") -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not (but and but in str(path))
    }


@pytest.mark.long
@pytest.mark.parametrize("kind", [pytest.param("sqlite", marks=pytest.mark.soak), "valkey"])
async def test_i23_no_secret_is_kept_by_anyone(tmp_path: Path, kind: str) -> None:
    """After a story with every kind of secret none is in a file of the database, its write-ahead log, what nodes wrote,
    Valkey's keys or values, or what the database's own backup would hold.
    """
    if kind == "sqlite":
        with cluster(tmp_path / "cluster", access_log="true") as ours:
            secrets = await tell_a_story(ours)
            places = files_under(ours.folder, but="/mail/")
            del places[str(ours.master)]
        search(secrets, places, there=b"@example.com")
        return
    with a_postgres() as postgres, a_valkey() as valkey:
        urls = {"database": postgres.url(), "redis": valkey.url}
        with cluster(tmp_path / "cluster", access_log="true", **urls) as ours:
            secrets = await tell_a_story(ours)
            postgres.sql("CHECKPOINT")
            places = files_under(ours.folder, but="/mail/")
            del places[str(ours.master)]
            with redis.Redis.from_url(valkey.url) as client:
                kept = [key + (client.dump(key) or b"") for key in client.scan_iter()]
            assert kept
            places["valkey"] = b"\n".join(kept)
            places |= files_under(postgres.folder / "data")
            places |= {"valkey's log": valkey.log.read_bytes(), "postgres's log": postgres.log.read_bytes()}
            tables = postgres.sql("SELECT relname FROM pg_stat_user_tables").split()
            for table in tables:
                rows = postgres.sql(f"SELECT * FROM dutchdoor.{table}")
                places[table] = rows.encode()
            assert len(tables) > 5
    search(secrets, places, there=b"@example.com")
    # The password in the database's URL is in none of ours.
    own = {name: content for name, content in places.items() if name.startswith(str(tmp_path))}
    password = urlsplit(urls["database"]).password or ""
    assert all(password.encode() not in content for content in own.values())
    assert os.path.commonpath(own) == str(ours.folder)
