"""The pages of the console about the system: clients, verifiers, keys."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient
from tests.standins import Watched
from tests.web.test_console import ADA, FORM, ROOT, Console, token_of
from tests.web.test_pages import Elements

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.server.config import read_settings
from dutchdoor.server.settings_report import report
from dutchdoor.services.hooks import Hooks, notify
from dutchdoor.stores.base import Add, Log
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.testing.clock import Clock
from dutchdoor.web.pages.console.plots import Series, plot
from dutchdoor.web.tally import Tally

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def watched() -> Watched:
    return Watched(MemoryStore())


@pytest.fixture
def console(watched: Watched) -> Iterator[Console]:
    clock, store = Clock(), watched
    keys = MasterKeys(MasterKey.generate())
    auth = Auth(store, console=True, hasher=PasswordHasher(CHEAPEST), clock=clock, master_key=keys)  # type: ignore[arg-type]
    found = Console(auth, clock)
    with found.open:
        for who, roles in ((ROOT, ("admin",)), (ADA, ())):
            made = partial(found.auth.directory.admin.create, roles=roles, client=Client(), actor="cli")
            found.call(made, who["email"], password=who["password"])
        yield found


def post(browser: TestClient, path: str, **fields: str) -> Any:
    return browser.post(path, data={**fields, "csrf_token": token_of(browser)}, headers=FORM)


def secret_in(text: str) -> str:
    (secret,) = re.findall(r"<code>(dd[cv]1_[\w-]+)</code>", text)
    return str(secret)


def names(console: Console) -> list[str]:
    return [event.name for event in console.call(console.auth.store.events)]


def test_w30_a_clients_secret_is_on_one_page(console: Console) -> None:
    """The form that adds a client answers with its secret, which no cache stores and no other page shows; so does the
    form for a new secret. Removed, the client is gone, and the page says so.
    """
    root = console.one()
    added = post(root, "/admin/clients", name="orders", kind="confidential")
    assert (added.status_code, added.headers["cache-control"]) == (201, "no-store")
    first = secret_in(added.text)
    (row,) = console.call(console.auth.store.select, RegisteredClient)
    page = root.get("/admin/clients").text
    assert row.id in page and "ddc1_" not in page
    second = secret_in(post(root, f"/admin/clients/{row.id}/secret").text)
    assert first != second
    public = post(root, "/admin/clients", name="app", kind="public")
    assert "<code>ddc1_" not in public.text
    gone = post(root, f"/admin/clients/{row.id}/remove")
    assert (gone.status_code, gone.headers["location"]) == (303, "/admin/clients?done=client-removed&within=0")
    page = root.get(gone.headers["location"]).text
    assert "The client was removed." in page and row.id not in page
    happened = names(console)
    assert [happened.count(name) for name in ("client_added", "client_secret_changed", "client_removed")] == [2, 1, 1]


def test_w30_a_verifiers_key_is_on_one_page(console: Console) -> None:
    """The form that adds a verifier answers with its key, and so does the form for a new one. A name that is taken and
    a name that is no word are refused with the reason.
    """
    root = console.one()
    first = secret_in(post(root, "/admin/verifiers", name="orders").text)
    again = post(root, "/admin/verifiers", name="orders")
    assert (again.status_code, "already exists" in again.text, "ddv1_" in again.text) == (409, True, False)
    assert post(root, "/admin/verifiers", name="two words").status_code == 422
    assert "ddv1_" not in root.get("/admin/verifiers").text
    second = secret_in(post(root, "/admin/verifiers/orders/key").text)
    assert first != second
    gone = post(root, "/admin/verifiers/orders/remove")
    assert gone.headers["location"].startswith("/admin/verifiers?done=verifier-removed")
    assert console.call(console.auth.store.select, VerifierKey) == []


def test_w31_the_page_shows_who_follows(console: Console) -> None:
    """A verifier that polls is shown with its processes, how far it is behind, and its lease; the node with its row."""
    root = console.one()
    key = secret_in(post(root, "/admin/verifiers", name="orders").text)
    body = {"holder": "A" * 22, "log_epoch": 0, "applied_seq": 0, "wait_ms": 0}
    program = {"authorization": f"Bearer {key}", "accept": "application/json"}
    for _ in range(2):
        answer = console.anyone().post("/auth/revocations/poll", json=body, headers=program).json()
        body |= {"log_epoch": answer["log_epoch"], "applied_seq": answer["upto_seq"]}
    page = root.get("/admin/verifiers").text
    cells = re.findall(r'data-label="(\w[\w ]*)">([^<]*)<', page)
    assert cells[:2] == [("Processes", "1"), ("Behind", "0 entries")]
    assert re.fullmatch(r"\d+ s", cells[2][1])
    assert console.auth.authority.fencing.node.id in page
    assert "this one" in page


def test_w32_keys_are_created_and_revoked(console: Console) -> None:
    """The page shows each key with its state. The next key is created once; a revoked one is shown as such, and each
    is an event of the administrator.
    """
    root = console.one()
    assert post(root, "/admin/keys").headers["location"] == "/admin/keys?done=key-created"
    page = root.get("/admin/keys").text
    assert 'that it sealed">2</td>' in page
    assert "Published, waits to sign" in page and "Create the next key" not in page
    assert post(root, "/admin/keys").status_code == 409
    kid = console.call(console.auth.store.select, StoredKey)[0].kid
    gone = post(root, f"/admin/keys/{kid}/revoke")
    assert gone.headers["location"].startswith("/admin/keys?done=key-revoked&within=")
    assert "Revoked" in root.get("/admin/keys").text
    events = console.call(console.auth.store.events, name="key_revoked")
    assert [event.detail for event in events] == [kid]
    assert events[0].actor not in {"", "cli", "system"}


def test_a_hostile_name_is_text(console: Console) -> None:
    """A name made of markup is shown as it is, and its buttons work."""
    root = console.one()
    shown = post(root, "/admin/clients", name=HOSTILE, kind="public").text
    assert HOSTILE not in shown and "&lt;script&gt;" in shown
    assert HOSTILE not in root.get("/admin/clients").text
    assert post(root, "/admin/clients", name="\u202eevil", kind="public").status_code == 422


def test_w33_a_page_reads_a_bounded_part(console: Console, watched: Watched) -> None:
    """Each page makes the same few calls of the store, whatever is stored, and lists a hundred rows at most."""
    root = console.one()
    seen = {}
    of_one = "/admin/events?who=" + ROOT["email"]
    for path in ("/admin", "/admin/clients", "/admin/verifiers", "/admin/keys", "/admin/events", of_one):
        root.get(path)
        watched.calls.clear()
        root.get(path)
        seen[path] = list(watched.calls)
        assert len(watched.calls) <= 4, (path, watched.calls)
    for number in range(250):
        word = f"c{number:03}"
        client = RegisteredClient(id=word, name=word, secret_hash=b"", created_at=0.0)
        verifier = VerifierKey(id=word, name=word, secret_hash=b"x", created_at=0.0)
        console.call(watched.commit, Add(client), Add(verifier))
    for path in ("/admin/clients", "/admin/verifiers"):
        watched.calls.clear()
        page, found = root.get(path).text, set()
        assert watched.calls == seen[path]
        for _ in range(2):
            found |= set(re.findall(r"<bdi>(c\d+)</bdi>", page))
            page = root.get(re.findall(r'href="([^"]+)" rel="next"', page)[0].replace("&amp;", "&")).text
        assert len(found | set(re.findall(r"<bdi>(c\d+)</bdi>", page))) == 250
        assert 'rel="next"' not in page


def an_event(name: str, now: float, detail: str = "", **more: Any) -> Log:
    return Log(event(name, now=now, client=Client(address="192.0.2.9"), detail=detail, **more))  # type: ignore[arg-type]


def test_w34_the_audit_log_is_filtered_and_paged(console: Console) -> None:
    """Events are found by name, outcome, account, address of the client and time, newest first, each with the address
    of its account and what else is known; a page leads to the older ones with the same filters. A wrong filter is
    shown with what is wrong.
    """
    root, now = console.one(), console.clock()
    ada = console.call(console.auth.store.account_by_email, "ada@example.com")
    for n in range(150):
        console.call(console.auth.store.commit, an_event("login", now - 9000 + n, f"nr {n}", outcome="refused"))
    console.call(console.auth.store.commit, an_event("logout", now - 100, "mine", subject=ada.subject))

    def found(**filters: str) -> list[str]:
        page = root.get("/admin/events", params=filters).text
        return re.findall(r"<summary><bdi>(nr \d+|mine)</bdi>", page)

    page = root.get("/admin/events?name=login&outcome=refused").text
    assert re.findall(r"<summary><bdi>nr (\d+)<", page) == [str(n) for n in range(149, 49, -1)]
    older = re.findall(r'href="([^"]+)" rel="next"', page)[0].replace("&amp;", "&")
    page = root.get(older).text
    assert re.findall(r"<summary><bdi>nr (\d+)<", page) == [str(n) for n in range(49, -1, -1)]
    assert 'rel="next"' not in page and "Newest" in page
    assert found(who="Ada@Example.com", address="192.0.2.9") == found(who=ada.subject, name="logout") == ["mine"]
    assert found(address="192.0.2.10") == []
    moments = [f"{datetime.fromtimestamp(now - 9000 + n, UTC):%Y-%m-%dT%H:%M:%S}" for n in (3, 5)]
    assert found(since=moments[0], until=moments[1]) == ["nr 4", "nr 3"]
    page = root.get("/admin/events?name=logout").text
    assert "192.0.2.9" in page and "<bdi>ada@example.com</bdi>" in page
    for wrong, field in (({"who": "no@example.com"}, "who"), ({"since": "soon"}, "since"), ({"name": "x"}, "name")):
        refused = root.get("/admin/events", params=wrong)
        assert (refused.status_code, 'role="alert"' in refused.text) == (422, True), field


def test_w35_the_audit_log_is_exported(console: Console) -> None:
    """All that the filters find is in a file, as CSV and as lines of JSON, newest first. No cell of the CSV is a
    formula. A browser whose session has ended gets nothing.
    """
    root, now = console.one(), console.clock()
    details = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", 'a "b", c', "ünï", *map(str, range(1200))]
    for n, detail in enumerate(details):
        console.call(console.auth.store.commit, an_event("login", now - 9000 + n, detail, outcome="refused"))
    answer = root.get("/admin/events/export?name=login&outcome=refused&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="audit-\d{8}T\d{6}Z\.csv"', answer.headers["content-disposition"])
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "content-length" not in answer.headers, "the server would cut it there"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["detail"].removeprefix("'") for row in rows] == details[::-1]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}]
    lines = [json.loads(line) for line in root.get("/admin/events/export?name=login&format=jsonl").text.splitlines()]
    assert [line["detail"] for line in lines] == details[::-1]
    assert set(lines[0]) == set(rows[0])
    assert root.get("/admin/events/export?format=xls").status_code == 422
    assert root.get("/admin/events/export?name=x").status_code == 422
    root.post("/auth/logout", data={"csrf_token": token_of(root)}, headers=FORM)
    assert root.get("/admin/events/export").status_code == 303


def test_w35_an_export_ends_with_its_session(console: Console) -> None:
    """An export whose session is ended meanwhile stops at the next piece, and its response has no end."""
    root, now = console.one(), console.clock()
    for n in range(1200):
        console.call(console.auth.store.commit, an_event("login", now - 9000 + n, outcome="refused"))
    admin = console.call(console.auth.store.account_by_email, ROOT["email"])
    sent: list[Any] = []

    async def export() -> None:
        cookie = "; ".join(f"{name}={value}" for name, value in root.cookies.items())
        headers = [(b"host", b"testserver"), (b"cookie", cookie.encode()), (b"sec-fetch-mode", b"navigate")]
        scope = {
            "type": "http", "method": "GET", "path": "/admin/events/export", "query_string": b"format=jsonl",
            "headers": headers, "scheme": "http", "client": ("testclient", 50000), "root_path": "",
            "server": ("testserver", 80), "http_version": "1.1",
        }  # fmt: skip

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body", b"").count(b"\n") == 500:
                await console.auth.authority.end_all(
                    admin.subject, client=Client(), actor="cli", reason="ended_by_admin"
                )

        await console.app(scope, asyncio.Queue().get, send)

    console.call(export)
    assert sent[0]["status"] == 200, sent
    assert sum(message.get("body", b"").count(b"\n") for message in sent) == 500
    assert sent[-1]["more_body"] is True, "no end: the server closes the connection"


def test_w36_the_settings_are_shown_without_secrets(console: Console, tmp_path: Path) -> None:
    """A server's settings are shown with where each was set and what is unsafe about it; no secret, and no URL that may
    hold one. An application that embeds this shows what it gave.
    """
    root = console.one()
    page = root.get("/admin/settings").text
    assert "access_for" in page and "10m" in page and "Auth(...)" in page
    secrets = {
        "DUTCHDOOR_DATABASE": "postgresql://door:hunter2hunter2@db.example.com/door",
        "DUTCHDOOR_MAIL": "smtp://door:letters4letters@mail.example.com",
        "DUTCHDOOR_METRICS_TOKEN": "a-token-of-the-metrics-0123456789",
        "DUTCHDOOR_PEPPER": "a-pepper-of-the-passwords-0123456789",
        "DUTCHDOOR_MASTER_KEY": MasterKey.generate().text(),
    }
    settings = read_settings(
        {"access_for": "30m", "origin": ("https://app.example.com",), "preset": "high"},
        {**secrets, "DUTCHDOOR_PRODUCT": HOSTILE},
    )
    console.auth.api.settings_report = lambda: report(settings)
    page = root.get("/admin/settings").text
    for value in secrets.values():
        assert value not in page and "hunter2" not in page and "letters4letters" not in page
    assert HOSTILE not in page and "&lt;script&gt;" in page
    cells = dict(re.findall(r'<th scope="row"><code>(\w+)</code>.*?</th>\s*<td[^>]*><bdi>(.*?)</bdi>', page, re.DOTALL))
    assert (cells["access_for"], cells["database"], cells["redis"]) == ("30m", "set, and not shown", "not set")
    assert re.search(r"<code>access_for</code>.*?<bdi>--access-for</bdi>", page, re.DOTALL)
    assert re.search(r"<code>idle_for</code>.*?<bdi>preset \(--preset\)</bdi>", page, re.DOTALL)
    assert "Unsafe" in page and "There is no https public URL." in page and "Access tokens live 30 minutes." in page
    gone = tmp_path / "gone.pem"
    console.auth.api.settings_report = lambda: report(replace(settings, proxy=("no network",), tls_cert=str(gone)))
    assert "no network" in root.get("/admin/settings").text


def numbers(page: str, title: str) -> dict[str, list[str]]:
    """The table of a plot: by step, the values."""
    figure = page[page.index(f"<b>{title}</b>") :].partition("</figure>")[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', figure)
    return {step: re.findall(r"<td[^>]*>([^<]*)</td>", cells) for step, cells in rows}


def test_w37_the_overview_counts_what_happened(console: Console) -> None:
    """Sign-ins, refusals and endings are counted from the audit log by minute, hour and day, beside each plot in a
    table; the patterns of the newest sign-ins too. An unknown range is refused.
    """
    root, now = console.one(), console.clock()
    hour = now // 3600 * 3600
    for name, at, detail in (
        *[("session_started", hour - 3600 + n, "session") for n in range(5)],
        *[("session_started", hour - 7200 + n, "hybrid") for n in range(2)],
        ("token_issued", hour - 7200, ""), ("login", hour - 7200, ""), ("refresh_theft", hour - 7200, ""),
        ("session_ended", hour - 7200, ""), ("login", now - 86_400 * 40, ""),
    ):  # fmt: skip
        console.call(console.auth.store.commit, an_event(name, at, detail))
    page = root.get("/admin").text
    steps = [f"{datetime.fromtimestamp(hour - before, UTC):%H:%M}" for before in (3600, 7200)]
    signed_in = numbers(page, "Sign-ins")
    assert (len(signed_in), signed_in[steps[0]], signed_in[steps[1]]) == (24, ["5", "0"], ["2", "1"])
    assert numbers(page, "Refusals")[steps[1]] == ["1", "1", "0"]
    assert numbers(page, "Endings")[steps[1]] == ["0", "1"]
    assert re.findall(r"<dt>([\w ]+)</dt><dd>(\d+)</dd>", page) == [
        ("Session cookie", "6"), ("Refresh and access token", "2"),
    ]  # fmt: skip
    assert sum(int(cells[0]) for cells in numbers(root.get("/admin?range=30d").text, "Sign-ins").values()) == 8
    assert len(numbers(root.get("/admin?range=1h").text, "Sign-ins")) == 30
    assert root.get("/admin?range=1y").status_code == 422
    elements = Elements(page)
    assert len(elements.all("svg")) == 3 and all(each["aria-label"] for each in elements.all("svg"))


def test_w37_refreshes_and_fences_are_those_of_the_process(console: Console) -> None:
    """They write no event: the page counts what this process did, and says since when."""
    root = console.one()
    program = TestClient(console.app)
    tokens = program.post("/auth/login", json={**ADA, "mode": "hybrid"}).json()
    for _ in range(2):
        tokens = program.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    wrong = {"refresh_token": tokens["refresh_token"][:-4] + "AAAA"}
    assert program.post("/auth/refresh", json=wrong).status_code == 401
    post(root, "/admin/clients", name="orders", kind="public")
    (client,) = console.call(console.auth.store.select, RegisteredClient)
    post(root, f"/admin/clients/{client.id}/remove")
    page = root.get("/admin").text
    assert list(numbers(page, "Refreshes").values())[-1] == ["2", "1"]
    assert len(numbers(page, "Fences: the slowest wait")) == 24
    assert f"since it began at {datetime.fromtimestamp(console.auth.api.tally.began, UTC):%Y-%m-%d %H:%M} UTC" in page


def test_the_overview_counts_once_for_many(console: Console, watched: Watched) -> None:
    """Administrators who look within ten seconds cost one count."""
    root = console.one()
    root.get("/admin")
    watched.calls.clear()
    for _ in range(3):
        root.get("/admin")
    assert "count_events" not in watched.calls


def test_bars_stand_on_each_other_below_the_top() -> None:
    """Each bar is as high as its value, from the end of the one below it; the scale ends at a round number."""
    made = plot("t", ["a", "b"], [Series("x", [3, 0]), Series("y", [4, 7])])
    assert [level.text for level in made.levels] == ["5", "10"]
    first, second = ([float(n) for n in re.findall(r"[\d.]+", line)] for line in made.outlines)
    floor, top = made.floor, made.levels[1].at
    assert first[1] == floor and second[1] == first[2]
    assert second[2] == pytest.approx(floor - 0.7 * (floor - top), abs=0.2)
    assert plot("t", ["a"], [Series("x", [0])]).is_empty
    assert [plot("t", ["a"], [Series("x", [n])]).levels[1].text for n in (1, 11, 20, 0.03)] == ["1", "20", "20", "0.05"]


def test_the_counts_of_a_process_are_bounded() -> None:
    """Of the steps, as many are kept as are shown; a clock that steps back loses nothing."""
    clock, hooks = Clock(), Hooks()
    tally = Tally(hooks, clock)
    for _ in range(500):
        notify(hooks.refreshed, True)
        clock.advance(60)
    assert sum(each.refreshed for each in tally.steps("1h", int(clock() // 120) - 29)) == 58
    assert sum(each.refreshed for each in tally.steps("24h", int(clock() // 3600) - 23)) == 500
    assert [len(kept) for kept in tally._kept.values()] == [30, 9, 1]
    clock.advance(-3600)
    notify(hooks.fence_waited, "fenced", 0.25)
    clock.advance(3600)
    assert sum(each.fences for each in tally.steps("1h", int(clock() // 120) - 29)) == 1
