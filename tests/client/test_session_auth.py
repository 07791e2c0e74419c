"""`SessionAuth`, against a real server, whose `/auth/me` stands for the API that a program calls."""

from __future__ import annotations

import contextlib
import itertools
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import httpx2
import keyring
import pytest
from keyring.backends.fail import Keyring as NoKeyring
from tests.client.conftest import PASSWORD, Place, Ring

from dutchdoor import errors
from dutchdoor.client import FileStorage, KeyringStorage, MemoryStorage, SessionAuth, Storage, Tokens
from dutchdoor.client.server import Server
from dutchdoor.errors import Misconfigured, NotAuthenticated, RateLimited, Unavailable, WrongCredentials
from dutchdoor.model.http_client import Client
from dutchdoor.testing.clock import Clock


class Line(httpx2.HTTPTransport):
    """The network to the server, which a test can disturb. It counts the calls by path."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.faults: list[Callable[[httpx2.Response], httpx2.Response]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.calls.append(request.url.path)
        answer = super().handle_request(request)
        return self.faults.pop(0)(answer) if self.faults else answer


def lost(answer: httpx2.Response) -> httpx2.Response:
    """The server has done its work, and its answer is lost."""
    answer.read()
    raise httpx2.ReadError("the connection broke")


def busy(seconds: int) -> Callable[[httpx2.Response], httpx2.Response]:
    """A proxy answers in the place of the server."""

    def answered(answer: httpx2.Response) -> httpx2.Response:
        answer.close()
        return httpx2.Response(503, headers={"retry-after": str(seconds)}, text="try later")

    return answered


class Program:
    """A program that signs in: its `SessionAuth`, its network, its time, and how long it slept."""

    def __init__(self, place: Place, storage: Storage | None = None, **named: str) -> None:
        self.line, self.clock, self.slept = Line(), Clock(), []
        self.storage = storage or MemoryStorage()
        self.auth = SessionAuth(
            place.url,
            storage=self.storage,
            client=httpx2.Client(transport=self.line),
            clock=self.clock,
            sleep=self.slept.append,
            **named,
        )
        self.http = httpx2.Client(base_url=place.url, auth=self.auth)

    def me(self) -> str:
        answer = self.http.get("/auth/me")
        assert answer.status_code == 200, answer.text
        email: str = answer.json()["user"]["email"]
        return email

    def close(self) -> None:
        self.http.close()
        self.auth.close()


@pytest.fixture
def start(place: Place) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def make(storage: Storage | None = None, **named: str) -> Program:
        started.append(Program(place, storage, **named))
        return started[-1]

    yield make
    for each in started:
        each.close()


@pytest.fixture
def program(place: Place, start: Callable[..., Program]) -> Program:
    """A program that has signed in with a password."""
    program = start(login=place.account(), password=PASSWORD)
    program.me()
    return program


def test_it_signs_in_once_and_refreshes_before_the_expiry(place: Place, start: Callable[..., Program]) -> None:
    """The first request signs in; later ones send the token from memory until shortly before it expires."""
    email = place.account()
    program = start(login=email, password=PASSWORD)
    assert [program.me() for _ in range(3)] == [email] * 3
    assert program.line.calls == ["/auth/login"]
    program.clock.advance("9m")
    program.me()
    assert program.line.calls == ["/auth/login"]
    program.clock.advance(31)  # less than 30 seconds are left of ten minutes
    program.me()
    assert program.line.calls == ["/auth/login", "/auth/refresh"]
    assert place.sessions(email) == 1


def test_a_refresh_token_that_was_given_is_enough(place: Place, start: Callable[..., Program]) -> None:
    """A program that was given a refresh token uses it once, and its successors from then on."""
    body = {"email": place.account(), "password": PASSWORD, "mode": "hybrid", "transport": "body"}
    token = httpx2.post(f"{place.url}/auth/login", json=body).json()["refresh_token"]
    program = start(refresh_token=token)
    for _ in range(3):
        assert program.me() == body["email"]
        program.clock.advance("10m")
    stored = program.storage.load()
    assert stored is not None and stored.refresh_token != token


def test_a_refused_token_is_refreshed_once(place: Place, program: Program) -> None:
    """A token that the server refuses, since roles have changed, is refreshed, and the request sent again."""

    async def change() -> None:
        async with place.engine() as auth:
            account = await auth.store.account_by_email(program.storage.load().login)
            await auth.directory.admin.set_roles(account.subject, ["editor"], client=Client(), actor="cli")

    program.clock.advance(60)
    anyio.run(change)
    answer = program.http.get("/auth/me")
    assert answer.json()["user"]["roles"] == ["editor"]
    assert [each.status_code for each in answer.history] == [401]
    assert program.line.calls == ["/auth/login", "/auth/refresh"]


def test_a_refusal_with_another_reason_refreshes_nothing(program: Program) -> None:
    """A 401 right after a refresh, or one that asks for a new proof, is the program's to handle."""
    refusing = httpx2.MockTransport(lambda _: httpx2.Response(401))
    with httpx2.Client(transport=refusing, auth=program.auth) as http:
        assert http.get("https://api.example.com/").status_code == 401
        program.clock.advance(60)
        assert [http.get("https://api.example.com/").status_code for _ in range(5)] == [401] * 5
    assert program.line.calls == ["/auth/login", "/auth/refresh"]
    program.clock.advance(60)
    challenge = {"www-authenticate": 'Bearer error="insufficient_user_authentication"'}
    stepping = httpx2.MockTransport(lambda _: httpx2.Response(401, headers=challenge))
    with httpx2.Client(transport=stepping, auth=program.auth) as http:
        assert http.get("https://api.example.com/").status_code == 401
    assert program.line.calls == ["/auth/login", "/auth/refresh"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_body_that_cannot_be_sent_again_is_not(program: Program, *, asynchronous: bool) -> None:
    """A streamed upload that is refused is not repeated: the rest of it would arrive as the whole. Bytes are."""
    sent: list[bytes] = []

    def api(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.read())
        return httpx2.Response(401)

    async def async_api(request: httpx2.Request) -> httpx2.Response:
        sent.append(await request.aread())
        return httpx2.Response(401)

    async def pieces() -> object:
        yield b"once"

    async def run_asynchronously() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(async_api), auth=program.auth) as http:
            await http.post("https://api.example.com/", content=pieces())
            await http.post("https://api.example.com/", content=b"twice")

    program.clock.advance(60)
    if asynchronous:
        anyio.run(run_asynchronously)
    else:
        with httpx2.Client(transport=httpx2.MockTransport(api), auth=program.auth) as http:
            http.post("https://api.example.com/", content=iter([b"once"]))
            http.post("https://api.example.com/", content=b"twice")
    assert sent == [b"once", b"twice", b"twice"]


def test_threads_and_tasks_share_one_refresh(place: Place, program: Program) -> None:
    """Twenty threads and fifty tasks that find an expired token cause one refresh, and all are served."""
    program.clock.advance("10m")
    answers: list[int] = []

    async def tasks() -> None:
        async with (
            httpx2.AsyncClient(base_url=place.url, auth=program.auth) as http,
            anyio.create_task_group() as group,
        ):

            async def one() -> None:
                answers.append((await http.get("/auth/me")).status_code)

            for _ in range(50):
                group.start_soon(one)

    loop = threading.Thread(target=anyio.run, args=(tasks,))
    loop.start()
    with ThreadPoolExecutor(20) as pool:
        answers += pool.map(lambda _: program.http.get("/auth/me").status_code, range(20))
    loop.join()
    assert answers == [200] * 70
    assert program.line.calls == ["/auth/login", "/auth/refresh"]


def test_a_crash_loses_no_session(place: Place, start: Callable[..., Program], tmp_path: Path) -> None:
    """A program that dies before it has stored the next refresh token, or right after, goes on with the stored one."""
    file = FileStorage(tmp_path / "tokens.json")
    email = place.account()
    start(file, login=email, password=PASSWORD).me()

    class Dying(FileStorage):
        def save(self, tokens: Tokens) -> None:
            raise SystemExit

    first = start(Dying(file.path))
    first.clock.advance("10m")
    for _ in range(2):  # what is not stored is not used either
        with pytest.raises(SystemExit):
            first.me()
    assert first.line.calls == ["/auth/refresh"] * 2
    for number in range(1, 4):
        later = start(file)
        later.clock.advance(number * 600)
        assert later.me() == email
        assert later.line.calls == ["/auth/refresh"]
    assert place.sessions(email) == 1


def test_two_programs_over_one_file_keep_one_session(
    place: Place, start: Callable[..., Program], tmp_path: Path
) -> None:
    """A program takes over what another has stored meanwhile, and uses no older token."""
    file = FileStorage(tmp_path / "tokens.json")
    email = place.account()
    one, two = start(file, login=email, password=PASSWORD), start(file)
    for program in itertools.islice(itertools.cycle((one, two)), 8):
        assert program.me() == email
        one.clock.at = two.clock.at = program.clock.at + 400
    assert place.sessions(email) == 1
    assert one.line.calls.count("/auth/login") == 1


def test_a_lost_answer_is_asked_for_again(program: Program) -> None:
    """After a lost answer the same refresh token is sent again, and the session goes on."""
    program.clock.advance("10m")
    program.line.faults = [lost, lost]
    program.me()
    assert program.line.calls == ["/auth/login", *["/auth/refresh"] * 3]
    program.clock.advance("10m")
    program.me()


def test_an_outage_ends_no_session(program: Program) -> None:
    """While the server is busy, a token that is still valid is used; then the call fails with what to wait. A short
    wait is waited for.
    """
    program.clock.advance(580)  # to be refreshed, and valid for twenty seconds
    program.line.faults = [busy(10)]
    for _ in range(3):
        program.me()
    assert program.line.calls == ["/auth/login", "/auth/refresh"]  # not again within these ten seconds
    program.clock.advance(30)
    program.line.faults = [busy(120)]
    with pytest.raises(Unavailable) as failed:
        program.me()
    assert failed.value.retry_after == 120
    program.line.faults = [busy(2), busy(3)]
    program.me()
    assert program.slept == [2, 3]


def test_a_session_that_ended_is_started_again_with_the_password(place: Place, program: Program) -> None:
    """After a log-out elsewhere the program signs in again if it has a password, and else says so once and for all."""
    email = program.me()
    tokens = program.storage.load()
    assert tokens is not None
    without = Program(place, MemoryStorage())
    without.storage.save(tokens)
    place.end(email)
    for each in (program, without):
        each.clock.advance("10m")
    with pytest.raises(NotAuthenticated, match=f"The session at {place.url} has ended. Sign in again."):
        without.me()
    with pytest.raises(NotAuthenticated, match=f"Not signed in at {place.url}."):
        without.me()
    assert without.line.calls == ["/auth/refresh"]
    without.close()
    assert program.me() == email


def test_the_log_out_ends_the_session_and_forgets_it(place: Place, program: Program) -> None:
    """A log-out revokes the session at the server, and is idempotent; without an answer the tokens are kept."""
    email = program.me()
    program.line.faults = [lost]
    with pytest.raises(Unavailable, match="out of reach"):
        program.auth.log_out()
    assert program.storage.load() is not None
    program.auth.log_out()
    anyio.run(program.auth.alog_out)
    assert program.storage.load() is None
    assert place.sessions(email) == 0


def test_a_refusal_is_the_error_that_the_server_had(place: Place, start: Callable[..., Program]) -> None:
    """A wrong password, too many of them, a server that is away and one that is none of ours have errors of their own,
    in which no password is.
    """
    program = start(login=place.account(), password="wrong" * 3)
    with pytest.raises(WrongCredentials, match="The e-mail address or the password is not right") as refused:
        program.me()
    assert refused.type is WrongCredentials, "a subclass says more than the server did"
    assert "wrong" not in repr(program.auth)

    def guess() -> None:
        for _ in range(200):
            with contextlib.suppress(WrongCredentials):
                program.me()

    with pytest.raises(RateLimited) as limited:
        guess()
    assert limited.value.retry_after > 0

    def asking(url: str) -> SessionAuth:
        return SessionAuth(url, login="ada@example.com", password=PASSWORD, sleep=lambda _: None)

    with pytest.raises(Unavailable, match="http://localhost:9 is out of reach"):
        asking("http://localhost:9").token()
    with pytest.raises(Misconfigured, match="answered 404, and not as a dutchdoor server does"):
        SessionAuth(
            "https://example.com", login="a@example.com", password=PASSWORD,
            client=httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(404, text="<html>"))),
        ).token()  # fmt: skip


NOT_OF_PROGRAMS = {"DutchdoorError", "DeviceKeyRefused", "Misconfigured"}
CODES = [each for each in errors.__all__ if "code" in vars(getattr(errors, each)) and each not in NOT_OF_PROGRAMS]


@pytest.mark.parametrize(
    ("name", "says"),
    [*((name, {"max_age": 300.0, "factors": 2}) for name in CODES), ("SessionInDoubt", {})],
    ids=[*CODES, "SessionInDoubt"],
)
def test_a_code_is_the_error_that_has_it(name: str, says: dict[str, float]) -> None:
    """An answer becomes the class whose code it has, and no subclass of it, with what the answer says beside it. A
    proof that is asked for and says neither how young nor how many is that of a session in doubt.
    """
    kind = getattr(errors, name)
    answer = httpx2.Response(401, json={"code": kind.code, "detail": "A sentence.", **says})
    server = Server("https://example.com", httpx2.Client(transport=httpx2.MockTransport(lambda _: answer)))
    with pytest.raises(errors.DutchdoorError) as found:
        server.call("GET", "/auth/me")
    assert found.type is kind
    if isinstance(found.value, errors.StepUpRequired):
        assert (found.value.max_age, found.value.factors) == (says.get("max_age"), says.get("factors", 1))


@pytest.mark.parametrize(
    ("url", "named", "says"),
    [
        ("http://auth.example.com", {}, "http://auth.example.com is another machine.*Use https"),
        ("auth.example.com", {}, "a URL such as https://auth.example.com"),
        ("https://ada:secret@auth.example.com", {}, "a URL such as(?!.*secret)"),
        ("https://auth.example.com", {"login": "ada@example.com"}, "login together with password, or with mailed_code"),
        ("https://auth.example.com", {"login": "a", "password": "b", "refresh_token": "c"}, "or a refresh_token"),
    ],
)
def test_a_wrong_argument_says_the_fix(url: str, named: dict[str, str], says: str) -> None:
    """A URL that would send secrets in the clear, and arguments that contradict each other, are refused at once."""
    with pytest.raises(Misconfigured, match=says):
        SessionAuth(url, **named)


def test_a_token_goes_over_no_plain_line_and_follows_no_redirect(program: Program) -> None:
    """A request over plain HTTP to another machine is refused; a client that follows redirects may not refresh."""
    with pytest.raises(Misconfigured, match="Use https"):
        httpx2.get("http://api.example.com/orders?q=1", auth=program.auth)
    with httpx2.Client(follow_redirects=True) as http, pytest.raises(Misconfigured, match="follow_redirects=False"):
        SessionAuth("https://auth.example.com", client=http)


def test_a_file_of_tokens_is_its_owners_alone(tmp_path: Path) -> None:
    """The file has mode 0600 in a directory of mode 0700, is replaced whole, and is refused if others can read it."""
    file = FileStorage(tmp_path / "new" / "tokens.json")
    tokens = Tokens(server="https://auth.example.com", login="ada@example.com", refresh_token="one")
    assert file.load() is None
    file.save(tokens)
    assert file.load() == tokens
    assert "one" not in repr(tokens)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert [each.name for each in file.path.parent.iterdir()] == ["tokens.json"]
    file.path.chmod(0o644)
    with pytest.raises(Misconfigured, match=r"Other users can read .*chmod 600"):
        file.load()
    file.path.chmod(0o600)
    file.path.write_text("{")
    with pytest.raises(Misconfigured, match=r"holds no tokens of dutchdoor. Remove it"):
        file.load()
    file.clear()
    file.clear()
    with pytest.raises(Misconfigured, match="cannot be written"):
        FileStorage(Path("/proc/tokens.json")).save(tokens)


def test_a_keyring_keeps_what_it_has_room_for() -> None:
    """Tokens are kept in the keyring, without the access token where they are too long for one; a machine without a
    keyring and a locked one are errors of their own.
    """
    before = keyring.get_keyring()
    try:
        keyring.set_keyring(Ring())
        storage = KeyringStorage("https://auth.example.com ada@example.com")
        tokens = Tokens(server="https://auth.example.com", login="ada@example.com", refresh_token="r", access_token="a")
        assert storage.load() is None
        storage.save(tokens)
        assert storage.load() == tokens
        long = Tokens(server=tokens.server, login=tokens.login, refresh_token="r", access_token="a" * 2000)
        storage.save(long)
        assert storage.load() == Tokens(server=tokens.server, login=tokens.login, refresh_token="r")
        storage.clear()
        storage.clear()
        assert storage.load() is None
        keyring.set_keyring(Ring(locked=True))
        with pytest.raises(Unavailable) as refused:
            KeyringStorage("x").load()
        assert "secret" not in refused.value.reason
        keyring.set_keyring(NoKeyring())
        with pytest.raises(Misconfigured, match=r"no keyring. Use a FileStorage"):
            KeyringStorage("x")
    finally:
        keyring.set_keyring(before)


def test_the_tokens_of_one_server_go_to_no_other(place: Place, program: Program) -> None:
    """A storage that holds the tokens of another server is refused."""
    other = SessionAuth("https://auth.example.com", storage=program.storage)
    with pytest.raises(Misconfigured, match=f"The storage has the tokens of {place.url}"):
        other.token()


def test_a_program_asks_for_the_second_factor(place: Place) -> None:
    """`second_factor` is asked with the methods, and its code finishes the sign-in; without one, the error says so."""
    email = place.account()
    _, codes = place.second_factor(email)
    asked: list[tuple[str, ...]] = []

    def ask(methods: tuple[str, ...]) -> tuple[str, str]:
        asked.append(methods)
        return "recovery_code", codes[1]

    with pytest.raises(NotAuthenticated, match="second_factor="):
        SessionAuth(place.url, login=email, password=PASSWORD).token()
    auth = SessionAuth(place.url, login=email, password=PASSWORD, second_factor=ask)
    assert auth.token() and asked == [("recovery_code", "totp")]


def test_a_program_signs_in_by_a_mailed_code(place: Place) -> None:
    """`mailed_code` is called once the mail is on its way, and takes the place of the password; a wrong code is not
    tried again.
    """
    email = place.account()
    assert SessionAuth(place.url, login=email, mailed_code=lambda: place.mailed(email)).token()
    with pytest.raises(WrongCredentials, match="This code is not right"):
        SessionAuth(place.url, login=email, mailed_code=lambda: "12345x").token()
    for wrong in ({"password": PASSWORD}, {}):
        with pytest.raises(Misconfigured, match="login together with password, or with mailed_code"):
            SessionAuth(place.url, login=email if wrong else "", mailed_code=str, **wrong)
