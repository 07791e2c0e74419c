"""Two versions over one database (I-26), and a database that is restored from a backup (I-15)."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.backing import a_postgres, new_database
from tests.faults.client import History
from tests.faults.cluster import HERE, begin, cluster
from tests.faults.test_nodes import fenced, proof_of
from tests.faults.test_restarts import judge_restarts, served, while_they_work
from tests.fence.live.test_live import add_key
from tests.fence.live.verifying import verifiers

A_NEWER_VERSION = """
ALTER TABLE dutchdoor.accounts ADD COLUMN of_a_newer_version text NOT NULL DEFAULT '';
INSERT INTO dutchdoor.migrations (name, sha256, additive) VALUES ('9999_newer', 'x', true);
"""


@pytest.mark.soak
async def test_i26_a_newer_version_beside_this_one(tmp_path: Path) -> None:
    """While people work, a newer version brings its additive change to the database: the nodes of this version go on,
    and one that is started anew over the newer schema serves too. No one notices.
    """
    with a_postgres() as postgres, cluster(tmp_path / "cluster", database=postgres.url()) as ours:

        def upgrade(history: History) -> None:
            postgres.sql(A_NEWER_VERSION)
            served(history)
            for node in ours.nodes[:2]:
                assert node.stop() == 0
                node.start()
                served(history)

        history = await while_they_work(ours, upgrade, count=4)
        judge_restarts(history)


@pytest.mark.soak
async def test_i26_a_database_of_another_kind_stops_the_start(tmp_path: Path) -> None:
    """A change that is not additive is distinguished from one that is: a node of this version does not start over it,
    and says why.
    """
    newer = A_NEWER_VERSION.replace("true", "false")
    with a_postgres() as postgres, cluster(tmp_path / "cluster", nodes=1, database=postgres.url()) as ours:
        ours.stop()
        postgres.sql(newer)
        with pytest.raises(AssertionError, match="newer than this program"):
            ours.start()
        ours.nodes[0].kill()


@pytest.mark.soak
async def test_i26_a_first_start_that_is_killed_goes_on(tmp_path: Path) -> None:
    """However often the nodes that make a new database are killed in the middle of it, at whatever step, the next start
    finds or finishes it.
    """
    lots = random.Random(26)
    for n, kind in enumerate(["sqlite", "postgres", "postgres", "sqlite", "postgres"] * 4):
        with new_database() as url:
            more = {"database": url} if kind == "postgres" else {}
            with cluster(tmp_path / f"{n}", nodes=2, start=False, **more) as ours:
                for _ in range(2):
                    for node in ours.nodes:
                        node.begin()
                    await asyncio.sleep(lots.uniform(0.3, 1.2))
                    for node in ours.nodes:
                        node.kill()
                ours.start()
                async with ours.beside() as node:
                    held = await begin(node)
                async with ours.wires(2) as wires:
                    for wire in wires:
                        assert (await wire.served("GET", "/auth/me", **proof_of(held))).status == 200


# --- I-15 -------------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_i15_a_restored_backup(tmp_path: Path) -> None:
    """After a restore and `dutchdoor restored` people go on with what the backup knows. What verifiers know to be
    revoked stays ended there; and ending everything of a person ends the tokens of sign-ins that the backup lacks,
    since no epoch is ever given twice.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease="1s") as ours:
        path = ours.folder / "dutchdoor.db"
        async with ours.beside() as node:
            key = await add_key(node)
            held = [await begin(node) for _ in range(3)]
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as target:
            source.backup(target)
        subject = held[1].account.subject
        async with ours.beside() as node:  # what the backup lacks
            await node.authority.end_all(subject, client=HERE, actor="cli")
            held.append(await begin(node, subject))
        with verifiers(2, ours.public, key, [one.access_token for one in held]) as following:
            async with ours.beside() as node:
                await fenced(node, await node.authority.end(held[0].session.id, client=HERE, actor="cli"))
                ended_at = time.monotonic()
            # The machine is lost; the backup takes its place.
            ours.nodes[0].kill()
            for leftover in ours.folder.glob("dutchdoor.db*"):
                leftover.unlink()
            path.touch(0o600)
            path.write_bytes((tmp_path / "backup.db").read_bytes())
            said = await asyncio.to_thread(ours.nodes[0].command, "restored", "--yes", "--json")
            assert json.loads(said)["log_epoch"] > 1
            await asyncio.to_thread(ours.nodes[0].start)
            async with ours.wires(1) as (wire,):
                again = await wire.served("POST", "/auth/refresh", {"refresh_token": held[2].refresh_token})
                assert again.status == 200
                assert (await wire.served("GET", "/auth/me", bearer=again.json["access_token"])).status == 200
                assert (await wire.served("GET", "/auth/me", **proof_of(held[3]))).status == 401, (
                    "it is not in the backup"
                )
            async with ours.beside() as node:
                await fenced(node, await node.authority.end_all(subject, client=HERE, actor="cli"))
                all_ended_at = time.monotonic()
            # Only verifiers that follow the restored server accept anything by then.
            seen = await asyncio.to_thread(lambda: [each.stop(2, all_ended_at) for each in following])
        for one in seen:
            assert one.accepted[2] > all_ended_at, "the verifiers do not follow: nothing was tested"
            assert one.accepted.get(0, 0.0) < ended_at
            assert one.accepted.get(1, 0.0) < all_ended_at
            assert one.accepted.get(3, 0.0) < all_ended_at
