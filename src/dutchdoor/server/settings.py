"""Every setting of the server, in one table: what it is called, what it does, what it is unless set, and why.

The command line's options, the variables of the environment, the keys of the configuration file and
`docs/reference/configuration.md` all come from here, so they cannot drift apart.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from dutchdoor.credentials.password import CHEAPEST, PROFILES
from dutchdoor.model.policy import DAY, HOUR, MINUTE, STANDARD
from dutchdoor.web.cookies import PREFIX as COOKIE_PREFIX

__all__ = ["BY_NAME", "GROUPS", "PREFIX", "SETTINGS", "SHORTEST_LIKELY", "Kind", "Setting"]

PREFIX = "DUTCHDOOR_"

Kind = Literal["text", "url", "secret", "path", "list", "count", "duration", "switch"]
"""`url` may hold a password, so it is kept like a secret; without one it may be given as an argument. A `secret` may
not."""

GROUPS = {
    "Serving": "Where it listens, and what stands in front of it.",
    "Keeping": "Where accounts and sessions are kept, and the secrets that are kept apart from them.",
    "Tokens": "What access tokens say and how they are signed.",
    "Signing in": "How long things live, and what is asked of passwords and sessions.",
    "Mail and names": "What people see.",
    "Watching": "What the server tells about itself.",
}


class Setting(Struct, frozen=True, kw_only=True):
    """`name` with underscores: `access_for` is `--access-for`, `DUTCHDOOR_ACCESS_FOR` and `access_for = "10m"`."""

    name: str
    group: str
    kind: Kind
    does: str
    why: str
    default: object = None
    choices: tuple[str, ...] = ()
    fallback: str = ""
    """A variable without our prefix that is read when ours is not set, because platforms set it."""
    least: float | None = None
    most: float | None = None

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def hidden(self) -> bool:
        """Whether its value is never shown."""
        return self.kind in {"secret", "url"}

    @property
    def in_policy(self) -> bool:
        return self.name in STANDARD.__struct_fields__


def _policy(name: str, kind: Kind, does: str, why: str, *choices: str) -> Setting:
    default = getattr(STANDARD, name)
    return Setting(name=name, group="Signing in", kind=kind, default=default, does=does, why=why, choices=choices)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="host",
        group="Serving",
        kind="text",
        default="127.0.0.1",
        does="The address to listen on.",
        why="This machine alone, until someone says how others reach it safely.",
    ),
    Setting(
        name="port",
        group="Serving",
        kind="count",
        default=8000,
        fallback="PORT",
        least=0,
        most=65535,
        does="The port to listen on; 0 takes a free one.",
        why="What development servers use.",
    ),
    Setting(
        name="public_url",
        group="Serving",
        kind="text",
        does="The https address that people use. It is the issuer of tokens, and what links in mail begin with.",
        why="Without it the server is for this machine alone, over plain HTTP.",
    ),
    Setting(
        name="proxy",
        group="Serving",
        kind="list",
        default=(),
        does="Address or network of a proxy in front of it, whose forwarding headers are believed.",
        why="A forwarding header is a claim anyone can make. None is believed unless its sender is named here.",
    ),
    Setting(
        name="other_host",
        group="Serving",
        kind="list",
        default=(),
        does="A further host name this server answers to, besides that of the public URL.",
        why="An exact list: whoever chooses the Host header must not choose what a link or an origin is.",
    ),
    Setting(
        name="origin",
        group="Serving",
        kind="list",
        default=(),
        does="Another origin whose pages may call this API with credentials, such as https://app.example.com.",
        why="Empty: only pages of the public URL may.",
    ),
    Setting(
        name="origin_header",
        group="Serving",
        kind="list",
        default=(),
        does="A request header that pages of those origins may send besides what this API reads, such as traceparent.",
        why="Empty: a browser lets them send what the API reads, and nothing else.",
    ),
    Setting(
        name="pass_preflights",
        group="Serving",
        kind="switch",
        default=False,
        does="Answer 204 at /auth/check when a proxy asks about a CORS preflight: OPTIONS, with Origin and "
        "Access-Control-Request-Method. The answer names no account.",
        why="Off: without a proof nothing passes. A browser sends preflights without one, so an application behind the "
        "proxy that serves pages of other origins needs this, and must do nothing else at OPTIONS.",
    ),
    Setting(
        name="clear_site_data",
        group="Serving",
        kind="switch",
        default=False,
        does="Send Clear-Site-Data with a log-out by cookie: the browser clears its cache and storage of this origin.",
        why="Off: what other pages of the origin keep in localStorage is theirs. On suits an origin with nothing else, "
        "read on shared machines.",
    ),
    Setting(
        name="cookie_prefix",
        group="Serving",
        kind="text",
        default=COOKIE_PREFIX,
        does="What the names of cookies begin with: 1 to 32 of a-z, 0-9, _ and -, with a letter first.",
        why="Two servers on one host name, such as localhost with two ports, need one each: cookies know no ports, and "
        "each server would sign people out of the other.",
    ),
    Setting(
        name="docs",
        group="Serving",
        kind="switch",
        default=True,
        does="Serve the description of the API at /docs and /openapi.json.",
        why="On: it tells nothing that is secret. Off where a rule of yours wants no description in public.",
    ),
    Setting(
        name="tls_cert",
        group="Serving",
        kind="path",
        does="Certificate chain (PEM) to speak TLS itself; read again when the file changes.",
        why="Unset: a proxy in front speaks TLS, or nobody but this machine is served.",
    ),
    Setting(
        name="tls_key",
        group="Serving",
        kind="path",
        does="The certificate's private key (PEM, not encrypted, readable by the server alone).",
        why="Belongs to tls_cert.",
    ),
    Setting(
        name="workers",
        group="Serving",
        kind="count",
        default=1,
        fallback="WEB_CONCURRENCY",
        least=1,
        most=256,
        does="Processes that serve, all on one database.",
        why="One serves tens of thousands of checks a second in the least memory. More than the cores helps nobody.",
    ),
    Setting(
        name="max_connections",
        group="Serving",
        kind="count",
        default=4096,
        least=16,
        most=1_000_000,
        does="Connections one process serves at once: a quarter of them for an IPv4 address or an IPv6 /64, three "
        "eighths for a /56, half for a /48, all for a proxy named with --proxy. Where they run out, the connection "
        "that has waited longest for a request is closed; where all are busy, requests get 503, and above twice as "
        "many connections are closed.",
        why="Bounds memory at some 100 MB. Each connection also takes a file descriptor of the process.",
    ),
    Setting(
        name="keep_alive_for",
        group="Serving",
        kind="duration",
        default=75.0,
        least=1,
        most=3600,
        does="How long a connection without a request is kept.",
        why="Longer than the 60 seconds for which proxies keep theirs, so that it is they who close, and no "
        "request is lost.",
    ),
    Setting(
        name="request_for",
        group="Serving",
        kind="duration",
        default=20.0,
        least=1,
        most=3600,
        does="How long a client may take to send one request. A TLS handshake before it may take as long again.",
        why="Requests are at most a few kilobytes. A client that sends a byte a second holds its place no longer "
        "than this.",
    ),
    Setting(
        name="stop_for",
        group="Serving",
        kind="duration",
        default=20.0,
        least=0,
        most=3600,
        does="How long requests that are being answered may take once the server was asked to stop.",
        why="Less than the 30 seconds after which orchestrators kill.",
    ),
    Setting(
        name="database",
        group="Keeping",
        kind="url",
        default="sqlite:///dutchdoor.db",
        fallback="DATABASE_URL",
        does="Where everything is kept: sqlite:///relative.db, sqlite:////absolute/path.db, "
        "postgresql://user:password@host:5432/database (postgres:// is the same), or memory: to try things out.",
        why="A file beside the working directory needs nothing installed.",
    ),
    Setting(
        name="redis",
        group="Keeping",
        kind="url",
        does="A Redis or Valkey beside the database, for several nodes: copies of sessions, limits, wake-ups. "
        "redis://user:password@host:6379/0, rediss:// with TLS, unix:///path.sock, "
        "redis+sentinel://host1,host2/service, redis+cluster://host1,host2.",
        why="Unset: the database does it all. Redis may be emptied at any moment; while it is out of reach, sign-ins "
        "get 503 and everything else goes on. REDIS_URL is not read: what it names may be somebody's cache.",
    ),
    Setting(
        name="master_key",
        group="Keeping",
        kind="secret",
        does="The keys that seal signing keys and make refresh tokens: one a line, the current one first, older "
        "ones after it.",
        why="Unset: they are in the file master_key_file, which is dutchdoor.keys unless set, and made there "
        "with mode 0600.",
    ),
    Setting(
        name="breached",
        group="Keeping",
        kind="path",
        does="A list of breached passwords, none of which is taken as a new one: the SHA-1 file of Have I Been Pwned, "
        "sorted by hash (`haveibeenpwned-downloader`). Nothing of it is loaded.",
        why="Unset: the most common passwords are refused, which need no file.",
    ),
    Setting(
        name="pepper",
        group="Keeping",
        kind="secret",
        does="A secret of at least 16 bytes that goes into every password hash. Lost, every password is lost.",
        why="Unset: one thing less to lose. With it, a stolen database gives nothing to guess against.",
    ),
    Setting(
        name="alg",
        group="Tokens",
        kind="text",
        default="ES256",
        choices=("ES256", "EdDSA", "RS256", "HS256"),
        does="What signs access tokens.",
        why="Every verifier reads ES256 and its tokens are small. With HS256 whoever can verify can also mint.",
    ),
    Setting(
        name="audience",
        group="Tokens",
        kind="list",
        default=(),
        does="Whom access tokens are for (aud).",
        why="Empty: the issuer itself, which is what a verifier expects unless it is told otherwise.",
    ),
    Setting(
        name="lease",
        group="Tokens",
        kind="duration",
        default=10.0,
        least=1,
        most=300,
        does="How long a verifier that follows the revocation log may trust what it knows. Its length decides both the "
        "longest a fence can take (times 1.1 / 0.9) and the outage of the authority that stateless checks survive.",
        why="Log-out is true everywhere in milliseconds while all answer, and in 12 seconds when one does not. "
        "Verifiers survive an outage of 1.8 to 5.7 seconds.",
    ),
    Setting(
        name="preset",
        group="Signing in",
        kind="text",
        default="standard",
        choices=("high", "standard", "relaxed"),
        does="The defaults of this section. `high`: access_for 5m, idle_for 30m, absolute_for 12h, "
        "password_minimum 15. "
        "`relaxed`: access_for 15m, idle_for 30d, absolute_for 90d.",
        why="Ordinary web applications. `high` stays inside NIST's second assurance level, `relaxed` is for "
        "low-risk sites.",
    ),
    _policy(
        "modes",
        "list",
        "Patterns a client may ask for; the first is the default.",
        "All three, so that choosing is the client's.",
        "session", "hybrid", "jwt",
    ),
    _policy(
        "access_for",
        "duration",
        "Life of an access token.",
        "The longest that a verifier which follows no revocations accepts what was ended. More than 15m is a "
        "finding of `check`.",
    ),
    _policy("idle_for", "duration", "A session unused for this long has ended.", "Long enough for a holiday."),
    _policy(
        "absolute_for",
        "duration",
        "A session this old has ended, however busy.",
        "NIST SP 800-63B allows 30 days at its first assurance level.",
    ),
    _policy(
        "touch_every",
        "duration",
        "When a session was last seen is written at most this often.",
        "Reading a session must not be a write.",
    ),
    _policy(
        "step_up_for",
        "duration",
        "How fresh an administrator's proof must be to change anything.",
        "Long enough to finish one errand; an open browser or a stolen session changes nothing after it (RFC 9470).",
    ),
    _policy(
        "max_sessions",
        "count",
        "Live sessions an account may have; 1 is single device.",
        "Unset: no limit. People have more devices than one thinks.",
    ),
    _policy(
        "at_limit",
        "text",
        "What one more sign-in does: end the least recently used session, or be refused.",
        "Refusing locks out who lost a device.",
        "end_oldest", "refuse",
    ),
    _policy(
        "rotation",
        "text",
        "`convergent`: a refresh whose answer was lost can be repeated. `strict`: every second use of a refresh "
        "token is theft.",
        "Answers get lost every day. Strict is to the letter of ASVS 10.4.5, and logs people out for a lost answer.",
        "convergent", "strict",
    ),
    _policy(
        "refresh_window",
        "duration",
        "Inside it every re-presentation of a refresh token converges on one token.",
        "A retry comes within seconds. 0 to 5m.",
    ),
    _policy(
        "max_siblings",
        "count",
        "Tokens that one refresh token may split into when answers keep getting lost.",
        "An honest client loses two or three in a row. 1 to 64.",
    ),
    _policy(
        "fingerprint",
        "text",
        "What a refresh token does that comes back late from another browser or country: end the session, leave "
        "a note, nothing.",
        "An honest retry comes from the same browser.",
        "revoke", "observe", "off",
    ),
    _policy(
        "theft_ends_all",
        "switch",
        "A proven theft ends the account's other sessions too.",
        "Off: an old token that somebody found must not log its owner out everywhere.",
    ),
    _policy(
        "password_minimum",
        "count",
        "Characters a new password has at least.",
        "NIST SP 800-63B-4 asks for 8 beside another factor, and for 15 where the password stands alone.",
    ),
    Setting(
        name="password_hash",
        group="Signing in",
        kind="text",
        default=next(iter(PROFILES)),
        choices=tuple(name for name in PROFILES if name != CHEAPEST.name),
        does="How expensive a password's hash is, by the name of its source. Older hashes are replaced at the "
        "next log-in.",
        why="19 MiB and two passes of Argon2id: OWASP's choice for servers that do other things as well.",
    ),
    _policy("reset_for", "duration", "Life of a link that resets a password.", "Mail takes a while, a thief must not."),
    _policy("verify_email_for", "duration", "Life of a link that verifies an address.", "People read mail once a day."),
    _policy(
        "registration",
        "text",
        "Who makes accounts. `open`: everybody. `invite`: administrators, and a link in a mail lets the owner choose "
        "the password. `closed`: commands on the server's machine alone.",
        "What most applications want. The first administrator's link works in each of them.",
        "open",
        "invite",
        "closed",
    ),
    _policy(
        "unverified_for",
        "duration",
        "How long an account waits for its address to be verified, where that is required. Then it is removed.",
        "A week of absence. Until then it blocks nothing: the person who reads the mailbox takes the address.",
    ),
    _policy("setup_for", "duration", "Life of the link for the first administrator.", "Each start prints another."),
    _policy(
        "require_verified_email",
        "switch",
        "Signing in needs a verified address, and registering tells nobody which accounts exist.",
        "Off, so that trying it out needs no mail. On is the setting for production, and its absence a finding "
        "of `check`.",
    ),
    _policy(
        "key_publish_for",
        "duration",
        "A new signing key is published this long before it signs.",
        "Every cached key set knows it in time.",
    ),
    _policy("key_sign_for", "duration", "How long a key signs before the next one does.", "Rehearsed, rotation works."),
    _policy("max_audit_for", "duration", "Audit events are deleted after this.", "A year answers most questions."),
    Setting(
        name="product",
        group="Mail and names",
        kind="text",
        default="dutchdoor",
        does="The name by which people know this, in mail and on pages. Passwords made of it are refused.",
        why="Some name has to be there.",
    ),
    Setting(
        name="mail",
        group="Mail and names",
        kind="url",
        default="console:",
        does="What carries mail: console: prints it, file:DIRECTORY puts it there, smtps://user:password@host or "
        "smtp://... sends it.",
        why="Printed, trying it out needs no mail server.",
    ),
    Setting(
        name="mail_from",
        group="Mail and names",
        kind="text",
        does="The sender of mail, such as login@example.com or 'Example <login@example.com>'.",
        why="Unset: noreply at the host of the public URL.",
    ),
    Setting(
        name="security_contact",
        group="Mail and names",
        kind="text",
        default="",
        does="Whom to tell about a weakness: a mailto: or https: address, published as /.well-known/security.txt "
        "(RFC 9116).",
        why="Nobody knows it but you.",
    ),
    Setting(
        name="access_log",
        group="Watching",
        kind="switch",
        default=False,
        does="Write a line for each request: method, path, status, time. Never a query string, never a header.",
        why="Off: the proxy in front has one, and each line costs more than the check it tells of.",
    ),
    Setting(
        name="metrics_token",
        group="Watching",
        kind="secret",
        does="The bearer token that opens /metrics on the main port.",
        why="Unset: /metrics is not there.",
    ),
    Setting(
        name="metrics_port",
        group="Watching",
        kind="count",
        least=1,
        most=65535,
        does="A port of its own for /metrics, without a token, on the loopback address.",
        why="Unset: there is none.",
    ),
)  # fmt: skip

SHORTEST_LIKELY = {
    "access_for": MINUTE,
    "idle_for": 5 * MINUTE,
    "absolute_for": HOUR,
    "step_up_for": MINUTE,
    "reset_for": 5 * MINUTE,
    "verify_email_for": HOUR,
    "unverified_for": HOUR,
    "setup_for": 5 * MINUTE,
    "key_publish_for": HOUR,
    "key_sign_for": DAY,
    "max_audit_for": DAY,
}
"""Seconds below which a duration is more likely a slip than a choice. It is served all the same."""

BY_NAME = {setting.name: setting for setting in SETTINGS}
