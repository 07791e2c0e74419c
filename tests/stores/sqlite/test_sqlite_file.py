"""The files of a SQLite store: whose they are, how they are named, and which are left alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import grp
import os
import pwd
import sqlite3
import stat
from pathlib import Path

import pytest

from dutchdoor.auth.key_file import read_or_make_master_key
from dutchdoor.errors import Misconfigured
from dutchdoor.stores.base import Revoke
from dutchdoor.stores.sqlite import SqliteStore, changes, records
from dutchdoor.stores.urls import make_store
from dutchdoor.testing.conformance import a_revocation


async def test_the_files_are_their_owners_alone(path, store):
    """Hashes and sealed keys are closed to other users: every file has mode 0600, whatever the umask."""
    await store.commit(Revoke(a_revocation()))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["test.db", "test.db-wal", "test.db-shm", "test.db-head"], 0o600)


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-head"])
@pytest.mark.parametrize("mode", [0o666, 0o644, 0o620, 0o604])
async def test_p10_a_file_that_others_can_read_or_change_is_refused(path, end, mode):
    """A database of which another user of the machine can read or change any file is not opened, by the rule for the
    file of master keys; the message names the file and what closes it.
    """
    store = SqliteStore(path)
    await store.open()
    await store.close()
    file = Path(f"{path}{end}")
    file.touch()
    file.chmod(mode)
    with pytest.raises(Misconfigured) as refused:
        await store.open()
    assert f"chmod 600 {file}" in str(refused.value)
    file.chmod(0o600)
    await store.open()
    await store.close()


def a_group_without_a_name():
    named = {group.gr_gid for group in grp.getgrall()}
    return next(number for number in range(54_321, 60_000) if number not in named)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another group")
async def test_p10_a_volume_of_kubernetes_is_opened(path):
    """Kubernetes gives each file of a volume to the pod's fsGroup, with mode 0660. Such a database is opened, with its
    master key: the group is one of the process, and has no name. A group that has one, or is not ours, is refused, and
    so is a file that the world can read.
    """
    ours, keys = a_group_without_a_name(), path.with_name("keys")
    os.setegid(ours)
    try:
        await (store := SqliteStore(path)).open()
        read_or_make_master_key(keys)
        await store.close()
        for group, mode, opens in (
            (ours, 0o660, True),
            (ours, 0o664, False),
            (0, 0o660, False),
            (ours + 1, 0o660, False),
            (ours, 0o600, True),
        ):
            for file in path.parent.iterdir():
                os.chown(file, -1, group)
                file.chmod(mode)
            for open_it in (store.open, functools.partial(asyncio.to_thread, read_or_make_master_key, keys)):
                with contextlib.nullcontext() if opens else pytest.raises(Misconfigured):
                    await open_it()
            if opens:
                await store.commit(Revoke(a_revocation()))
                await store.close()
    finally:
        os.setegid(0)


@pytest.mark.parametrize("end", ["-wal", "-shm", "-head"])
@pytest.mark.parametrize("lost", [True, False])
async def test_p10_a_link_beside_the_database_is_not_followed(path, tmp_path, end, lost):
    """A link that another user of the machine puts where a file of the database belongs makes us neither overwrite nor
    create what it leads to.
    """
    target, link = tmp_path / "target", Path(f"{path}{end}")
    if not lost:
        target.write_text("of somebody else")
        target.chmod(0o600)
    link.symlink_to(target)
    with pytest.raises(Misconfigured) as refused:
        await SqliteStore(path).open()
    assert str(link) in str(refused.value)
    assert target.read_text() == "of somebody else" if not lost else not target.exists()


async def test_p10_a_pipe_in_place_of_the_head_is_refused(path):
    """What is no file is refused, and is not waited for."""
    os.mkfifo(f"{path}-head", 0o600)
    with pytest.raises(Misconfigured):
        await SqliteStore(path).open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_p10_a_command_of_root_leaves_the_files_to_the_databases_owner(path):
    """Root runs a command on the database of a service: every file beside it belongs to the service's user after, who
    could not open it otherwise.
    """
    await (store := SqliteStore(path)).open()
    await store.close()
    nobody = pwd.getpwnam("nobody")
    os.chown(path, nobody.pw_uid, nobody.pw_gid)
    for beside in Path(path).parent.glob(f"{Path(path).name}-*"):
        beside.unlink()
    await store.open()
    owners = {each.name: each.stat().st_uid for each in Path(path).parent.glob(f"{Path(path).name}*")}
    await store.close()
    assert set(owners.values()) == {nobody.pw_uid}
    assert f"{Path(path).name}-head" in owners


async def test_a_session_is_found_by_its_key(path, store):
    """Look-ups use indexes: none of the reads of a request scans a table, and live sessions have a small index."""
    plans = {
        records.SESSION_WITH_ACCOUNT: 1,
        records.SESSIONS_OF: 2,
        "SELECT 1 FROM accounts WHERE email = ?": 1,
        "DELETE FROM one_time_tokens WHERE subject = ? AND purpose = ?": 2,
        changes._END_ALL: 4,
        changes._ENDING: 2,
        changes._LIVE: 2,
    }
    connection = sqlite3.connect(path)
    for sql, values in plans.items():
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ["x"] * values)]
        assert not [step for step in plan if step.startswith("SCAN")], plan
    assert "sessions_not_ended" in str(list(connection.execute(f"EXPLAIN QUERY PLAN {records.SESSIONS_OF}", ["x", 1])))
    connection.close()


def test_urls_name_files():
    """Three slashes are relative, four absolute; anything else is refused before a file is made of it."""
    assert make_store("sqlite:////srv/door.db")._path == Path("/srv/door.db")
    assert make_store("sqlite:///door.db")._path == Path.cwd() / "door.db"
    for wrong in (
        "sqlite:",
        "sqlite://host/x",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///x?mode=ro",
        "mysql://h/x",
        "x",
    ):
        with pytest.raises(Misconfigured):
            make_store(wrong)


async def test_a_directory_that_is_not_there_is_misconfigured(tmp_path):
    """Opening makes no directories: a mistyped path is reported, not created."""
    with pytest.raises(Misconfigured):
        await SqliteStore(tmp_path / "no" / "such.db").open()


@pytest.mark.parametrize("kind", ["text", "other", "application"])
async def test_a_file_that_is_not_ours_is_not_touched(path, kind):
    """The file of another program stays as it was, and is refused by name."""
    if kind == "text":
        path.write_text("not a database " * 100)
    else:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE migrations (id)" if kind == "application" else "CREATE TABLE users (id)")
        other.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(Misconfigured):
        await SqliteStore(path).open()
    if kind == "text":
        assert path.read_bytes() == before
    else:
        with sqlite3.connect(path) as other:
            assert len(list(other.execute("SELECT * FROM sqlite_master"))) == 1
        other.close()
