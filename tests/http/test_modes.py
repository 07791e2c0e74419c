"""All three patterns end to end, on several processes over one SQLite file: what ends, is dead at the next request.

A server of three workers, started as a person starts it. After each ending every worker is asked, over connections that
are open at once: none may still believe what another one ended.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.world import OTHER_PASSWORD, PASSWORD, REFRESH, SESSION, Answer, Wire, a_world
from tests.running import running_server

from dutchdoor.model.policy import STANDARD

MODES = ("session", "cookie", "body", "jwt")
EACH = [mode if mode == "cookie" else pytest.param(mode, marks=pytest.mark.long) for mode in MODES]
"""Each pattern. A short run has the one that has most parts."""


PATIENT = ("prefer", "wait=20")
"""A log-out waits a quarter of a second for the other workers, and a busy machine may take longer."""


class Site:
    """A running server, its administrator, and its mail."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.wire = folder, Wire(port)
        link = re.search(r"/auth/setup#(\S+)", (folder / "dutchdoor.setup").read_text())
        assert link is not None
        root = {"token": link[1], "email": "root@example.com", "password": PASSWORD}
        assert self.wire.call("POST", "/auth/setup", json=root).status == 201
        self.root = Someone(self, "root@example.com", "body")
        self.people = 0

    def newcomer(self, mode: str) -> Someone:
        self.fill_buckets()
        self.people += 1
        address = f"person{self.people}@example.com"
        made = self.wire.call("POST", "/auth/register", json={"email": address, "password": PASSWORD})
        assert made.status == 201, made
        return Someone(self, address, mode)

    def fill_buckets(self) -> None:
        """Forget who tried what: all these people come from one address, and limits are another file's subject."""
        with contextlib.closing(sqlite3.connect(self.folder / "dutchdoor.db", timeout=60)) as rows, rows:
            rows.execute("DELETE FROM limits")

    def mailed_token(self, address: str, known: set[str]) -> str:
        for _ in range(3000):
            for path in sorted((self.folder / "mail").iterdir()):
                letter = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
                if letter["to"] and address in letter["to"]:
                    body = letter.get_body(("plain",))
                    assert body is not None
                    for token in re.findall(r"ddo1_[\w-]{48}", body.get_content()):
                        if token not in known:
                            return str(token)
            time.sleep(0.02)
        raise AssertionError("no mail came")


class Someone:
    """A person signed in in one of the patterns, holding everything that came back."""

    def __init__(self, site: Site, address: str, mode: str) -> None:
        self.site, self.address, self.mode = site, address, mode
        self.password = PASSWORD
        self.refresh: str | None = None
        self.login()

    def login(self) -> None:
        body: dict[str, Any] = {"email": self.address, "password": self.password}
        body |= {"mode": "hybrid", "transport": self.mode} if self.mode in {"cookie", "body"} else {"mode": self.mode}
        self.take(self.site.wire.call("POST", "/auth/login", json=body))

    def take(self, answer: Answer) -> None:
        assert answer.status == 200, answer
        said = answer.json
        self.user = said["user"]
        self.session = said.get("session")
        self.access = said.get("access_token")
        self.csrf = said.get("csrf_token")
        self.refresh = said.get("refresh_token") or answer.cookie(REFRESH) or self.refresh  # not set again if unchanged
        cookie = answer.cookie(SESSION)
        self.cookie = f"{SESSION}={cookie}" if cookie else None

    def proofs(self) -> list[dict[str, Any]]:
        """Every way this person can show who they are at /auth/me."""
        return [{"cookie": self.cookie}] if self.cookie else [{"bearer": self.access}]

    def call(self, method: str, path: str, **more: Any) -> Answer:
        headers = [PATIENT, *([("x-csrf-token", self.csrf)] if self.csrf else [])]
        return self.site.wire.call(method, path, headers=headers, **self.proofs()[0], **more)

    def refreshing(self) -> dict[str, Any] | None:
        if self.mode == "cookie":
            return {"cookie": f"{REFRESH}={self.refresh}", "headers": [PATIENT, ("x-csrf-token", self.csrf)]}
        return {"json": {"refresh_token": self.refresh}, "headers": [PATIENT]} if self.mode == "body" else None

    def everywhere(self) -> set[int]:
        """The statuses that all workers answer for everything this person holds."""
        found = set()
        for proof in self.proofs():
            found |= self.site.wire.everywhere("GET", "/auth/me", **proof)
            found |= self.site.wire.everywhere("GET", "/auth/sessions", at_once=6, **proof)
        return found

    def dead_everywhere(self) -> None:
        assert self.everywhere() == {401}
        how = self.refreshing()
        if how is not None:
            # 429: a worker that saw 60 bad tokens from one address looks at no more of them.
            assert self.site.wire.everywhere("POST", "/auth/refresh", at_once=4, **how) <= {401, 429}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "mail").mkdir()
    with running_server(folder, "--workers", "3", "--mail", "file:mail") as port:
        yield Site(folder, port)


def test_the_three_workers_are_all_asked(site: Site) -> None:
    """Requests over connections that are open at once reach more than one process, or nothing below proves much."""
    who = site.newcomer("session")
    before = _cpu(site)
    for _ in range(20):
        assert who.everywhere() == {200}
        worked = [after - start for start, after in zip(before, _cpu(site), strict=True)]
        if sum(spent > 0 for spent in worked) >= 2:
            return
    raise AssertionError(worked)


def _cpu(site: Site) -> list[int]:
    """CPU ticks of each worker: the processes that hold the listening socket and have a parent that does."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if Path(f"/proc/{stat.parent.name}/cwd").resolve() == site.folder:
                fields = stat.read_text().rpartition(")")[2].split()
                found[stat.parent.name] = int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return [found[pid] for pid in sorted(found)]


@pytest.mark.parametrize("mode", EACH)
def test_i01_what_was_logged_out_is_dead_on_every_worker(site: Site, mode: str) -> None:
    """When log-out has answered, no worker accepts cookie, access token or refresh token; others live on."""
    other, who = site.newcomer("body"), site.newcomer(mode)
    assert who.everywhere() == {200}
    how = who.refreshing()
    done = site.wire.call("POST", "/auth/logout", **how) if how else who.call("POST", "/auth/logout")
    assert done.json == {"fenced": True, "fenced_in_ms": 0, "ended": 1}
    who.dead_everywhere()
    assert other.everywhere() == {200}


@pytest.mark.parametrize("mode", EACH)
def test_i01_logging_out_everywhere_ends_every_pattern(site: Site, mode: str) -> None:
    """One log-out everywhere ends sign-ins of all patterns, stateless tokens included, on every worker."""
    who = site.newcomer(mode)
    others = [Someone(site, who.address, pattern) for pattern in MODES]
    assert who.call("POST", "/auth/logout/all").status == 200
    for each in (who, *others):
        each.dead_everywhere()


@pytest.mark.parametrize("mode", EACH)
def test_s08_a_changed_password_ends_the_others_and_keeps_this_one(site: Site, mode: str) -> None:
    """The answer to a change of password carries proof that holds on every worker; whatever was held before is dead,
    here and in every other pattern, and so is the old password.
    """
    who = site.newcomer(mode)
    old = Someone.__new__(Someone)
    old.__dict__.update(who.__dict__)
    others = [Someone(site, who.address, pattern) for pattern in ("session", "body", "jwt")]
    more = {"cookie": f"{REFRESH}={who.refresh}"} if mode == "cookie" else {}
    body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    headers = [("x-csrf-token", who.csrf)] if who.csrf else []
    answer = site.wire.call("POST", "/auth/password", json=body, headers=headers, **{**who.proofs()[0], **more})
    who.take(answer)
    assert who.everywhere() == {200}
    old.dead_everywhere()
    for each in others:
        each.dead_everywhere()
    tried = site.wire.call("POST", "/auth/login", json={"email": who.address, "password": PASSWORD})
    assert tried.status == 401
    how = who.refreshing()
    assert how is None or site.wire.call("POST", "/auth/refresh", **how).status == 200


@pytest.mark.parametrize("mode", EACH)
def test_i10_a_reset_ends_everything_and_its_link_works_once(site: Site, mode: str) -> None:
    """After a reset by mail everything held before is dead on every worker, the link is spent, and of two links only
    the later one ever worked.
    """
    who = site.newcomer(mode)
    known: set[str] = set()
    for _ in range(2):
        assert site.wire.call("POST", "/auth/password/forgot", json={"email": who.address}).status == 202
        known.add(site.mailed_token(who.address, known))
    statuses = {}
    for token in known:
        body = {"token": token, "new_password": OTHER_PASSWORD}
        statuses[token] = [site.wire.call("POST", "/auth/password/reset", json=body).status for _ in range(2)]
    assert sorted(statuses.values()) == [[200, 401], [401, 401]]
    who.dead_everywhere()
    who.password = OTHER_PASSWORD
    who.login()
    assert who.everywhere() == {200}


@pytest.mark.parametrize("mode", EACH)
def test_s07_a_disabled_account_is_dead_on_every_worker(site: Site, mode: str) -> None:
    """When an administrator disabled an account, nothing it holds is accepted anywhere, and no log-in follows; enabled
    again, it signs in, and nothing from before comes back.
    """
    who = site.newcomer(mode)
    path = f"/admin/api/accounts/{who.user['id']}"
    assert site.root.call("POST", f"{path}/disable").status == 200
    who.dead_everywhere()
    body = {"email": who.address, "password": PASSWORD}
    assert site.wire.everywhere("POST", "/auth/login", at_once=3, json=body) == {401}
    assert site.root.call("POST", f"{path}/enable").status == 200
    who.dead_everywhere()
    who.login()
    assert who.everywhere() == {200}


@pytest.mark.parametrize("mode", EACH)
def test_i20_a_role_that_was_taken_is_gone_at_the_next_request(site: Site, mode: str) -> None:
    """Given the role `admin`, a sign-in has it at its next request or refresh; when it is taken, no worker lets it do
    anything with it any more, and no refresh brings it back.
    """
    who = site.newcomer(mode)
    path = f"/admin/api/accounts/{who.user['id']}/roles"

    def may() -> set[int]:
        return site.wire.everywhere("GET", "/admin/api/keys", at_once=9, **who.proofs()[0])

    assert may() == {403}
    assert site.root.call("POST", path, json={"roles": ["admin"]}).status == 200
    if mode in {"cookie", "body"}:
        who.take(site.wire.call("POST", "/auth/refresh", **who.refreshing() or {}))
    elif mode == "jwt":
        who.login()
    assert may() == {200}
    assert site.root.call("POST", path, json={"roles": []}).status == 200
    assert 200 not in may()
    if mode in {"cookie", "body"}:
        answer = site.wire.call("POST", "/auth/refresh", **who.refreshing() or {})
        assert answer.json["user"]["roles"] == []
        assert site.wire.call("GET", "/admin/api/keys", bearer=answer.json["access_token"]).status == 403


@pytest.mark.parametrize("mode", EACH[:3])
def test_s09_a_session_ended_from_elsewhere_is_dead_on_every_worker(site: Site, mode: str) -> None:
    """Ended from the owner's other device, by id, with all others, or by an administrator: dead at once."""
    here = site.newcomer("session")
    for end in ("one", "others", "admin"):
        who = Someone(site, here.address, mode)
        assert who.everywhere() == {200}
        if end == "one":
            assert here.call("DELETE", f"/auth/sessions/{who.session['id']}").status == 200
        elif end == "others":
            assert here.call("DELETE", "/auth/sessions?except=current").status == 200
        else:
            assert site.root.call("DELETE", f"/admin/api/sessions/{who.session['id']}").status == 200
        who.dead_everywhere()
        assert here.everywhere() == {200}


def test_i01_no_request_that_starts_after_a_log_out_is_let_in(site: Site) -> None:
    """While twelve clients ask without pause over all workers, not one request that began after the log-out had
    answered is let in; those in flight may have been.
    """
    who = site.newcomer("session")
    answered_at: list[float] = []
    wrong: list[float] = []
    let_in = 0
    stop = threading.Event()

    def ask() -> None:
        nonlocal let_in
        connection = site.wire.connect()
        while not stop.is_set():
            started = time.monotonic()
            site.wire.send(connection, "GET", "/auth/me", cookie=who.cookie)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                let_in += 1
                if answered_at and started > answered_at[0]:
                    wrong.append(started - answered_at[0])
        connection.close()

    askers = [threading.Thread(target=ask) for _ in range(12)]
    for asker in askers:
        asker.start()
    while let_in <= 20:
        time.sleep(0.01)
    assert who.call("POST", "/auth/logout").status == 200
    answered_at.append(time.monotonic())
    time.sleep(0.3)
    stop.set()
    for asker in askers:
        asker.join()
    assert wrong == []


def test_i05_refreshes_at_once_over_all_workers_converge(site: Site) -> None:
    """Sixteen refreshes of one token at once, over three processes: all are 200 with one and the same next token, and
    the family goes on.
    """
    who = site.newcomer("body")
    connections = [site.wire.connect() for _ in range(16)]
    for connection in connections:
        site.wire.send(connection, "POST", "/auth/refresh", json={"refresh_token": who.refresh})
    answers = [site.wire.read(connection, "/auth/refresh") for connection in connections]
    for connection in connections:
        connection.close()
    assert {answer.status for answer in answers} == {200}
    (token,) = {answer.json["refresh_token"] for answer in answers}
    assert site.wire.call("POST", "/auth/refresh", json={"refresh_token": token}).status == 200


def test_i17_a_reset_link_works_once_among_fifty(site: Site) -> None:
    """Fifty uses of one reset link at once, over all workers: exactly one is let through."""
    who = site.newcomer("jwt")
    site.wire.call("POST", "/auth/password/forgot", json={"email": who.address})
    body = {"token": site.mailed_token(who.address, set()), "new_password": OTHER_PASSWORD}
    connections = [site.wire.connect() for _ in range(12)]
    for connection in connections:
        site.wire.send(connection, "POST", "/auth/password/reset", json=body)
    statuses = [site.wire.read(connection, "/auth/password/reset").status for connection in connections]
    for connection in connections:
        connection.close()
    # 202: on a busy machine the sessions that it ends may not be fenced yet when it is answered.
    assert len([status for status in statuses if status in {200, 202}]) == 1, statuses
    assert set(statuses) <= {200, 202, 401, 429, 503}


def test_i18_one_address_in_every_spelling_is_one_account(site: Site) -> None:
    """Registered at once in several spellings, over all workers: exactly one account."""
    spellings = [
        "Zoe@Exämple.com",
        "zoe@exa\u0308mple.com",
        "ZOE@EXÄMPLE.COM",
        "zoe@xn--exmple-cua.com",
        " zoe@exämple.com",
    ]
    site.fill_buckets()
    connections = [site.wire.connect() for _ in spellings]
    for connection, address in zip(connections, spellings, strict=True):
        site.wire.send(connection, "POST", "/auth/register", json={"email": address, "password": PASSWORD})
    statuses = [site.wire.read(connection, "/auth/register").status for connection in connections]
    for connection in connections:
        connection.close()
    assert statuses.count(201) == 1, statuses
    assert set(statuses) <= {201, 202, 429}, "a letter each, and few of them"


async def test_c10_verifying_an_address_end_to_end() -> None:
    """Where addresses are verified: registered, mailed, refused until then, verified once by the link, and signed in in
    every pattern.
    """
    async with a_world(policy=replace(STANDARD, require_verified_email=True)) as world:
        person = {"email": "ada@example.com", "password": PASSWORD}
        ada = world.browser()
        assert (await ada.call("POST", "/auth/register", json=person)).status == 202
        await world.posted()
        token = world.mailbox.token()
        early = await world.call("POST", "/auth/login", json=person)
        assert (early.status, early.set_cookies()) == (401, [])
        elsewhere = await world.browser().call("POST", "/auth/email/verify", json={"token": token})
        assert (elsewhere.status, elsewhere.code) == (403, "another_browser")
        verified = await ada.call("POST", "/auth/email/verify", json={"token": token})
        assert (verified.json["user"]["email_verified"], verified.json["fenced"]) == (True, True)
        assert (await ada.call("POST", "/auth/email/verify", json={"token": token})).status == 401
        for mode in ("session", "hybrid", "jwt"):
            assert (await world.program().login(mode=mode)).json["user"]["email_verified"] is True
