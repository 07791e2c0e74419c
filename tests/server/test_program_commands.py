"""Commands about programs: verifiers and their nodes, and registered clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.server.conftest import Run, asynchronously, auth_here, made

from dutchdoor.revocation.node_messages import NodeRow


def test_verifier_keys_are_made_listed_and_removed(run: Run) -> None:
    """A key is printed once and stored as a hash; its name is unique and is what metrics call it; removed, it is gone,
    and the log says so.
    """
    ran = run("verifier", "add", "orders", "--json")
    assert "Created the database dutchdoor.db" in ran.err, "in a wrong directory that is worth knowing"
    key = ran.json["key"]
    assert key.startswith("ddv1_")
    printed = run("verifier", "add", "billing").err
    assert "shown only once" in printed
    assert "no database" not in printed
    for path in Path().iterdir():
        assert key.encode() not in path.read_bytes()
    again = run("verifier", "add", "orders")
    assert (again.code, "already" in again.err) == (1, True)
    listed = run("verifier", "list", "--json").json
    assert [each["name"] for each in listed["verifiers"]] == ["billing", "orders"]
    assert (listed["log"], listed["nodes"]) == ({"epoch": 1, "seq": 0}, [])
    table = run("verifier", "list").out
    assert table.split()[:3] == ["NAME", "CREATED", "ID"]
    assert "There are no server processes with rows" in table
    anew = run("verifier", "rotate", "billing", "--json").json
    assert (anew["name"], anew["key"][:5], anew["fenced"]) == ("billing", "ddv1_", True)
    assert run("verifier", "list", "--json").json["log"]["seq"] == 1
    removed = run("verifier", "remove", "orders", "--json").json
    assert removed == {"name": "orders", "removed": True, "fenced": True, "fenced_in_ms": 0}
    assert [each["name"] for each in run("verifier", "list", "--json").json["verifiers"]] == ["billing"]
    assert run("verifier", "list", "--json").json["log"]["seq"] == 2
    assert run("verifier", "remove", "orders").code == 1
    assert run("verifier", "add", "orders").code == 0
    names = [event["name"] for event in run("audit", "--json").json]
    assert names.count("verifier_added") == 3
    assert names.count("verifier_removed") == 1


@pytest.mark.parametrize("name", ["two words", "", "x" * 65, "naïve", 'a"b', "a\n"])
def test_a_verifiers_name_is_a_word(run: Run, name: str) -> None:
    """It stands in metrics and in the rows of nodes."""
    ran = run("verifier", "add", name)
    assert (ran.code, "letters, digits" in ran.err) == (2, True)
    assert not Path("dutchdoor.db").exists()


def test_nodes_are_listed_with_how_far_they_are(run: Run) -> None:
    """The rows of the server's processes: how far behind, and which lease."""
    made(run)
    assert run("session", "end", "--user", "ada@example.com").code == 0

    async def register() -> None:
        async with auth_here() as auth:
            for number, (epoch, acked) in enumerate(((1, 0), (7, 1))):
                row = NodeRow(id=f"{number}" * 22, stamp="A" * 22, log_epoch=epoch, acked_seq=acked, lease_for=10.0)
                await auth.store.node_register(row)

    asynchronously(register())
    nodes = run("verifier", "list", "--json").json["nodes"]
    assert [(node["behind"], node["lease_s"]) for node in nodes] == [(1, 10.0), (None, 10.0)]
    table = run("verifier", "list").out.splitlines()
    assert table[-2].split() == ["0" * 22, "1", "10", "s"]
    assert table[-1].split()[1:] == ["in", "another", "log", "10", "s"]


def test_a_clients_secret_is_printed_once(run: Run) -> None:
    """What is kept of it is a hash; removed, the client is gone."""
    added = run("client", "add", "orders", "--json").json
    assert added["client_secret"].startswith("ddc1_")
    listed = run("client", "list", "--json").json
    assert [(each["client_id"], each["confidential"]) for each in listed] == [(added["client_id"], True)]
    assert added["client_secret"].encode() not in Path("dutchdoor.db").read_bytes()
    assert run("client", "add", "app", "--public", "--json").json["client_secret"] is None
    anew = run("client", "rotate", added["client_id"])
    assert (added["client_id"] in anew.out, "ddc1_" in anew.out, "shown only once" in anew.err) == (True, True, True)
    assert added["client_secret"] not in anew.out
    removed = run("client", "remove", added["client_id"], "--json").json
    assert removed == {"client_id": added["client_id"], "removed": True, "fenced": True, "fenced_in_ms": 0}
    happened = [event["name"] for event in run("audit", "--json").json]
    assert [happened.count(name) for name in ("client_added", "client_secret_changed", "client_removed")] == [2, 1, 1]
