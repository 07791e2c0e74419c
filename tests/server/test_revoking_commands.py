"""Commands that revoke: what they end, and that each says whether that is fenced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import Run, asynchronously, auth_here, is_live, made, served, sign_in
from tests.server.running import running

from dutchdoor.revocation.node_messages import NodeRow
from dutchdoor.server.commands import session as session_commands
from dutchdoor.server.options import say_fence
from dutchdoor.services import endings
from dutchdoor.web.schemas import Fence


def test_sessions_are_listed_and_ended(run: Run) -> None:
    """A session ended by command is dead, by its id or with all of its account's; a mistyped id ends none."""
    made(run)
    tokens = [asynchronously(sign_in("ada@example.com")) for _ in range(3)]
    listed = run("session", "list", "ada@example.com", "--json").json
    assert len(listed) == 3
    first = listed[-1]["id"]
    assert run("session", "end", first, "mistyped").code == 1
    assert asynchronously(is_live(tokens[0]))
    assert run("session", "end", first, "--json").json == {"ended": 1, "fenced": True, "fenced_in_ms": 0}
    assert not asynchronously(is_live(tokens[0]))
    fenced = "Fenced: every server, and every verifier that follows the revocation log, refuses it now.\n"
    assert run("session", "end", first).out == "Revoked 0 sessions.\n" + fenced
    assert run("session", "end", "--user", "ada@example.com").out == "Revoked 2 sessions.\n" + fenced
    assert not asynchronously(is_live(tokens[2]))
    events = run("audit", "--user", "ada@example.com", "--name", "session_ended", "--json").json
    assert {event["actor"] for event in events} == {"cli"}


def test_s29_everything_is_ended_after_a_yes(run: Run) -> None:
    """Everything of every account is ended by one command, which asks first: without a yes nothing is."""
    made(run)
    tokens = [asynchronously(sign_in("ada@example.com")) for _ in range(2)]
    refused = run("session", "end", "--all")
    assert refused.code == 1
    assert "--yes" in refused.err
    assert asynchronously(is_live(tokens[0]))
    fenced = "Fenced: every server, and every verifier that follows the revocation log, refuses it now.\n"
    assert run("session", "end", "--all", "--yes").out == "Revoked 2 sessions.\n" + fenced
    assert not any(asynchronously(is_live(token)) for token in tokens)


def test_s29_ending_everything_says_how_far_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that ends everything of many accounts says on standard error how many are done, while it runs."""
    for name in ("ada", "bob", "cleo"):
        made(run, f"{name}@example.com")
    monkeypatch.setattr(endings, "ENDED_AT_ONCE", 2)
    assert "so far" not in run("session", "end", "--all", "--yes").err
    monkeypatch.setattr(session_commands, "REPORT_EVERY", 0.0)
    assert run("session", "end", "--all", "--yes").err == "2 accounts so far\n3 accounts so far\n"


def test_every_revoking_command_says_whether_it_is_fenced(run: Run) -> None:
    """Without a follower, each is fenced when it returns, in words and in JSON; --no-wait does not ask twice."""
    made(run)
    served()
    kid = run("key", "list", "--json").json[0]["kid"]
    for arguments in (
        ("session", "end", "--user", "ada@example.com"),
        ("session", "end", "--all", "--yes"),
        ("user", "role", "ada@example.com", "editor"),
        ("user", "disable", "ada@example.com"),
        ("key", "revoke", kid, "--yes"),
    ):
        ran = run(*arguments, "--json")
        assert (ran.code, ran.json["fenced"], ran.json["fenced_in_ms"]) == (0, True, 0), arguments
        assert run(*arguments, "--no-wait").out.splitlines()[-1].startswith("Fenced: "), arguments


def test_a_fence_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Fenced; not yet, with the time; and lost, with what to do."""

    def said(**fenced: Any) -> str:
        say_fence(Fence(**fenced))
        return capsys.readouterr().out

    assert said(fenced=True, fenced_in_ms=0).startswith("Fenced: every server, and every verifier")
    assert said(fenced=False, fenced_in_ms=9871) == "Not fenced yet: it takes at most 9.9 s.\n"
    assert "Run the command again" in said(fenced=False, fenced_in_ms=None)


def test_after_a_restore_a_new_log_begins(run: Run) -> None:
    """It is done when the administrator agrees, and says what it means; the log is another, and every account's epoch
    is above any that was given out.
    """
    made(run)
    asked = run("restored")
    assert (asked.code, "Was this database restored?" in asked.err) == (1, True)
    assert run("verifier", "list", "--json").json["log"]["epoch"] == 1
    epoch = run("restored", "--yes", "--json").json["log_epoch"]
    assert epoch > 1_700_000_000_000
    assert run("verifier", "list", "--json").json["log"]["epoch"] == epoch
    assert "Revoke again everything that was revoked" in run("restored", "--yes").out

    async def epochs() -> list[int]:
        async with auth_here() as auth:
            return [account.epoch for account in await auth.store.accounts()]

    assert min(asynchronously(epochs())) >= epoch
    assert run("audit", "--name", "log_begun", "--json").json[0]["actor"] == "cli"


@pytest.mark.parametrize("source", ["by the operator", "by a row in the backup", "by the settings of the servers"])
def test_after_a_restore_every_command_waits_for_the_leases_from_before(run: Run, source: str) -> None:
    """Verifiers may hold leases that the lost servers granted. A command waits for them, though its own setting has
    another lease: what it calls fenced is refused by every verifier.
    """
    made(run)

    async def register() -> None:
        async with auth_here() as auth:
            await auth.store.node_register(
                NodeRow(id="0" * 22, stamp="A" * 22, log_epoch=1, acked_seq=0, lease_for=60.0)
            )

    if source == "by a row in the backup":
        asynchronously(register())
    if source == "by the settings of the servers":
        served(lease=60.0)
    options = ("--lease", "60s") if source == "by the operator" else ()
    assert run("restored", "--yes", *options).code == 0
    ended = run("session", "end", "--user", "ada@example.com", "--no-wait", "--json").json
    assert not ended["fenced"]
    assert ended["fenced_in_ms"] > 60_000
    (row,) = run("verifier", "list", "--json").json["nodes"]
    assert row["lease_s"] == 60.0


def test_a12_restored_says_that_a_server_runs(run: Run, tmp_path: Path) -> None:
    """`restored` beside a running server says so, and says nothing where no other process has the database open."""
    with running(tmp_path):
        ran = run("restored", "--yes")
        assert (ran.code, "Another process has this database open, perhaps a server." in ran.err) == (0, True)
    assert run("restored", "--yes").err == ""
