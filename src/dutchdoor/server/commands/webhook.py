"""`dutchdoor webhook`: endpoints that are sent audit events."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from msgspec import to_builtins

from dutchdoor.auth import Auth
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.durations import read_duration
from dutchdoor.model.webhooks import Webhook
from dutchdoor.server.options import as_json, find_account, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import instant, print_json, print_pairs, print_table, say, write
from dutchdoor.services.webhooks import NewWebhook, Standing

__all__ = ["webhook"]


@click.group()
def webhook() -> None:
    """Add, list, test and remove webhooks, change their secrets, and send again."""


@webhook.command(
    epilog="Example: dutchdoor webhook add https://example.com/hooks --event account_created --event account_erased"
)
@click.argument("url")
@click.option("--event", "events", multiple=True, metavar="EVENT", help="Send this audit event. Default: all of them.")
@click.option("--with-client", is_flag=True, help="Send the network address, country and device of clients, too.")
@as_json
@with_settings("database", "master_key", "webhook_network")
def add(url: str, events: tuple[str, ...], *, with_client: bool, as_json: bool, **options: Any) -> None:
    """Add a webhook: the servers send it what happens from now on. The secret is printed once, and sealed."""
    made = with_auth(
        settings_from(options),
        lambda auth: auth.webhooks.add(url, events=events, with_client=with_client, **BY_COMMAND),
    )
    _print(made, as_json=as_json)


def _print(made: NewWebhook, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": made.webhook.id, "url": made.webhook.url, "secret": made.secret})
        return
    print_pairs([("id", made.webhook.id), ("url", made.webhook.url), ("secret", made.secret)])
    say("The secret is shown only once.")


@webhook.command("list")
@as_json
@with_settings("database", "master_key")
def list_(*, as_json: bool, **options: Any) -> None:
    """List webhooks."""
    found = with_auth(settings_from(options), lambda auth: auth.webhooks.listed())
    if as_json:
        print_json(
            [
                {
                    "id": row.id,
                    "url": row.url,
                    "events": row.events,
                    "with_client": row.with_client,
                    "state": row.disabled or "active",
                    "created_at": instant(row.created_at),
                }
                for row in found
            ]
        )
        return
    print_table(
        ("id", "url", "events", "state", "created"),
        (
            (row.id, row.url, " ".join(row.events) or "all", row.disabled or "active", instant(row.created_at))
            for row in found
        ),
        empty="There are no webhooks.",
    )


@webhook.command(epilog="Example: dutchdoor webhook status --json")
@as_json
@with_settings("database", "master_key")
def status(*, as_json: bool, **options: Any) -> None:
    """Show how far each webhook has got. Exits with 1 if one is disabled, or an event waits for another attempt."""

    async def work(auth: Auth) -> list[Standing]:
        return [await auth.webhooks.standing(each) for each in await auth.webhooks.listed()]

    found = with_auth(settings_from(options), work)
    if as_json:
        print_json([_standing(each) for each in found])
    else:
        print_table(
            ("id", "host", "state", "last delivery", "behind since", "waiting"),
            (
                (
                    each.webhook.id,
                    each.webhook.host,
                    each.webhook.disabled or "active",
                    _when(each.main.delivered_at),
                    _when(each.behind_since),
                    len(each.waiting),
                )
                for each in found
            ),
            empty="There are no webhooks.",
        )
        for each in found:
            for lane in each.waiting:
                write(
                    f"{each.webhook.id}: {lane.subject or 'events without an account'}: {lane.failure}, "
                    f"{lane.tries} times since {_when(lane.failing_since)}, next at {_when(lane.next_at)}"
                )
    sys.exit(1 if any(each.is_failing for each in found) else 0)


def _standing(found: Standing) -> dict[str, object]:
    return {
        "id": found.webhook.id,
        "host": found.webhook.host,
        "state": found.webhook.disabled or "active",
        "delivered_at": _when(found.main.delivered_at),
        "behind_since": _when(found.behind_since),
        "waiting": [
            {
                "subject": lane.subject,
                "tries": lane.tries,
                "failing_since": _when(lane.failing_since),
                "next_at": _when(lane.next_at),
                "failure": lane.failure,
            }
            for lane in found.waiting
        ],
    }


def _when(at: float) -> str:
    return instant(at) if at else "-"


@webhook.command(epilog="Example: dutchdoor webhook rotate 5o0JgG0QmHvYk2C7w1pXzA")
@click.argument("webhook_id")
@as_json
@with_settings("database", "master_key")
def rotate(webhook_id: str, *, as_json: bool, **options: Any) -> None:
    """Give a webhook a new secret, and print it. For a day, messages are signed by the old one, too."""
    made = with_auth(settings_from(options), lambda auth: auth.webhooks.rotate(webhook_id, **BY_COMMAND))
    _print(made, as_json=as_json)


@webhook.command(epilog="Example: dutchdoor webhook test 5o0JgG0QmHvYk2C7w1pXzA")
@click.argument("webhook_id")
@as_json
@with_settings("database", "master_key", "webhook_network")
def test(webhook_id: str, *, as_json: bool, **options: Any) -> None:
    """Send a message of the type "test" from this machine. Exits with 1 if the endpoint does not take it."""

    async def work(auth: Auth) -> dict[str, object]:
        answer = await auth.webhooks.test(webhook_id)
        return {"delivered": answer.ok, "status": answer.status, "failure": answer.failure}

    found = with_auth(settings_from(options), work)
    if as_json:
        print_json(to_builtins(found))
    else:
        write(f"Delivered: status {found['status']}." if found["delivered"] else f"Not delivered: {found['failure']}.")
    sys.exit(0 if found["delivered"] else 1)


@webhook.command(epilog="Example: dutchdoor webhook replay 5o0JgG0QmHvYk2C7w1pXzA --since 2d --user ada@example.com")
@click.argument("webhook_id")
@click.option("--since", required=True, metavar="DURATION", help="Send events of the last DURATION, such as 2d.")
@click.option("--user", "who", help="Only events of this account.")
@as_json
@with_settings("database", "master_key")
def replay(webhook_id: str, since: str, who: str | None, *, as_json: bool, **options: Any) -> None:
    """Have the servers send events again, in order and under the same ids."""
    begun = time.time() - read_duration(since, "--since")

    async def work(auth: Auth) -> Webhook:
        # An account that is erased has events, too: its subject is enough.
        subject = (await find_account(auth, who)).subject if who and "@" in who else who or ""
        return await auth.webhooks.replay(webhook_id, begun, subject=subject, **BY_COMMAND)

    with_auth(settings_from(options), work)
    if as_json:
        print_json({"id": webhook_id, "since": instant(begun)})
    else:
        write(f"The servers send again what happened since {instant(begun)}.")


@webhook.command(epilog="Example: dutchdoor webhook enable 5o0JgG0QmHvYk2C7w1pXzA")
@click.argument("webhook_id")
@as_json
@with_settings("database", "master_key")
def enable(webhook_id: str, *, as_json: bool, **options: Any) -> None:
    """Send to a disabled webhook again, from where it stopped. What waits for another attempt is sent at once."""
    with_auth(settings_from(options), lambda auth: auth.webhooks.enable(webhook_id, **BY_COMMAND))
    if as_json:
        print_json({"id": webhook_id, "state": "active"})
    else:
        write("Enabled.")


@webhook.command(epilog="Example: dutchdoor webhook remove 5o0JgG0QmHvYk2C7w1pXzA")
@click.argument("webhook_id")
@as_json
@with_settings("database", "master_key")
def remove(webhook_id: str, *, as_json: bool, **options: Any) -> None:
    """Remove a webhook. What was not delivered is not sent any more."""
    with_auth(settings_from(options), lambda auth: auth.webhooks.remove(webhook_id, **BY_COMMAND))
    if as_json:
        print_json({"id": webhook_id, "removed": True})
    else:
        write("Removed.")
