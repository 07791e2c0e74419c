"""Every setting of the server, in one table: its name, its effect, its default, and the reason for the default.

The options of the command line, the environment variables, the keys of the configuration file and
`docs/reference/configuration.md` are all generated from this table, so they cannot disagree.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from msgspec import Struct

from dutchdoor.credentials.password import CHEAPEST, PROFILES
from dutchdoor.model.policy import DAY, HOUR, MINUTE, STANDARD
from dutchdoor.web.cookies import PREFIX as COOKIE_PREFIX

__all__ = ["BY_NAME", "GROUPS", "PREFIX", "SETTINGS", "SHORTEST_LIKELY", "Kind", "Setting"]

PREFIX = "DUTCHDOOR_"

Kind = Literal["text", "url", "secret", "path", "list", "count", "duration", "switch"]
"""A `url` may contain a password, so its value is never shown. Without a password, a `url` may be an argument. A
`secret` may not."""

GROUPS = {
    "Serving": "The address that the server listens on, and the proxies in front of it.",
    "Keeping": "The database, and the secrets that are stored outside it.",
    "Tokens": "The content and the signature of access tokens.",
    "Signing in": "Lifetimes, and the rules for passwords and sessions.",
    "Mail and names": "The names, addresses and mail that users see.",
    "Watching": "Logs and metrics of the server.",
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
    """A variable without the prefix, set by hosting platforms. It is read if the prefixed variable is not set."""
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


_serving = partial(Setting, group="Serving")
_keeping = partial(Setting, group="Keeping")
_tokens = partial(Setting, group="Tokens")
_naming = partial(Setting, group="Mail and names")
_watching = partial(Setting, group="Watching")


def _policy(name: str, kind: Kind, does: str, why: str, *choices: str) -> Setting:
    default = getattr(STANDARD, name)
    return Setting(name=name, group="Signing in", kind=kind, default=default, does=does, why=why, choices=choices)


SETTINGS: tuple[Setting, ...] = (
    _serving(
        name="host",
        kind="text",
        default="127.0.0.1",
        does="The address to listen on.",
        why="Only this machine, until an administrator configures a safe way for others to reach the server.",
    ),
    _serving(
        name="port",
        kind="count",
        default=8000,
        fallback="PORT",
        least=0,
        most=65535,
        does="The port to listen on; 0 takes a free port.",
        why="The usual port of development servers.",
    ),
    _serving(
        name="public_url",
        kind="text",
        does="The https URL that users open. It is the issuer of tokens, and the start of links in mail.",
        why="Unset: the server is for this machine only, over plain HTTP.",
    ),
    _serving(
        name="base_path",
        kind="text",
        default="",
        does="What stands before every path, such as /id: the server is then at https://example.com/id.",
        why="Empty: the server has a host of its own. A proxy in front passes the whole path on.",
    ),
    _serving(
        name="proxy",
        kind="list",
        default=(),
        does="Address or network of a proxy in front of the server. The server trusts its forwarding headers.",
        why="Empty: every client can send a forwarding header. The server trusts one only from a proxy listed here.",
    ),
    _serving(
        name="other_host",
        kind="list",
        default=(),
        does="Another host name that this server accepts, besides that of the public URL.",
        why="An exact list: a client that forges the Host header must not choose the host of a link or an origin.",
    ),
    _serving(
        name="origin",
        kind="list",
        default=(),
        does="Another origin whose pages may call this API with credentials, such as https://app.example.com.",
        why="Empty: only pages of the public URL may call the API.",
    ),
    _serving(
        name="origin_header",
        kind="list",
        default=(),
        does="A request header, such as traceparent, that pages of those origins may send besides those the API reads.",
        why="Empty: a browser lets these pages send only the headers that the API reads.",
    ),
    _serving(
        name="passkey_domain",
        kind="text",
        default="",
        does="The domain that passkeys are for: the host of public_url, or a parent domain of it, such as example.com, "
        "so that its subdomains share them.",
        why="Empty: the host of public_url. With another domain, no passkey that was made before works any more.",
    ),
    _serving(
        name="passkey_origin",
        kind="list",
        default=(),
        does="Another origin whose pages or app may use these passkeys, such as https://example.org or "
        "android:apk-key-hash:... The server publishes those of pages at /.well-known/webauthn. A page also has to be "
        "in `origin`.",
        why="Empty: a passkey answers on pages of this server alone, so no page of another site can ask for it.",
    ),
    _serving(
        name="pass_preflights",
        kind="switch",
        default=False,
        does="Answer 204 at /auth/check when a proxy asks about a CORS preflight: OPTIONS, with Origin and "
        "Access-Control-Request-Method. The answer names no account.",
        why="Off: no request passes without credentials. A browser sends preflights without credentials. Turn this on "
        "if an application behind the proxy serves pages of other origins. The application must not act on OPTIONS.",
    ),
    _serving(
        name="sign_in_page",
        kind="text",
        does="The path of the page where people sign in, such as /login. /auth/check sends a browser there that opens "
        "a page without a valid proof, with the path of that page as next.",
        why="Unset: the page of this server, /auth/login. Empty: the answer is 401, and the proxy shows it. The page "
        "is on the host of the public URL, because the cookie belongs to that host. The check must not protect it.",
    ),
    _serving(
        name="hsts",
        kind="text",
        default="host",
        choices=("host", "subdomains", "off"),
        does="Strict-Transport-Security, for a year, if public_url is https: for this host, for its subdomains too, or "
        "not sent.",
        why="`host` breaks no subdomain that has no https yet. A browser keeps `subdomains` for a year: set it when "
        "all subdomains have https (OWASP ASVS asks for it). `off` is for a proxy that sends the header itself.",
    ),
    _serving(
        name="clear_site_data",
        kind="switch",
        default=False,
        does="Send Clear-Site-Data with a log-out by cookie: the browser clears its cache and storage of this origin.",
        why="Off: other pages of the origin may need what they keep in localStorage. Turn it on for an origin without "
        "other pages that people use on shared machines.",
    ),
    _serving(
        name="cookie_prefix",
        kind="text",
        default=COOKIE_PREFIX,
        does="Prefix of the cookie names: a letter, then up to 31 of a-z, 0-9, _ and -.",
        why="Two servers on one host name, such as localhost with two ports, need different prefixes. Cookies ignore "
        "the port, so each server would sign users out of the other.",
    ),
    _serving(
        name="docs",
        kind="switch",
        default=True,
        does="Serve the description of the API at /docs and /openapi.json.",
        why="On: the description contains no secrets. Turn it off if you do not want it to be public.",
    ),
    _serving(
        name="console",
        kind="switch",
        default=True,
        does="Serve the pages of administrators at /admin.",
        why="On: only accounts with the role admin see them, and each change asks for a recent sign-in. They are not "
        "there if modes does not name session.",
    ),
    _serving(
        name="tls_cert",
        kind="path",
        does="Certificate chain (PEM) for TLS in the server itself. The server reads it again when the file changes.",
        why="Unset: a proxy in front terminates TLS, or only this machine is served.",
    ),
    _serving(
        name="tls_key",
        kind="path",
        does="Private key of the certificate (PEM, not encrypted, readable only by the server).",
        why="Set it together with tls_cert.",
    ),
    _serving(
        name="workers",
        kind="count",
        default=1,
        fallback="WEB_CONCURRENCY",
        least=1,
        most=256,
        does="Number of server processes, all on one database.",
        why="One process answers tens of thousands of checks a second, with the least memory. More processes than "
        "cores do not help.",
    ),
    _serving(
        name="max_connections",
        kind="count",
        default=4096,
        least=16,
        most=1_000_000,
        does="Connections that one process serves at once: a quarter of them for an IPv4 address or an IPv6 /64, three "
        "eighths for a /56, half for a /48, all for a proxy listed in --proxy. When they run out, the server closes "
        "the connection that has been idle longest. If all are busy, new requests get 503. Beyond twice the number, "
        "the server closes new connections.",
        why="Limits memory to about 100 MB. Each connection also needs a file descriptor.",
    ),
    _serving(
        name="keep_alive_for",
        kind="duration",
        default=75.0,
        least=1,
        most=3600,
        does="How long an idle connection stays open.",
        why="Longer than the 60 seconds of most proxies. The proxy then closes first, and no request is lost.",
    ),
    _serving(
        name="request_for",
        kind="duration",
        default=20.0,
        least=1,
        most=3600,
        does="How long a client may take to send one request. A TLS handshake before it may take as long again.",
        why="Requests have at most a few kilobytes. A client that sends one byte a second occupies its connection no "
        "longer than this.",
    ),
    _serving(
        name="stop_for",
        kind="duration",
        default=20.0,
        least=0,
        most=3600,
        does="How long running requests may take after the server was asked to stop and the handover is over.",
        why="With handover_for, less than the 30 seconds after which orchestrators kill a process.",
    ),
    _serving(
        name="handover_for",
        kind="duration",
        default=3.0,
        least=0,
        most=300,
        does="How long the proxy in front may take to notice that a node starts or stops. For this long after the "
        "start, and for this long after the server was asked to stop, the node serves requests while /readyz answers "
        "503. Without an https public_url, there is no handover.",
        why="nginx tries a node again within 2 seconds of a failure (deploy/nginx.conf). For a proxy that asks "
        "/readyz, set more than its interval times the number of failures.",
    ),
    _keeping(
        name="database",
        kind="url",
        default="sqlite:///dutchdoor.db",
        fallback="DATABASE_URL",
        does="The database: sqlite:///relative.db, sqlite:////absolute/path.db, "
        "postgresql://user:password@host:5432/database (postgres:// is the same), or memory: for a trial.",
        why="A file in the working directory needs no other software.",
    ),
    _keeping(
        name="redis",
        kind="url",
        does="Redis or Valkey beside the database, for several nodes: copies of sessions, rate limits, wake-ups. "
        "redis://user:password@host:6379/0, rediss:// with TLS, unix:///path.sock, "
        "redis+sentinel://host1,host2/service, redis+cluster://host1,host2.",
        why="Unset: the database does all of this. Redis may lose its data at any moment. While it is unreachable, "
        "sign-ins get 503 and everything else works. REDIS_URL is not read: it may be the cache of another program.",
    ),
    _keeping(
        name="master_key",
        kind="secret",
        does="The keys that seal signing keys and derive refresh tokens: one on each line, the current key first, then "
        "the older keys.",
        why="Unset: the server reads them from the file master_key_file (dutchdoor.keys by default), and creates that "
        "file with mode 0600. With a memory: database, it creates a key in memory.",
    ),
    _keeping(
        name="breached",
        kind="path",
        does="A list of breached passwords, which are refused as new passwords: the SHA-1 file of Have I Been Pwned, "
        "sorted by hash (`haveibeenpwned-downloader`). It is searched on disk, not loaded into memory.",
        why="Unset: only the most common passwords are refused, from a built-in list. `dutchdoor user create` reads "
        "the list of the servers.",
    ),
    _keeping(
        name="pepper",
        kind="secret",
        does="A secret of at least 16 bytes that is part of every password hash. If you lose it, no password works.",
        why="Unset: one secret less to lose. With a pepper, a thief of the database cannot guess passwords offline.",
    ),
    _tokens(
        name="alg",
        kind="text",
        default="ES256",
        choices=("ES256", "EdDSA", "RS256", "HS256"),
        does="The algorithm that signs access tokens.",
        why="Every verifier supports ES256, and its tokens are small. With HS256, a service that can verify a token "
        "can also issue one.",
    ),
    _tokens(
        name="audience",
        kind="list",
        default=(),
        does="The audience of access tokens (aud).",
        why="Empty: the issuer itself, which a verifier expects by default.",
    ),
    _tokens(
        name="lease",
        kind="duration",
        default=10.0,
        least=1,
        most=300,
        does="How long a verifier may trust its copy of the revocation log. The lease decides how long a fence takes "
        "at most (lease * 1.1 / 0.9), and how long verifiers keep accepting tokens while the server is down.",
        why="A log-out takes effect at every verifier within milliseconds if all answer, and within 12 seconds if one "
        "does not. Verifiers survive an outage of 1.8 to 5.7 seconds.",
    ),
    Setting(
        name="preset",
        group="Signing in",
        kind="text",
        default="standard",
        choices=("high", "standard", "relaxed"),
        does="A set of defaults for this section. `high`: access_for 5m, idle_for 30m, absolute_for 12h, "
        "password_minimum 15. "
        "`relaxed`: access_for 15m, idle_for 30d, absolute_for 90d.",
        why="`standard` suits most web applications. `high` meets the second assurance level of NIST. `relaxed` is for "
        "low-risk sites.",
    ),
    _policy(
        "modes",
        "list",
        "Modes that a client may choose at log-in; the first is the default.",
        "All three, so the client can choose.",
        "session", "hybrid", "jwt",
    ),
    _policy(
        "access_for",
        "duration",
        "Lifetime of an access token.",
        "A verifier that does not follow the revocation log accepts a revoked token for at most this long. `check` "
        "warns about more than 15m.",
    ),
    _policy("idle_for", "duration", "A session that is unused for this long expires.", "Long enough for a holiday."),
    _policy(
        "absolute_for",
        "duration",
        "A session of this age expires, even if it is in use.",
        "NIST SP 800-63B allows 30 days at its first assurance level.",
    ),
    _policy(
        "touch_every",
        "duration",
        "The server writes the last-seen time of a session at most this often.",
        "Reading a session must not cause a write each time.",
    ),
    _policy(
        "step_up_for",
        "duration",
        "How recently an administrator must have authenticated to change anything.",
        "Long enough for one task. After that, an open browser or a stolen session cannot change anything (RFC 9470).",
    ),
    _policy(
        "second_factor",
        "text",
        "Who needs a second factor to sign in. `off`: no account, and none is offered. `optional`: who has one. "
        "`admins`: administrators too. `required`: everyone. With `off`, one that was enrolled is still asked for.",
        "People may protect themselves, and no one is surprised. `admins` is right for a server with many users.",
        "off",
        "optional",
        "admins",
        "required",
    ),
    _policy(
        "device_binding",
        "text",
        "Whether a sign-in is bound to a key of its client, so that a copied token (DPoP) or cookie (DBSC, over TLS) "
        "is worth nothing. `off`: no new one is. `optional`: that of a client which proves a key, for good. "
        "`required`: each, and a browser that binds none is refused after a minute.",
        "Clients that can are protected, and others work. `required` is right where you know every client.",
        "off",
        "optional",
        "required",
    ),
    _policy(
        "second_factor_grace",
        "duration",
        "Where a second factor is needed: how long an account without one may sign in, from the first time it lacked "
        "one. After that, signing in enrols one.",
        "None: the first sign-in enrols it. A week or two is right where the demand is new to people.",
    ),
    _policy(
        "remember_device_for",
        "duration",
        "How long a browser skips the second factor after its owner asked for it. 0: never.",
        "A month is what people expect. The browser of an administrator never skips it.",
    ),
    _policy(
        "passkey_verification",
        "text",
        "Whether a passkey after a password must also check its owner, by a fingerprint, a face or a PIN (`required`), "
        "or may do with a touch (`preferred`). Without a password it must, always.",
        "Older security keys only notice a touch, and still stop a thief who has the password alone.",
        "preferred",
        "required",
    ),
    _policy(
        "factor_recovery_after",
        "duration",
        "How long a person who has lost the second factor and the recovery codes waits until a mailed link removes "
        "them. 0: never by mail. The factor of an administrator never is.",
        "Three days, in which every mailbox and every device shows it, and any sign-in ends it.",
    ),
    _policy(
        "sign_in_by_mail",
        "switch",
        "A mailed code signs people in, in place of the password. A second factor is still asked for.",
        "Off: a person who reads the mail of another then gets in without a trace. Right where people come seldom.",
    ),
    _policy(
        "max_sessions",
        "count",
        "Live sessions that an account may have; 1 allows a single device.",
        "Unset: no limit. People have more devices than they remember.",
    ),
    _policy(
        "at_limit",
        "text",
        "What a sign-in above max_sessions does: revoke the least recently used session, or fail.",
        "`refuse` locks out a user who lost a device.",
        "end_oldest", "refuse",
    ),
    _policy(
        "rotation",
        "text",
        "`convergent`: a client can repeat a refresh if the response was lost. `strict`: a second use of a refresh "
        "token always counts as theft.",
        "Responses get lost every day. `strict` follows ASVS 10.4.5 literally: a lost response signs the user out.",
        "convergent", "strict",
    ),
    _policy(
        "refresh_window",
        "duration",
        "Within this time, every reuse of a refresh token returns the same new token.",
        "A retry comes within seconds. 0 to 5m.",
    ),
    _policy(
        "max_siblings",
        "count",
        "How many new tokens one refresh token may produce if responses keep getting lost.",
        "An honest client loses two or three responses in a row. 1 to 64.",
    ),
    _policy(
        "fingerprint",
        "text",
        "What the server does when a refresh token is reused late from another browser or country: revoke the session "
        "(`revoke`), write an audit event (`observe`), or nothing (`off`).",
        "An honest retry comes from the same browser.",
        "revoke", "observe", "off",
    ),
    _policy(
        "suspicion",
        "text",
        "What the server does when a live session is used in a suspicious way, such as from two continents: nothing "
        "(`off`), a mail to the owner (`quiet`), another proof (`standard`), or another proof for less (`strict`).",
        "`quiet` disturbs least. `standard` stops most thieves who are far away. See docs/guides/suspicion.md.",
        "off", "quiet", "standard", "strict",
    ),
    _policy(
        "theft_ends_all",
        "switch",
        "A proven theft revokes all other sessions of the account too.",
        "Off: an attacker who finds an old token must not be able to sign the owner out everywhere.",
    ),
    _policy(
        "password_minimum",
        "count",
        "Minimum length of a new password, in characters.",
        "NIST SP 800-63B-4 requires 8 with another factor, and 15 where the password is the only factor.",
    ),
    Setting(
        name="password_hash",
        group="Signing in",
        kind="text",
        default=next(iter(PROFILES)),
        choices=tuple(name for name in PROFILES if name != CHEAPEST.name),
        does="Cost of a password hash, by the name of the recommendation. The next log-in replaces an older hash.",
        why="19 MiB and two passes of Argon2id, which OWASP recommends for servers that do other work too.",
    ),
    _policy("reset_for", "duration", "Lifetime of a reset link.", "Mail may be slow; a thief must have little time."),
    _policy("verify_email_for", "duration", "Lifetime of a verification link.", "People read mail once a day."),
    _policy(
        "registration",
        "text",
        "Who can create accounts. `open`: everyone. `invite`: administrators; the owner gets a link by mail to choose "
        "the password. `closed`: only commands on the server's machine.",
        "Most applications need `open`. The link for the first administrator works with every value.",
        "open",
        "invite",
        "closed",
    ),
    _policy(
        "unverified_for",
        "duration",
        "How long an account with an unverified address is kept, if verification is required. Then it is removed.",
        "Covers a week of absence. Until then, the owner of the mailbox can still register the address.",
    ),
    _policy(
        "restore_email_for",
        "duration",
        "How long a change of the e-mail address can be undone by the link that is mailed to the former address.",
        "Covers a week of absence. A thief who knows the password changes the address first.",
    ),
    _policy(
        "invitation_for",
        "duration",
        "Lifetime of an invitation that an administrator mails.",
        "Covers a week of absence. It can be sent again.",
    ),
    _policy(
        "keep_deleted_for",
        "duration",
        "How long an account that its owner has deleted can still be kept, by a mailed link. Then it is erased. 0: at "
        "once.",
        "Covers a holiday, and is within the month that the GDPR gives.",
    ),
    _policy("setup_for", "duration", "Lifetime of the first administrator's link.", "Each start offers a new link."),
    _policy(
        "require_verified_email",
        "switch",
        "A sign-in requires a verified address, and registration does not reveal which accounts exist.",
        "Off, so that a trial needs no mail. Turn it on in production; `check` warns if it is off.",
    ),
    _policy(
        "key_publish_for",
        "duration",
        "The server publishes a new signing key this long before it signs with it.",
        "Every verifier that caches the key set fetches the new key in time.",
    ),
    _policy("key_sign_for", "duration", "How long a key signs before the next key.", "Regular use proves rotation."),
    _policy("max_audit_for", "duration", "Audit events are deleted at this age.", "A year answers most questions."),
    _naming(
        name="product",
        kind="text",
        default="dutchdoor",
        does="The name of your product, in mail and on pages. Passwords that consist of it are refused.",
        why="Mail and pages need a name.",
    ),
    _naming(
        name="languages",
        kind="list",
        default=(),
        does="The languages of pages and mail. The first is for people whose browser asks for none of them.",
        why="Empty: English, German, and those of your own catalogues. A browser says which of them its user reads.",
    ),
    _naming(
        name="catalogues",
        kind="path",
        does="A folder with texts of your own (en.po, de.po), or with another language (fr.po).",
        why="Unset: the texts that come with dutchdoor.",
    ),
    _naming(
        name="accent",
        kind="text",
        default="",
        does="The colour of links and buttons on pages, such as #0b6e4f. One that people cannot read on the pages is "
        "refused, with the nearest that they can.",
        why="Empty: blue.",
    ),
    _naming(
        name="accent_dark",
        kind="text",
        default="",
        does="The same in the dark theme.",
        why="Empty: the accent, lighter as far as it must be.",
    ),
    _naming(
        name="logo",
        kind="path",
        does="An SVG or PNG file of 64 KiB at most, shown beside the name on pages.",
        why="Unset: a door.",
    ),
    _naming(
        name="radius",
        kind="count",
        least=0,
        most=32,
        does="How round the corners of cards are, in pixels. Buttons and fields have two thirds of it.",
        why="Unset: 12.",
    ),
    _naming(
        name="font",
        kind="text",
        default="",
        does="The fonts of pages, the first that is there: Inter, system-ui, sans-serif.",
        why="Empty: the font of the system, which loads nothing.",
    ),
    _naming(
        name="templates",
        kind="path",
        does="A folder with templates in place of those of the pages, by the same names.",
        why="Unset: the pages as they are. The name of each template is checked at the start, and what it uses.",
    ),
    _naming(
        name="mail",
        kind="url",
        default="console:",
        does="How to send mail: console: prints it, file:DIRECTORY writes it to files, smtps://user:password@host or "
        "smtp://... sends it.",
        why="Printed mail needs no mail server for a trial.",
    ),
    _naming(
        name="mail_from",
        kind="text",
        does="The sender of mail, such as login@example.com or 'Example <login@example.com>'.",
        why="Unset: noreply at the host of the public URL.",
    ),
    _naming(
        name="security_contact",
        kind="text",
        default="",
        does="Where researchers report a vulnerability: a mailto: or https: address, published in "
        "/.well-known/security.txt (RFC 9116).",
        why="Unset: only you know this address.",
    ),
    _watching(
        name="webhook_network",
        kind="list",
        default=(),
        does="A network besides the Internet that webhooks may be sent to, such as 10.0.0.0/8, by http:// too.",
        why="Empty: webhooks go to public addresses alone, by https. Otherwise the URL of a webhook could make the "
        "server call what only it can reach, such as a database. Link-local addresses are never allowed.",
    ),
    _watching(
        name="access_log",
        kind="switch",
        default=False,
        does="Write a log line for each request: method, route, status, milliseconds, client and request id. Never a "
        "query string or a header.",
        why="Off: the proxy in front has an access log, and a line costs more time than the check that it records.",
    ),
    _watching(
        name="log_format",
        kind="text",
        default="text",
        choices=("text", "json"),
        does="The form of the log on standard error: lines of text, or one JSON object a line. Both have the time in "
        "UTC, the level and the id of the request.",
        why="People read text. Programs read JSON without a pattern of their own.",
    ),
    _watching(
        name="traces",
        kind="switch",
        default=False,
        does="Send OpenTelemetry traces by OTLP over HTTP: a span for each request and each store call in it, without "
        "personal data. The variables of OpenTelemetry, such as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER, "
        "say where to and how many.",
        why="Off: traces need a collector and the extra `otel`, and cost processor time.",
    ),
    _watching(
        name="metrics_token",
        kind="secret",
        does="The bearer token for /metrics on the main port.",
        why="Unset: the main port does not serve /metrics.",
    ),
    _watching(
        name="metrics_port",
        kind="count",
        least=1,
        most=65535,
        does="A separate port for /metrics, without a token, on the loopback address.",
        why="Unset: no separate port.",
    ),
)  # fmt: skip

SHORTEST_LIKELY = {
    "access_for": MINUTE,
    "idle_for": 5 * MINUTE,
    "absolute_for": HOUR,
    "step_up_for": MINUTE,
    "reset_for": 5 * MINUTE,
    "verify_email_for": HOUR,
    "restore_email_for": DAY,
    "invitation_for": HOUR,
    "unverified_for": HOUR,
    "setup_for": 5 * MINUTE,
    "key_publish_for": HOUR,
    "key_sign_for": DAY,
    "max_audit_for": DAY,
}
"""A duration below this, in seconds, is probably a mistake. The server warns and uses it."""

BY_NAME = {setting.name: setting for setting in SETTINGS}
