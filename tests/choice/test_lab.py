"""`/lab`: each of its claims, in a real browser, against the servers that it runs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect
from tests.pages import laws
from tests.pages.house import Watch
from tests.ports import free_port
from tests.running import Run

from dutchdoor.auth import Auth
from dutchdoor.choice.glossary import WORDS
from dutchdoor.choice.lab.browser import shortened
from dutchdoor.choice.lab.laboratory import Lab
from dutchdoor.choice.lab.labs import AT_MOST, Labs
from dutchdoor.choice.lab.patterns import PATTERNS
from dutchdoor.choice.lab.services import PlainShop
from dutchdoor.choice.lab.site import COOKIE, PATH, site
from dutchdoor.choice.lab.watching import Answer, Asking, Question
from dutchdoor.choice.own_folder import LOCKED_WITHIN, own_folder

OF_DUTCHDOOR = [each.id for each in PATTERNS if "authority" in each.wheres]
RENEWING = [each.id for each in PATTERNS if each.renews and not each.bound]
ASKED = [(each.id, where) for each in PATTERNS for where in each.wheres]
"""Each pattern, with the servers that know it."""


def of_copy(pattern: str) -> str:
    """What a copy is answered before the log-out."""
    return "no" if pattern == "bound" else "yes"


class Site(NamedTuple):
    port: int
    labs: Labs

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}{PATH}"

    def lab(self, context: BrowserContext) -> Lab:
        """The lab of the visitor who has this browser."""
        secret = next(each["value"] for each in context.cookies() if each["name"] == COOKIE)
        lab = self.labs.find(secret)
        assert lab is not None
        return lab


@contextmanager
def served(access_for: str = "2m") -> Iterator[Site]:
    port = free_port()
    with closing(Labs(access_for)) as labs, pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "dutchdoor.choice.lab.browser.ANSWERS_WITHIN", 60.0
        )  # three seconds are short on a busy machine
        server = uvicorn.Server(
            uvicorn.Config(site(labs, port, access_for), port=port, log_level="error", lifespan="off")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until
            time.sleep(0.01)
        try:
            yield Site(port, labs)
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with served() as site:
        yield site


@contextmanager
def visiting(browser: Browser, here: Site, *presses: str, **options: Any) -> Iterator[Page]:
    """Open the lab in a browser of its own, press these buttons of the whole, and end the lab afterwards."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(here.url)
    for press_ in presses:
        press(page, press_)
    yield page
    page.goto(here.url)
    if page.locator("[value=end]").count():
        press(page, "end")
    context.close()


def press(page: Page, deed: str, of: str = "all") -> None:
    with page.expect_navigation():  # a click alone returns before the answer is there
        page.locator(f"form:has([name=of][value={of}]) button[value={deed}]").first.click()


def shows(page: Page, pattern: str, who: str, where: str, state: str) -> None:
    """Wait until the page, which asks the servers anew by itself, shows whether one of them accepts someone."""
    expect(page.locator(f"[data-cell={pattern}-{who}-{where}]")).to_have_attribute("data-state", state)


def says(page: Page, pattern: str, begins: str) -> None:
    """Wait until the page says what became of the last deed: a busy machine's servers take a moment longer."""
    expect(page.locator(f"#now [data-outcome={pattern}]")).to_have_text(re.compile(f"^{begins}"))


def outcome(page: Page, pattern: str) -> str:
    return page.locator(f"#now [data-outcome={pattern}]").inner_text()


def measured(page: Page, pattern: str) -> float:
    """The seconds that the page says it took."""
    number, unit = re.findall(r"([\d.]+) (ms|s)\b", outcome(page, pattern))[0]
    return float(number) / (1000 if unit == "ms" else 1)


def answers(lab: Lab) -> dict[tuple[str, str, str], Answer]:
    """Ask the servers past the page."""
    return {(name, asked.who, asked.where): answer for name, asked, answer in lab.ask()}


def copies(lab: Lab) -> dict[tuple[str, str], Question]:
    """What asks each server with what the owners hold now, whatever happens to their browsers."""
    return {
        (name, asked.where): asked
        for name, place in lab.places.items()
        for asked in place.questions()
        if asked.who == "owner"
    }


def status_of(question: Question) -> int:
    with Asking() as asking:
        return asking.ask(question).status


# --- where it must not be --------------------------------------------------------------------------------------------


def asked_of(port: int, method: str = "GET", path: str = PATH, body: bytes | None = None, **headers: str) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"host": f"localhost:{port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status


def test_r01_no_server_has_a_lab_but_its_own() -> None:
    """The routes of `dutchdoor serve`, and of an application that embeds the engine, have no lab, whatever is set."""
    paths = [route.path for route in Auth("memory:", console=True).api.routes]
    assert "/auth/login" in paths
    assert [path for path in paths if path.startswith(PATH)] == []


def test_r02_the_lab_is_on_this_machine_alone(here: Site) -> None:
    """Another host name, one of another port, and a request that passed a proxy get 404: a name that leads to loopback
    opens nothing (DNS rebinding), and no proxy makes the lab public.
    """
    assert asked_of(here.port) == 200
    for host in ("lab.example.com", f"lab.example.com:{here.port}", "localhost", f"localhost:{here.port + 1}", ""):
        assert asked_of(here.port, host=host) == 404, host
    for header in ("x_forwarded_for", "x_forwarded_host", "x_forwarded_proto", "forwarded", "via", "x_real_ip"):
        assert asked_of(here.port, **{header: f"localhost:{here.port}"}) == 404, header
    assert asked_of(here.port, path="/lab/now/more") == asked_of(here.port, path="/auth/login") == 404


def test_r02_a_button_is_pressed_on_the_page_alone(here: Site) -> None:
    """A form of another origin, or without one, starts nothing (CSRF), and a body is bounded."""
    form = b"do=sign-in&of=all"
    for origin in ("https://evil.example", f"http://localhost:{here.port + 1}", "null", ""):
        assert asked_of(here.port, "POST", body=form, origin=origin) == 404, origin
    own = f"http://localhost:{here.port}"
    assert asked_of(here.port, "POST", body=b"do=" + b"x" * 2000, origin=own) == 413
    assert asked_of(here.port, "POST", body=b"do=log-out&of=all", origin=own) == 303
    assert here.labs._labs == {}, "a server was started"


@pytest.mark.parametrize("length", ["-1", "4097"])
def test_r02_a_service_of_the_lab_reads_a_bounded_body(length: str) -> None:
    """Another user of this machine can reach its port, and would fill the memory."""
    with PlainShop("ada@lab.example", "a password") as shop, closing(connected(shop)) as asked:
        asked.putrequest("POST", "/login")
        asked.putheader("Content-Length", length)
        asked.endheaders()
        assert asked.getresponse().status == 413


def connected(shop: PlainShop) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", int(shop.origin.rpartition(":")[2]), timeout=60)


# --- what it shows ---------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_r03_sign_in_steal_and_log_out(browser: Browser, here: Site) -> None:
    """In three presses: owner and thief are accepted alike by each server; after the log-out each sign-in of dutchdoor
    is refused everywhere within moments, and the plain JWT goes on.
    """
    with visiting(browser, here, "sign-in") as page:
        lab = here.lab(page.context)
        for pattern, where in ASKED:
            shows(page, pattern, "owner", where, "yes")
            shows(page, pattern, "thief", where, "none")
        authority = int(lab.authority.origin.rpartition(":")[2])
        assert asked_of(authority, path="/auth/login") == 200
        assert asked_of(authority) == asked_of(authority, host=f"localhost:{here.port}") == 404, "a server has a lab"
        press(page, "steal")
        for pattern, where in ASKED:
            shows(page, pattern, "thief", where, of_copy(pattern))
        stolen = copies(lab)
        assert {status_of(each) for each in stolen.values()} == {200}
        press(page, "log-out")
        for (pattern, where), copy in stolen.items():
            gone = pattern != "plain"
            shows(page, pattern, "thief", where, "no" if gone else "yes")
            shows(page, pattern, "owner", where, "none")  # the owner keeps nothing
            assert status_of(copy) == (401 if gone else 200), pattern
        for pattern in OF_DUTCHDOOR:
            says(page, pattern, "Refused everywhere")
            assert outcome(page, pattern).endswith("the copy was refused before.") == (pattern == "bound")
            assert measured(page, pattern) < 9
        says(page, "plain", "Still accepted")
        assert 28 <= int(re.findall(r"(\d+):\d\d", outcome(page, "plain"))[0]) <= 30


@pytest.mark.long
@pytest.mark.browser
def test_r04_what_is_stored_and_what_is_sent(browser: Browser, here: Site) -> None:
    """The row that the page shows is that of the database: a hash of the cookie's secret, and no token. A JWT has no
    row, until its log-out writes an entry. What travels is what the servers got, with secrets shortened.
    """
    with visiting(browser, here, "sign-in") as page:
        lab = here.lab(page.context)
        secrets = {name: str(next(iter(place.owner.proof.values()))) for name, place in lab.places.items()}
        database = b"".join(path.read_bytes() for path in lab.authority._folder.glob("dutchdoor.db*"))
        sent = {name: asked.signed() for (name, _), asked in reversed(copies(lab).items())}
        texts = {name: page.locator(f"#{name}").text_content() or "" for name in lab.places}
        for name in ("session", "hybrid", "hybrid-cookie"):
            row = lab.authority.session(lab.places[name].sid)
            assert row["id"] in texts[name] and row["expires_at"] in texts[name]
        cookie = secrets["session"].partition("=")[2]
        assert lab.authority.session(lab.places["session"].sid)["secret_hash"] in texts["session"]
        for place in lab.places.values():
            for secret in (*place.owner.memory.values(), cookie):
                assert secret.encode() not in database, "a secret is stored as it is"
                assert secret not in page.content(), "a secret is shown whole"
        assert lab.authority.session(lab.places["jwt"].sid or "AAAA") == {}
        assert "No row: this sign-in is not stored." in texts["jwt"]
        assert "no table of sign-ins" in texts["plain"]
        assert f"dd_session={shortened(cookie)}; Path=/; HttpOnly; SameSite=Lax" in texts["session"]
        assert '"password": "…"' in texts["session"]
        for name, reach in (("session", "scripts cannot read it"), ("plain", "a script can read it")):
            assert page.locator(f"#{name} .owner .tag", has_text=reach).count() == 1
        for name in lab.places:
            weight = sum(len(f"{header}: {value}\r\n") for header, value in sent[name].items())
            assert f"{weight} bytes of each request" in texts[name]
        press(page, "log-out", "jwt")
        (entry,) = lab.authority.revocations()
        assert (entry["kind"], entry["id"] in lab.places["jwt"].ids) == ("token", True)
        assert entry["id"] in (page.locator("#jwt").text_content() or "")


@pytest.mark.long
@pytest.mark.browser
def test_r05_owner_and_thief_are_noticed(browser: Browser, here: Site) -> None:
    """A stolen refresh token gets the thief tokens, until both have used it: then the sign-in is over for both, in the
    database too, and the page says how fast.
    """
    with visiting(browser, here, "sign-in", "steal") as page:
        lab = here.lab(page.context)
        for pattern in RENEWING:
            press(page, "refresh-thief", pattern)
            assert lab.places[pattern].exchanges[-1].status == 200
            shows(page, pattern, "thief", "service", "yes")
            assert outcome(page, pattern) == ""
        press(page, "turns")
        for pattern in RENEWING:
            place = lab.places[pattern]
            assert place.exchanges[-1].status == 401
            assert lab.authority.session(place.sid)["end_reason"] == "theft"
            for who in ("owner", "thief"):
                shows(page, pattern, who, "service", "no")
            says(page, pattern, "The theft was noticed")
            assert measured(page, pattern) < 9
            press(page, "turns", pattern)
            assert place.exchanges[-1].status == 401, "the story begins anew by itself"
            assert "theft" in (page.locator(f"#{pattern}").text_content() or "")
        shows(page, "session", "thief", "authority", "yes")  # no other sign-in is ended


@pytest.mark.long
@pytest.mark.browser
def test_r12_a_copy_without_the_key_is_worth_nothing(browser: Browser, here: Site) -> None:
    """Of a sign-in that is bound to a key, copies of both tokens are refused by each server, and get no others. The
    owner goes on.
    """
    with visiting(browser, here, "sign-in", "steal") as page:
        place = here.lab(page.context).places["bound"]
        assert place.thief.memory == {name: place.owner.memory[name] for name in ("access_token", "refresh_token")}
        for where in ("authority", "service"):
            shows(page, "bound", "thief", where, "no")
            press(page, f"ask-{where}-thief", "bound")
            assert place.exchanges[-1].body["code"] == "dpop_required"
        press(page, "turns", "bound")
        assert [(each.who, each.status) for each in place.exchanges][-2:] == [("owner", 200), ("thief", 401)]
        assert outcome(page, "bound") == ""
        for where in ("authority", "service"):
            shows(page, "bound", "owner", where, "yes")
        assert place.owner.signer is not None
        assert place.owner.signer.key.thumbprint in (page.locator("#bound .owner .held").text_content() or "")
        assert place.owner.signer.key.text() not in page.content()


@pytest.mark.long
@pytest.mark.browser
def test_r06_a_change_of_roles_reaches_copies(browser: Browser, here: Site) -> None:
    """A new role holds at once for a session. Tokens of dutchdoor are stale until they are refreshed, which a thief of
    the access token alone cannot do; the plain one keeps its old role.
    """
    with visiting(browser, here, "sign-in") as page:
        lab = here.lab(page.context)
        press(page, "steal-access_token", "hybrid")
        press(page, "steal-cookie", "session")
        press(page, "roles")
        assert lab.roles == ("editor",)
        expect(page.locator("[data-cell=session-thief-authority]")).to_have_text("accepted, as an editor")
        for who in ("owner", "thief"):
            expect(page.locator(f"[data-cell=hybrid-{who}-service]")).to_have_text("refused until it refreshes")
        assert page.locator("#hybrid .thief [value=refresh-thief]").count() == 0
        press(page, "refresh-owner", "hybrid")
        expect(page.locator("[data-cell=hybrid-owner-service]")).to_have_text("accepted, as an editor")
        expect(page.locator("[data-cell=hybrid-thief-service]")).to_have_text("refused until it refreshes")
        expect(page.locator("[data-cell=plain-owner-service]")).to_have_text("accepted")
        says(page, "plain", "The old roles still hold")
        for pattern in ("session", "jwt"):
            says(page, pattern, "The old roles were gone everywhere")
            assert measured(page, pattern) < 9
        press(page, "roles")
        assert lab.roles == ()


@pytest.mark.long
@pytest.mark.browser
def test_r07_an_access_token_expires(browser: Browser) -> None:
    """At the moment that the page counts down to, each server refuses the access token, the owner's and the copy alike.
    A refresh token goes on.
    """
    with served("10s") as here, visiting(browser, here, "sign-in", "steal") as page:
        until = int(page.locator("#jwt .thief [data-until]").get_attribute("data-until") or 0)
        cell = page.locator("[data-cell=jwt-thief-service]")
        assert cell.get_attribute("data-state") == "yes"
        expect(cell).to_have_attribute("data-state", "no", timeout=60_000)
        assert until <= time.time() < until + 60
        expect(page.locator("#jwt .thief [data-until]")).to_have_text("expired")
        expect(page.locator("[data-cell=hybrid-owner-service]")).to_have_attribute("data-state", "no")
        press(page, "refresh-owner", "hybrid")
        shows(page, "hybrid", "owner", "service", "yes")
        shows(page, "plain", "thief", "service", "yes")


@pytest.mark.long
@pytest.mark.browser
def test_r08_an_outage_is_survived_for_part_of_a_lease(browser: Browser, here: Site) -> None:
    """Without the sign-in server a session gets no answer, a service goes on for part of its lease and then says 503,
    and the plain JWT does not notice. When it is back, each sign-in is.
    """
    with visiting(browser, here, "sign-in", "outage") as page:
        expect(page.locator("[data-cell=session-owner-authority]")).to_have_text("no answer")
        shows(page, "hybrid", "owner", "service", "yes")
        expect(page.locator("#now [data-outcome=jwt]")).to_contain_text("It went on for", timeout=60_000)
        assert 0.5 < measured(page, "jwt") < 13
        expect(page.locator("[data-cell=hybrid-owner-service]")).to_have_text("cannot tell now: 503")
        shows(page, "plain", "owner", "service", "yes")
        press(page, "roles")
        expect(page.locator("#wrong")).to_contain_text("out of reach")
        press(page, "outage")
        for pattern, where in ASKED:
            cell = page.locator(f"[data-cell={pattern}-owner-{where}]")
            expect(cell).to_have_attribute("data-state", "yes", timeout=60_000)
        assert outcome(page, "plain") == ""
        says(page, "jwt", "It went on for")


@pytest.mark.long
@pytest.mark.browser
def test_r13_the_page_says_what_a_press_did(browser: Browser, here: Site) -> None:
    """The notice says what a press has done, and not what it does on other days: nothing is copied before a sign-in,
    and a killed server signs no one in or out. What a log-out leaves valid is named until it expires, stolen or not.
    """
    with visiting(browser, here, "steal") as page:
        said = page.locator(".said")
        expect(said).to_contain_text("Begin with step 1")
        press(page, "sign-in")
        press(page, "log-out")
        assert 28 <= int(re.findall(r"(\d+):\d\d", outcome(page, "plain"))[0]) <= 30, "no one stole it"
        press(page, "outage")
        expect(said).to_contain_text("was killed")
        for deed in ("sign-in", "log-out", "turns"):
            press(page, deed)
            expect(said).to_contain_text("gave no answer")
        press(page, "outage")
        expect(said).to_contain_text("runs again")


# --- for whom it is --------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.browser
def test_r09_it_works_without_a_script(browser: Browser, here: Site) -> None:
    """Each button is a form, and the page has the same answers when it is loaded again."""
    with visiting(browser, here, "sign-in", "steal", "log-out", java_script_enabled=False) as page:
        for pattern, where in ASKED:
            shows(page, pattern, "thief", where, "yes" if pattern == "plain" else "no")
        first = measured(page, "plain")
        while measured(page, "plain") <= first:
            page.goto(here.url)
        press(page, "turns", "hybrid")
        assert page.url.endswith("#hybrid")


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("de", "dark")])
def test_r09_everyone_can_use_it(browser: Browser, here: Site, language: str, scheme: Any) -> None:
    """By WCAG 2.2 AA nothing is wrong, before and after, with all details open; it breaks no policy, fits a phone, and
    each button is reached by the keyboard.
    """
    with visiting(browser, here, locale=language, color_scheme=scheme) as page:
        watch = Watch(page)
        page.reload()
        for deeds in ((), ("sign-in", "steal"), ("log-out",)):
            for deed in deeds:
                press(page, deed)
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            laws.bring_axe(page)
            assert laws.faults(page) == []
            for width in (320, 375, 1280):
                assert laws.too_wide(page, width) == [], width
        assert page.locator("html").get_attribute("lang") == language
        assert laws.out_of_reach_by_tab(page) == []
        assert watch.said == []


@pytest.mark.long
@pytest.mark.browser
def test_r10_two_visitors_do_not_meet(browser: Browser, here: Site) -> None:
    """Each has a server, a database and an account of their own; there are three labs at most, and a lab that is ended
    leaves no process and no file.
    """
    with visiting(browser, here, "sign-in") as one, visiting(browser, here, "sign-in") as other:
        first, second = here.lab(one.context), here.lab(other.context)
        folders = {first.authority._folder, second.authority._folder}
        assert first.authority.origin != second.authority.origin and len(folders) == 2
        press(one, "log-out")
        assert {answer.status for answer in answers(second).values()} == {200}
        with visiting(browser, here, "sign-in"):
            assert len(here.labs._labs) == AT_MOST
            fourth = browser.new_context().new_page()
            fourth.goto(here.url)
            press(fourth, "sign-in")
            expect(fourth.locator("#wrong")).to_contain_text("Three labs are open")
            fourth.context.close()
    assert here.labs._labs == {}
    assert not any(folder.exists() for folder in folders)
    assert not first.authority.is_up and not second.authority.is_up


@pytest.mark.long
def test_r10_a_lab_that_is_left_alone_ends() -> None:
    """Half an hour after its last press a lab is ended, and not before."""
    with closing(Labs()) as labs:
        secret, lab = labs.open()
        labs.end_idle(lab.used_at + 1799)
        assert labs.find(secret) is lab
        labs.end_idle(lab.used_at + 1801)
        assert labs.find(secret) is None
        assert not lab.authority.is_up
        assert not lab.authority._folder.exists()


def test_r10_each_word_of_a_pattern_is_explained() -> None:
    """The words at each pattern are in the glossary."""
    assert {word for each in PATTERNS for word in each.words} <= set(WORDS)


@pytest.mark.long
def test_r11_the_command_leaves_nothing_behind(tmp_path: Path) -> None:
    """`dutchdoor lab` prints where to look, and ends at Ctrl-C with its servers and files."""
    program = "from dutchdoor.server.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "lab", "--port", "0"],
        env={"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = int(re.findall(r"http://localhost:(\d+)/lab", process.stdout.readline())[0])
    until = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        own = f"http://localhost:{port}"
        try:
            assert asked_of(port, "POST", body=b"do=sign-in&of=all", origin=own) == 303
        except ConnectionRefusedError:
            assert time.monotonic() < until
    assert list(tmp_path.glob("dutchdoor-lab-*"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_r11_its_servers_end_with_it(tmp_path: Path) -> None:
    """A server that a lab or a measurement has started ends also when its starter is killed."""
    program = """
import sys, time
from pathlib import Path
from dutchdoor.choice.own_server import start
print(start(Path(sys.argv[1]), {})[1], flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert answers_at(port)
        process.kill()
    until = time.monotonic() + 60
    while answers_at(port):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_r11_what_a_killed_lab_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a process that was killed is removed by the next one. One that is in use stays, one that a process
    may be about to lock, and one that a link leads to.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / "lab-link").symlink_to(elsewhere)
    (left := tmp_path / "lab-left").mkdir()
    (left / "dutchdoor.db").write_text("secrets")
    with own_folder("lab-") as used:
        assert left.exists(), "it is too young to be known as left"
        later = time.time() + LOCKED_WITHIN + 5
        monkeypatch.setattr(time, "time", lambda: later)
        with own_folder("lab-"):
            assert not left.exists()
            assert used.exists()
            assert elsewhere.exists()
    assert not used.exists()


def answers_at(port: int) -> bool:
    try:
        return asked_of(port, path="/livez") == 200
    except OSError:
        return False


def test_r11_a_port_that_is_taken(run: Run, here: Site) -> None:
    """The message says what to do."""
    ran = run("lab", "--port", str(here.port))
    assert ran.code == 1
    assert f"Cannot listen on 127.0.0.1 port {here.port}" in ran.err
    assert "Choose another with --port." in ran.err
