"""Mail: what is refused, what is written, and what travels over which wire, to real servers on loopback."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import ssl
import stat
import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.samples import HERE, LETTERS, NAMES, NOW, TOKEN, letters
from tests.texts import pseudo

from dutchdoor import Auth, Policy
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidInput, Misconfigured, Unavailable
from dutchdoor.mail import Mail, as_message, sender_of
from dutchdoor.mail.console import ConsoleTransport
from dutchdoor.mail.file import FileTransport
from dutchdoor.mail.letters import RESET_PATH, VERIFY_PATH, Letters, Notice
from dutchdoor.mail.smtp import SmtpTransport
from dutchdoor.model.email_address import mailbox
from dutchdoor.model.http_client import Client, Device
from dutchdoor.texts.languages import Languages

SENDER = "Example <login@example.com>"
MAIL = Mail(to="ann@example.com", subject="Hello", text=f"open {TOKEN}\n.\nQUIT\n", html=f"<p>open {TOKEN}</p>")


def parsed(content: bytes) -> email.message.EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message


# One message.


@pytest.mark.parametrize(
    "to",
    [
        "",
        "ann",
        "ann@example.com\r\nBcc: everyone@example.com",
        "ann@example.com\nBcc: everyone@example.com",
        "ann@example.com, bob@example.com",
        "Ann <ann@example.com>",
        "ann@example.com bob@example.com",
        "ann@bob@example.com",
        "ann@example.com\0",
        "ann@example.com\u2028x",
        "a" * 310 + "@example.com",
        "=?utf-8?q?bob?=@corp.example",
        "=?utf-8?q?x=40evil.example=2c?=@corp.example",
        "=?utf-8?q??=@corp.example",
        "a%evil.example@corp.example",
        "a!b@corp.example",
        "bob@straße.example",
        "ſam@example.com",
    ],
)
def test_a02_an_address_that_would_be_two_is_refused(to):
    """A line break, a comma or a bracket in the address would send the owner's link to another person too."""
    with pytest.raises(InvalidInput):
        Mail(to=to, subject="x", text="x", html="x")


@pytest.mark.parametrize(
    "subject", ["", "=?utf-8?q?x=0d=0ay?=", "Hello\r\nBcc: everyone@example.com", "Hello\rX: y", "Hello\x0bX: y"]
)
def test_a_subject_that_would_be_a_header_is_refused(subject):
    """A subject is one line."""
    with pytest.raises(InvalidInput):
        Mail(to="ann@example.com", subject=subject, text="x", html="x")


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_what_a_mail_accepts_is_one_header_each(to, subject):
    """Whatever passes as address and subject comes out as exactly the headers we write."""
    try:
        mail = Mail(to=to, subject=subject, text="x", html="x")
    except InvalidInput:
        return
    head = as_message(mail, sender=sender_of(SENDER), now=NOW).as_bytes().partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in {b" ", b"\t"}]
    assert [name for name in names if name in {b"To", b"Subject", b"Bcc", b"Cc"}] == [b"To", b"Subject"]


@given(st.from_regex(r"[ -~]{1,40}@corp\.example", fullmatch=True))
def test_a02_the_to_header_is_the_address_alone(to):
    """Whatever address a mail accepts, its To header is read back as that one mailbox."""
    try:
        mail = Mail(to=to, subject="x", text="x", html="x")
    except InvalidInput:
        return
    header = parsed(as_message(mail, sender=sender_of(SENDER), now=NOW).as_bytes())["To"]
    assert [address.addr_spec for address in header.addresses] == [to]


@pytest.mark.parametrize(
    ("text", "header", "address"),
    [
        ("login@example.com", "login@example.com", "login@example.com"),
        ("login@müller.example", "login@xn--mller-kva.example", "login@xn--mller-kva.example"),
        ('"Example, Inc." <login@example.com>', '"Example, Inc." <login@example.com>', "login@example.com"),
        ("Müller <login@MÜLLER.example>", "Müller <login@xn--mller-kva.example>", "login@xn--mller-kva.example"),
        ("noreply@localhost", "noreply@localhost", "noreply@localhost"),
    ],
)
def test_a02_mail_is_from_one_address_with_an_ascii_domain(text, header, address):
    """A sender's domain in letters is converted, and its name stays a name."""
    sender = sender_of(text)
    assert sender.addr_spec == address
    assert str(parsed(as_message(MAIL, sender=sender, now=NOW).as_bytes())["From"]) == header


@pytest.mark.parametrize(
    "text",
    [
        "",
        "login",
        "a@example.com, b@example.com",
        "<a@example.com> b@example.com",
        "x <a@example.com",
        "a%b@example.com",
        "=?utf-8?q?bob?=@corp.example",
        "lögin@example.com",
        "a@example.com\r\nBcc: b@example.com",
    ],
)
def test_a02_a_sender_that_is_not_one_address_stops_the_start(text):
    """The server does not start with a sender that mail servers refuse or read as another."""
    with pytest.raises(Misconfigured):
        SmtpTransport("smtp://127.0.0.1", sender=text)


def test_a_mail_hides_its_link_from_logs():
    """`repr` of a mail shows whom it is for, never the one-time link in it."""
    assert TOKEN not in repr(MAIL)


def test_a_message_has_both_bodies_and_says_that_a_machine_wrote_it():
    """Plain text first, then HTML; automatic answers to it are not wanted."""
    message = parsed(as_message(MAIL, sender=sender_of(SENDER), now=NOW).as_bytes())
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Date"].datetime.timestamp() == NOW


# The words.


@cache
def every_letter(language: str = "") -> dict[str, Mail]:
    return dict(letters(language=language))


@pytest.fixture(params=NAMES)
def mail(request):
    return every_letter()[request.param]


def test_c16_every_link_is_ours_and_carries_its_token_behind_the_hash(mail):
    """Links start with the public URL from the settings; a token never stands where a server or a Referer sees it."""
    for body in (mail.text, mail.html):
        assert "https://login.example.com/" in body
        assert body.count("http") == body.count("https://login.example.com/")
        before_hash = body.replace(f"#{TOKEN}", "")
        assert TOKEN not in before_hash
        assert "None" not in body
        assert "{{" not in body


def test_letters_are_plain_and_escaped(mail):
    """The product's name is text in the text and escaped in the HTML; lines of the text are short enough to read."""
    assert "Example & Sons" in " ".join(mail.text.split())
    assert "Example &amp; Sons" in mail.html
    assert "Example & Sons" not in mail.html
    assert max(map(len, mail.text.splitlines())) <= 80


def test_every_word_of_a_mail_is_translated(tmp_path):
    """In a language whose every text is in brackets, no word of a letter stands outside of them, in either body; what
    is shown as data is data, and the direction is that of the language.
    """
    pseudo.write(tmp_path, "ar")
    of = Letters(product="Halfdoor", public_url="https://login.example.com", languages=Languages(["ar"], tmp_path))
    for name, mail in letters(of):
        assert not pseudo.Outside(re.sub(r"https://[^<\"]+", "", mail.html), {"Halfdoor"}).found, name
        assert '<html lang="ar" dir="rtl">' in mail.html
        outside = re.sub(f"{pseudo.OPEN}[^{pseudo.CLOSE}]*{pseudo.CLOSE}", "", mail.text.replace(pseudo.OPEN * 2, ""))
        assert "https://login.example.com" in outside
        assert not re.search(r"(?m)^[a-z ]{8,}", outside), name
        assert pseudo.OPEN in mail.subject


@pytest.mark.parametrize("name", NAMES)
def test_a_letter_is_in_the_language_that_is_asked_for(name):
    """Its subject, both bodies, and dates, durations and countries as the language writes them."""
    mail = every_letter("de-AT,de;q=0.9")[name]
    assert '<html lang="de"' in mail.html
    assert "Sie" in mail.text
    assert not re.search(r"January|Netherlands|minutes|\byou\b", mail.text + mail.html)


def test_a_letter_can_be_read_without_images_and_sheets(mail):
    """Mail programs load no image unless they are asked to, and many drop the sheet: colours stand at each element, no
    address is loaded, and the link stands there in full.
    """
    assert not re.search(r"<img|url\(|@import|<link|<script", mail.html)
    assert mail.html.count("color:#") >= 5
    assert re.search(r">https://login\.example\.com[^<]*</a>", mail.html)


def test_links_lead_to_the_pages():
    """The verification and the reset link are the addresses of the pages."""
    found = dict(letters())
    verify, reset = found["verify_email"], found["reset_password"]
    assert f"https://login.example.com{VERIFY_PATH}#{TOKEN}\n" in verify.text
    assert f"https://login.example.com{RESET_PATH}#{TOKEN}\n" in reset.text


def test_a_notice_says_when_and_where():
    """The owner can distinguish their own sign-in from another person's."""
    text = LETTERS.notice(Notice.NEW_DEVICE, "ann@example.com", client=HERE, at=NOW).text
    assert "January 15, 2027, 08:00 UTC" in text
    assert "Firefox on Linux" in text
    assert "192.0.2.1 (Netherlands)" in text


@pytest.mark.parametrize(
    "device", ["see evil.example", "http://evil", "call 15550100", "<b>x</b>", "x" * 100, "visit evil@x"]
)
def test_a_strangers_words_are_not_printed_on_our_letterhead(device):
    """A User-Agent made to be read is "unknown": an attacker cannot mail a link to our users."""
    mail = LETTERS.notice(Notice.NEW_DEVICE, "ann@example.com", client=Client(devices=Device(name=device)), at=NOW)
    assert device not in mail.text
    assert "Device: unknown" in mail.text


def test_a_mail_names_the_device_in_the_language_of_its_reader():
    """A German mail says "Firefox unter Linux"."""
    mail = LETTERS.notice(Notice.NEW_DEVICE, "ann@example.com", client=HERE, at=NOW, language="de")
    assert "Gerät: Firefox unter Linux" in mail.text and "Firefox unter Linux" in mail.html
    assert " on Linux" not in mail.text + mail.html


def test_a_line_break_in_a_device_name_starts_no_line_of_a_mail():
    """A User-Agent with a line break cannot add a line to a mail: the break is a space."""
    mail = LETTERS.notice(Notice.NEW_DEVICE, "ann@example.com", client=Client(devices=Device(name="a\nb")), at=NOW)
    assert "Device: a b" in mail.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(86400, "1 day"), (1800, "30 minutes"), (7199, "1 hour"), (60, "1 minute"), (30, "30 seconds")],
)
def test_a_link_says_how_long_it_works(seconds, words):
    """Rounded down: a promise kept early."""
    assert words in LETTERS.reset_password("ann@example.com", token=TOKEN, valid_for=seconds).text


@pytest.mark.parametrize("url", ["login.example.com", "javascript:x", "https://", "https://x/?a", "https://x/#a"])
def test_a_public_url_that_makes_no_link_is_refused(url):
    """The server does not start with links that lead nowhere."""
    with pytest.raises(Misconfigured):
        Letters(product="x", public_url=url)


@pytest.mark.parametrize("product", ["", " ", "x\ny", "x" * 61])
def test_a_product_name_is_one_short_line(product):
    """The name goes into subjects."""
    with pytest.raises(Misconfigured):
        Letters(product=product, public_url="https://x.example")


# The console and the directory.


async def test_the_console_shows_the_message_and_no_escape_sequence(capsys):
    """A developer reads the link; a terminal obeys nothing in it."""
    await ConsoleTransport().send(Mail(to="ann@example.com", subject="Hello", text="open\x1b[2J this\n", html="x"))
    shown = capsys.readouterr().err
    assert "To: ann@example.com\nSubject: Hello\n" in shown
    assert "\x1b" not in shown


async def test_a_file_holds_one_whole_message_for_its_owner_alone(tmp_path):
    """One .eml a message, mode 0600, nothing half-written beside it."""
    directory = tmp_path / "out"
    transport = FileTransport(directory, sender=SENDER, clock=lambda: NOW)
    await transport.send(MAIL)
    await transport.send(MAIL)
    files = sorted(directory.iterdir())
    assert len(files) == 2
    for file in files:
        assert file.suffix == ".eml"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert TOKEN in parsed(file.read_bytes()).get_body(("plain",)).get_content()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_a_directory_that_cannot_be_written_is_unavailable(tmp_path):
    """A full or missing disk is a 503 and a line in the log, not a traceback."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(Unavailable) as caught:
        await FileTransport(tmp_path / "out", sender=SENDER).send(MAIL)
    assert TOKEN not in caught.value.reason


# SMTP.


class Inbox:
    def __init__(self) -> None:
        self.received: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, server: SMTP, session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.received.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return "250 taken"

    def check(self, server, session, envelope, mechanism, given) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.logins.append((given.login, given.password))
        return AuthResult(success=given.password == b"p@ss:word", handled=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> tuple[Path, ssl.SSLContext]:
    """A certificate of our own for 127.0.0.1 and mail.test, as a file to trust and as a server's context."""
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    start = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=30))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "cert.pem", directory / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    return chain, context


@asynccontextmanager
async def serving(inbox: Inbox, *, implicit: ssl.SSLContext | None = None, **options) -> AsyncIterator[int]:
    """Run a mail server on a free port of 127.0.0.1. `implicit`: TLS from the first byte."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(inbox, ident="test", loop=loop, **options), "127.0.0.1", 0, ssl=implicit
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
def not_loopback(monkeypatch) -> None:
    """Have the transport take 127.0.0.1 for a host elsewhere."""
    monkeypatch.setattr("dutchdoor.mail.smtp.is_this_machine", lambda host: False)


async def test_a_mail_server_on_this_machine_takes_mail_in_the_clear():
    """On loopback a message arrives whole: lone dots and commands in its text are text."""
    inbox = Inbox()
    async with serving(inbox) as port:
        await SmtpTransport(f"smtp://127.0.0.1:{port}", sender=SENDER).send(MAIL)
    (envelope,) = inbox.received
    assert envelope.rcpt_tos == ["ann@example.com"]
    assert envelope.mail_from == "login@example.com"
    body = parsed(envelope.content).get_body(("plain",)).get_content()
    assert body.replace("\r\n", "\n") == MAIL.text


async def test_c10_mail_is_sent_from_a_thread_of_its_own(authority, monkeypatch):
    """What sending costs, certificates and handshakes, is not spent in the loop that answers others: an answer that
    waits for it would tell that a letter went out.
    """
    certificates, context = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
    threads = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: threads.append(threading.current_thread()) or make())
    inbox = Inbox()
    async with serving(inbox, implicit=context) as port:
        transport = SmtpTransport(f"smtps://127.0.0.1:{port}", sender=SENDER)
        await asyncio.gather(*(transport.send(MAIL) for _ in range(3)))
    assert len(inbox.received) == 3
    assert len(set(threads)) == 1
    assert threading.main_thread() not in threads


async def test_starttls_is_used_with_a_verified_certificate_before_the_password(authority, monkeypatch, not_loopback):
    """smtp:// to another machine: TLS first, then the credentials, percent-decoded, then the message."""
    chain, context = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    inbox = Inbox()
    async with serving(inbox, tls_context=context, authenticator=inbox.check, auth_require_tls=True) as port:
        await SmtpTransport(f"smtp://ann:p%40ss%3Aword@127.0.0.1:{port}", sender=SENDER).send(MAIL)
    assert inbox.logins == [(b"ann", b"p@ss:word")]
    assert inbox.encrypted == [True]


async def test_smtps_is_tls_from_the_first_byte(authority, monkeypatch):
    """smtps:// never speaks a word in the clear."""
    chain, context = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    inbox = Inbox()
    async with serving(inbox, implicit=context) as port:
        await SmtpTransport(f"smtps://127.0.0.1:{port}", sender=SENDER).send(MAIL)
    assert len(inbox.received) == 1


async def test_a_server_that_refuses_tls_gets_no_mail_and_no_password(not_loopback):
    """An attacker who strips STARTTLS from the greeting gets neither the link nor the password: nothing is sent."""
    inbox = Inbox()
    async with serving(inbox, authenticator=inbox.check, auth_require_tls=False) as port:
        with pytest.raises(Unavailable):
            await SmtpTransport(f"smtp://ann:secret@127.0.0.1:{port}", sender=SENDER).send(MAIL)
    assert not inbox.received
    assert not inbox.logins


@pytest.mark.parametrize("implicit", [True, False])
async def test_a_certificate_no_one_vouches_for_gets_no_mail(authority, not_loopback, implicit):
    """A self-made certificate in the middle is refused, with STARTTLS and without."""
    _, context = authority
    scheme = "smtps" if implicit else "smtp"
    inbox = Inbox()
    async with serving(inbox, **({"implicit": context} if implicit else {"tls_context": context})) as port:
        with pytest.raises(Unavailable):
            await SmtpTransport(f"{scheme}://127.0.0.1:{port}", sender=SENDER).send(MAIL)
    assert not inbox.received


async def test_a_wrong_password_is_unavailable_and_stays_out_of_the_message():
    """The reason names the error and its code, never what was sent."""
    inbox = Inbox()
    async with serving(inbox, authenticator=inbox.check, auth_require_tls=False) as port:
        with pytest.raises(Unavailable) as caught:
            await SmtpTransport(f"smtp://ann:hunter2hunter2@127.0.0.1:{port}", sender=SENDER).send(MAIL)
    assert "535" in caught.value.reason
    assert "hunter2" not in caught.value.reason + str(caught.value)
    assert caught.value.__cause__ is None


async def test_no_server_is_unavailable():
    """A mail server that is down is a 503 for the caller, at once."""
    with pytest.raises(Unavailable):
        await SmtpTransport("smtp://127.0.0.1:1", sender=SENDER).send(MAIL)


class Curt:
    """A mail server that answers some commands in its own way, and all others with 250; "" closes the connection."""

    def __init__(self, greeting: str = "220 hello", **answers: str) -> None:
        self.greeting, self.answers, self.done = greeting, answers, asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{self.greeting}\r\n".encode())
        with suppress(ConnectionError):
            async for line in reader:
                answer = self.answers.get(line.split()[0].decode().upper(), "250 ok")
                if not answer:
                    break
                writer.write(f"{answer}\r\n".encode())
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.done.set()


SAYS_ALL = "ann@example.com with s3cr3t"
CAN_LOG_IN = "250-test\r\n250 AUTH PLAIN"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Curt(f"554 5.7.1 {SAYS_ALL}"), "the server refuses us: 554 5.7.1"),
        (Curt("HTTP/1.1 400 Bad Request"), "the server there does not speak SMTP"),
        (Curt(EHLO=""), "the server closed the connection"),
        (
            Curt(EHLO=CAN_LOG_IN, AUTH=f"535 5.7.8 {SAYS_ALL}"),
            "the server refuses the user name or the password: 535 5.7.8",
        ),
        (Curt(EHLO=CAN_LOG_IN, AUTH="235 in", MAIL=f"550 {SAYS_ALL}"), "the server refuses the sender: 550"),
        (
            Curt(EHLO=CAN_LOG_IN, AUTH="235 in", RCPT=f"550 5.1.1 {SAYS_ALL}"),
            "the server refuses the recipient: 550 5.1.1",
        ),
        (
            Curt(EHLO=CAN_LOG_IN, AUTH="235 in", DATA=f"452 4.3.1 {SAYS_ALL}"),
            "the server refuses the message: 452 4.3.1",
        ),
        (Curt(EHLO=CAN_LOG_IN, AUTH="235 in", DATA=""), "the server closed the connection"),
    ],
)
async def test_p14_a_mail_failure_names_the_server_and_the_reason(server, reason):
    """The reason for the log names host, port and what the mail server did, with its codes. It holds neither the
    password nor the recipient, which the server's own words may repeat.
    """
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable) as caught:
            await SmtpTransport(f"smtp://ann:s3cr3t@127.0.0.1:{port}", sender=SENDER).send(MAIL)
        await server.done.wait()
    assert caught.value.reason == f"mail not sent: 127.0.0.1 port {port}: {reason}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("smtp://127.0.0.1:1", "127.0.0.1 port 1: Connection refused"),
        ("smtps://nowhere.invalid", "nowhere.invalid port 465: "),
    ],
)
async def test_p14_a_mail_server_that_is_not_there_is_named(url, reason):
    """Where no server answers, the reason has the system's words for why."""
    with pytest.raises(Unavailable) as caught:
        await SmtpTransport(url, sender=SENDER).send(MAIL)
    assert caught.value.reason.startswith(f"mail not sent: {reason}")
    assert "Error" not in caught.value.reason


async def test_p14_a_certificate_that_is_not_trusted_is_said(authority):
    """What is wrong with the certificate is the reason, and not the name of an exception."""
    async with serving(Inbox(), implicit=authority[1]) as port:
        with pytest.raises(Unavailable) as caught:
            await SmtpTransport(f"smtps://127.0.0.1:{port}", sender=SENDER).send(MAIL)
    assert caught.value.reason == f"mail not sent: 127.0.0.1 port {port}: TLS: self-signed certificate"


async def test_a02_domains_in_letters_pass_a_relay_without_smtputf8():
    """An account at a domain in letters gets its mail, from a sender at such a domain, through any mail server."""
    inbox = Inbox()
    async with serving(inbox, enable_SMTPUTF8=False) as port:
        mail = Mail(to=mailbox("Bob@straße.example"), subject="Grüße", text="x", html="x")
        await SmtpTransport(f"smtp://127.0.0.1:{port}", sender="Müller <login@müller.example>").send(mail)
    (envelope,) = inbox.received
    assert envelope.rcpt_tos == ["Bob@xn--strae-oqa.example"]
    assert envelope.mail_from == "login@xn--mller-kva.example"
    assert parsed(envelope.content)["Subject"] == "Grüße"


def test_credentials_stay_out_of_repr():
    """A log line with the transport shows host, port and security."""
    transport = SmtpTransport("smtps://ann:hunter2@mail.example.com", sender=SENDER)
    assert repr(transport) == "<SmtpTransport mail.example.com:465 tls>"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.com", "mail.example.com:587 starttls"),
        ("smtp://localhost:1025", "localhost:1025 none"),
        ("smtp://[::1]", "::1:587 none"),
        ("smtps://localhost", "localhost:465 tls"),
        ("smtp://localhost.example.com", "localhost.example.com:587 starttls"),
        ("smtp://127.0.0.1.example.com", "127.0.0.1.example.com:587 starttls"),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_clear(url, expected):
    """A name that merely looks like loopback is a machine elsewhere."""
    assert repr(SmtpTransport(url, sender=SENDER)) == f"<SmtpTransport {expected}>"


@pytest.mark.parametrize(
    "url", ["", "mail.example.com", "http://x", "smtp://", "smtp://x:hunter2@h:99999", "smtp://x:hunter2@h/path?q"]
)
def test_a_mail_server_address_that_cannot_be_read_is_refused_without_repeating_it(url):
    """The message says what is expected; the password in the address appears nowhere."""
    with pytest.raises(Misconfigured) as caught:
        SmtpTransport(url, sender=SENDER)
    assert "hunter2" not in str(caught.value) + caught.value.reason
    assert caught.value.__cause__ is None


# The setting `mail`.


async def test_auth_takes_the_url_of_a_mail_server() -> None:
    """`Auth(mail="smtp://...")` sends by that server, from `mail_from`, or from no-reply at the public host."""
    inbox, ann = Inbox(), {"email": "ann@example.com", "password": "a door in two halves"}
    async with serving(inbox) as port:
        for named in ({"mail_from": SENDER}, {"public_url": "https://shop.example.com"}):
            policy = Policy(require_verified_email=True)
            hasher = PasswordHasher(CHEAPEST)
            auth = Auth("memory:", mail=f"smtp://127.0.0.1:{port}", policy=policy, hasher=hasher, **named)
            async with auth:
                await auth.directory.registration.register(ann["email"], ann["password"], "", client=HERE)
    assert [each.mail_from for each in inbox.received] == ["login@example.com", "noreply@shop.example.com"]


@pytest.mark.parametrize(
    ("mail", "says"),
    [
        ("smpt://ann:hunter2@mail.example.com", "Did you mean smtp:?"),
        ("SMTP:/mail.example.com", "smtp://user:password@host:587"),
        ("ann:hunter2@mail.example.com", "mail must be console:, file:DIRECTORY, smtp://user:password@host:587"),
        ("hunter2", "mail must be console:"),
        ("", "mail must be console:"),
        ("console", "mail must be console:"),
        ("file:", "mail must be console:"),
        ("smtp://ann:hunter2@", "must look like smtps://user:password@host:465"),
        ("smtp://ann:hunter2@mail.example.com:port", "must look like"),
        ("smtp://ann:hunter#2@mail.example.com", "%40 for @, %23 for #"),
        (b"smtp://ann:hunter2@mail.example.com", "an object with the coroutine function `send`"),
        (True, "mail is a URL"),
    ],
)
def test_a_wrong_mail_is_refused_without_its_password(mail: object, says: str) -> None:
    """The message says what to write, and repeats nothing of a URL: it may hold a password anywhere."""
    with pytest.raises(Misconfigured) as refused:
        Auth("memory:", mail=mail)  # type: ignore[arg-type]
    assert says in str(refused.value)
    text = "".join(traceback.format_exception(refused.value, chain=True)[-1:])
    assert "hunter" not in text and "hunter" not in repr(refused.value.__context__)


def test_a_wrong_sender_is_named() -> None:
    """The sender is checked with the URL, and is for a URL alone."""
    with pytest.raises(Misconfigured, match="mail_from: Mail cannot be sent from this address"):
        Auth("memory:", mail="console:", mail_from="the shop")
    for mail in (None, ConsoleTransport()):
        with pytest.raises(Misconfigured, match="mail_from is for a URL"):
            Auth("memory:", mail=mail, mail_from=SENDER)
