"""Webhooks by command and on the page of the console, which share their verbs with the admin API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.running import Run, run
from tests.web.test_console import Console, console
from tests.web.test_console_system import post
from tests.webhooks.receiver import Receiver, Reply, receiving

__all__ = ["console", "run"]

NETWORK = ("--webhook-network", "127.0.0.0/8")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_a_webhook_by_command(run: Run, receiver: Receiver) -> None:
    """B26: its secret is printed once; a test, a status and a replay say what is; each step is in the audit log."""
    assert run("user", "create", "ada@example.com", "--password-stdin", text="an unlikely phrase 42").code == 0
    refused = run("webhook", "add", receiver.url)
    assert (refused.code, "webhook_network" in refused.err) == (2, True)
    added = run("webhook", "add", receiver.url, "--event", "login", "--json", *NETWORK).json
    receiver.secrets.append(added["secret"])
    assert run("webhook", "add", receiver.url, "--event", "logn", *NETWORK).code == 2
    (row,) = run("webhook", "list", "--json").json
    assert (row["id"], row["events"], row["state"]) == (added["id"], ["login"], "active")
    assert added["secret"] not in run("webhook", "list").out
    assert run("webhook", "status").code == 0
    assert run("webhook", "test", row["id"], *NETWORK).out == "Delivered: status 204.\n"
    (message,) = receiver.messages
    assert (message.type, message.verified) == ("test", True)
    receiver.answers = lambda _message: Reply(418)
    failed = run("webhook", "test", row["id"], *NETWORK)
    assert (failed.code, failed.out) == (1, "Not delivered: status 418.\n")
    private = run("webhook", "test", row["id"], "--json")
    assert (private.code, "webhook_network" in private.json["failure"]) == (1, True)
    second = run("webhook", "rotate", row["id"], "--json").json["secret"]
    assert second != added["secret"]
    assert run("webhook", "replay", row["id"], "--since", "1d", "--user", "ada@example.com").code == 0
    assert run("webhook", "replay", row["id"], "--since", "1d").code == 0
    assert run("webhook", "enable", row["id"]).code == 0
    assert run("webhook", "remove", row["id"]).out == "Removed.\n"
    assert "There is no webhook" in run("webhook", "remove", row["id"]).err
    assert run("webhook", "list").out == "There are no webhooks.\n"
    logged = [event["name"] for event in run("audit", "--json").json]
    names = ("webhook_added", "webhook_secret_changed", "webhook_replayed", "webhook_removed", "webhook_enabled")
    assert [logged.count(name) for name in names] == [1, 1, 2, 1, 0]


def test_a_webhook_on_the_page(console: Console) -> None:
    """B26: the secret is on the page of the form that made it, and on no other; what is wrong is said at the form."""
    browser = console.one()
    refused = post(browser, "/admin/webhooks", url="http://example.com", events="")
    assert (refused.status_code, "must begin with https" in refused.text) == (422, True)
    private = post(browser, "/admin/webhooks", url="https://[::ffff:10.0.0.1]/", events="")
    assert (private.status_code, "10.0.0.1 is a private address" in private.text) == (422, True)
    added = post(browser, "/admin/webhooks", url="https://example.com/hooks", events="login logout", client="yes")
    (secret,) = re.findall(r"<code>(whsec_[^<]+)</code>", added.text)
    assert "sealed with the master key" in added.text
    page = browser.get("/admin/webhooks").text
    assert secret not in page
    assert "https://example.com/hooks" in page
    (name,) = re.findall(r"/admin/webhooks/([\w-]+)/remove", page)
    assert "whsec_" in post(browser, f"/admin/webhooks/{name}/secret").text
    assert post(browser, f"/admin/webhooks/{name}/enable").headers["location"].endswith("done=webhook-enabled")
    gone = post(browser, f"/admin/webhooks/{name}/remove")
    assert "The webhook was removed." in browser.get(gone.headers["location"]).text


def test_a_test_message_from_the_page(console: Console) -> None:
    """B26: a failure is said in words; the address of a name that does not exist is one."""
    browser = console.one()
    post(browser, "/admin/webhooks", url="https://localhost/hooks", events="")
    (name,) = re.findall(r"/admin/webhooks/([\w-]+)/remove", browser.get("/admin/webhooks").text)
    assert "private address" in post(browser, f"/admin/webhooks/{name}/test").text


def test_the_console_signs_everyone_out(console: Console) -> None:
    """After a break-in one button ends every session, the administrator's own too, and says when it is in force."""
    browser, other = console.one(), console.one()
    answer: Any = post(browser, "/admin/accounts/sign-out-all")
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/accounts?done=all-signed-out&within=0")
    for each in (browser, other):
        assert each.get("/auth/me").status_code == 401
