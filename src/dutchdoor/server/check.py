"""Find unsafe settings, each with its reason. Nothing is opened, created or changed."""

from __future__ import annotations

import ipaddress
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from msgspec import Struct

from dutchdoor.auth.key_file import read_master_key
from dutchdoor.credentials.strength import BreachedList
from dutchdoor.errors import Misconfigured
from dutchdoor.issuers.issuer import ANY, is_local
from dutchdoor.model.policy import DAY, MINUTE
from dutchdoor.model.this_machine import is_this_machine
from dutchdoor.revocation.lease import GUARD, Terms
from dutchdoor.server.config import Settings, holds_password
from dutchdoor.server.factory import refuse_wrong, sqlite_file
from dutchdoor.server.serve import refuse_unsafe
from dutchdoor.server.settings import SETTINGS
from dutchdoor.server.tls import tls_context
from dutchdoor.stores.file_access import is_closed_to_others
from dutchdoor.stores.urls import is_in_memory
from dutchdoor.webhooks.reach import Reach

__all__ = ["Finding", "findings", "revocation_window"]

ACCESS_AT_MOST = 15 * MINUTE
LEASE_AT_MOST = 60.0
PASSWORD_ALONE = 15
FILES = "", "-wal", "-shm", "-head"
"""Suffixes of the files of a SQLite database."""
RENEW_BEFORE = 14 * DAY
ONE_NETWORK = 7
"""The shortest prefix of a private network: that of fc00::/7, and 10.0.0.0/8 is longer."""
WIDE = {4: 16, 6: 48}
"""A network with a shorter prefix than this, by IP version, holds more machines than an operator has proxies."""


class Finding(Struct, frozen=True, kw_only=True):
    """`matters`: do not serve with this setting. Otherwise it is a choice to be aware of."""

    setting: str
    what: str
    why: str
    matters: bool


def findings(settings: Settings) -> list[Finding]:
    """List the unsafe settings, the worst first. Raises `Misconfigured` for settings that `serve` refuses to read."""
    refuse_wrong(settings)
    found = [
        *_reach(settings),
        *_tls(settings),
        *_durations(settings),
        *_binding(settings),
        *_tokens(settings),
        *_people(settings),
        *_issuers(settings),
        *_keeping(settings),
        *_ways(settings),
        *_files(settings),
    ]
    return sorted(found, key=lambda each: not each.matters)


def revocation_window(settings: Settings) -> str:
    """Say how long a revoked session or token may still be accepted, as text with numbers."""
    lives = settings.policy.access_for
    minutes = f"{lives / MINUTE:g} minute" + ("" if lives == MINUTE else "s")
    shortest, longest = Terms(lease_for=settings.lease).survives
    return f"""\
How long a revoked session or token may still be accepted after the call that revoked it:
  by this server, in each of its processes        0 s
  by a verifier that follows the revocation log   0 s once the answer says `fenced`: one round trip if all answer,
                                                  {settings.lease * GUARD:.1f} s at most (a lease of \
{settings.lease:g} s plus the clock margin)
  by a verifier that does not follow the log      until the access token expires: {minutes} at most
While this server is down, verifiers that follow the log accept tokens for {shortest:.1f} to {longest:.1f} s, then \
refuse."""


def _production(settings: Settings) -> bool:
    return (settings.public_url or "").startswith("https://")


def _no_start(setting: str, error: Misconfigured) -> Finding:
    return Finding(setting=setting, what=str(error), why="`serve` refuses to start with this.", matters=True)


def _reach(settings: Settings) -> Iterator[Finding]:
    try:
        refuse_unsafe(settings)
    except Misconfigured as exc:
        yield _no_start("host", exc)
    if not _production(settings):
        yield Finding(
            setting="public_url",
            what="There is no https public URL.",
            why="Without it the server is for this machine only: no Secure cookies, no HSTS, no working links in mail.",
            matters=True,
        )
    elif not settings.proxy and settings.tls_cert is None:
        yield Finding(
            setting="proxy",
            what="A proxy in front terminates TLS, and its address is not set.",
            why="Every request seems to come from the proxy: one attacker uses up the rate limits of all clients, "
            "and the audit log records no client addresses.",
            matters=True,
        )
    for proxy in settings.proxy:
        network = ipaddress.ip_network(proxy)
        if network.prefixlen < WIDE[network.version]:
            yield Finding(
                setting="proxy",
                what=f"{proxy} is {network.num_addresses:,} addresses.",
                why="Each of these addresses can claim any client address. List only the addresses of your proxies.",
                matters=False,
            )
    Reach(settings.webhook_network)
    for each in settings.webhook_network:
        if ipaddress.ip_network(each).prefixlen < ONE_NETWORK:
            yield Finding(
                setting="webhook_network",
                what=f"{each} is more than one network of yours.",
                why="The URL of a webhook can make the server call each address there that answers. List the networks "
                "that have receivers.",
                matters=False,
            )
    for origin in settings.origin:
        if origin.startswith("http://"):
            yield Finding(
                setting="origin",
                what=f"{origin} is plain HTTP.",
                why="An attacker on the network path, or a program on the same machine, can act as this origin.",
                matters=_production(settings),
            )


def _tls(settings: Settings) -> Iterator[Finding]:
    if settings.tls_cert is None:
        return
    try:
        tls_context(settings)
        certificate = x509.load_pem_x509_certificate(Path(settings.tls_cert).read_bytes())
    except Misconfigured as exc:
        yield _no_start("tls_cert", exc)
        return
    left = certificate.not_valid_after_utc.timestamp() - time.time()
    if left < RENEW_BEFORE:
        yield Finding(
            setting="tls_cert",
            what="The certificate has expired." if left < 0 else f"The certificate expires in {left / DAY:.0f} days.",
            why="Browsers refuse an expired certificate, and with HSTS the user cannot skip the warning.",
            matters=left < 0,
        )
    host = urlsplit(settings.public_url or "").hostname or ""
    try:
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [name.lower() for name in named.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in named.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        names = []
    if host and host not in names and "*." + host.partition(".")[2] not in names:
        yield Finding(
            setting="tls_cert",
            what=f"The certificate is not for {host}.",
            why="Browsers refuse this certificate.",
            matters=True,
        )


def _durations(settings: Settings) -> Iterator[Finding]:
    for name, doubt in settings.doubts.items():
        yield Finding(setting=name, what=doubt, why="Another duration was probably intended.", matters=False)


def _binding(settings: Settings) -> Iterator[Finding]:
    if settings.policy.device_binding == "required" and not _production(settings):
        yield Finding(
            setting="device_binding",
            what="device_binding is required, and there is no https public URL.",
            why="Browsers bind no cookie without TLS. So session cookies are accepted unbound, and a copy works.",
            matters=True,
        )


def _tokens(settings: Settings) -> Iterator[Finding]:
    if settings.policy.access_for > ACCESS_AT_MOST:
        yield Finding(
            setting="access_for",
            what=f"Access tokens live {settings.policy.access_for / MINUTE:g} minutes.",
            why="A verifier that does not follow the revocation log accepts a revoked token for this long. 5 to 15 "
            "minutes suits almost every application.",
            matters=False,
        )
    if settings.lease > LEASE_AT_MOST:
        yield Finding(
            setting="lease",
            what=f"A lease lasts {settings.lease:g} seconds.",
            why=f"A log-out waits up to {settings.lease * GUARD:.0f} seconds if one verifier does not answer.",
            matters=False,
        )
    if settings.alg.startswith("HS"):
        yield Finding(
            setting="alg",
            what=f"{settings.alg} signs and verifies with the same secret.",
            why="A service that can verify a token can also forge one of an administrator. ES256 shares no secret.",
            matters=False,
        )
    if settings.policy.rotation == "strict":
        yield Finding(
            setting="rotation",
            what="A second use of a refresh token always counts as theft.",
            why="A response that is lost on the network, which happens every day, signs the user out.",
            matters=False,
        )
    elif settings.policy.fingerprint == "off":
        yield Finding(
            setting="fingerprint",
            what="A refresh token that is reused late from another browser raises no alarm.",
            why="Another browser is the only visible sign of a copied token at that moment.",
            matters=False,
        )


def _people(settings: Settings) -> Iterator[Finding]:
    production = _production(settings)
    if not settings.policy.require_verified_email:
        yield Finding(
            setting="require_verified_email",
            what="Users can sign in without a verified address.",
            why="Registration reveals which addresses have accounts, and people can register addresses of others.",
            matters=production,
        )
    if settings.mail.reveal().partition(":")[0] in {"console", "file"}:
        yield Finding(
            setting="mail",
            what="Mail is printed or written to files, and not sent.",
            why="Users cannot verify an address or reset a password, and a reader of the output can do it for them.",
            matters=production,
        )
    if settings.breached is not None:
        try:
            BreachedList(Path(settings.breached))
        except Misconfigured as exc:
            yield _no_start("breached", exc)
    if not settings.security_contact:
        yield Finding(
            setting="security_contact",
            what="There is no security contact.",
            why="A researcher who finds a vulnerability cannot report it (RFC 9116).",
            matters=False,
        )
    if settings.policy.password_minimum < PASSWORD_ALONE:
        yield Finding(
            setting="password_minimum",
            what=f"Passwords may be as short as {settings.policy.password_minimum} characters.",
            why="NIST SP 800-63B-4 requires 15 where the password is the only factor.",
            matters=False,
        )


def _issuers(settings: Settings) -> Iterator[Finding]:
    for issuer in settings.issuers:
        name = f"issuers.{issuer.name}"
        if is_local(issuer.url) and _production(settings):
            yield Finding(
                setting=name,
                what=f"The issuer {issuer.url} is plain HTTP on this machine.",
                why="It is for development: people's browsers cannot reach it.",
                matters=True,
            )
        if not issuer.client_secret:
            yield Finding(
                setting=name,
                what="There is no client_secret.",
                why="Then PKCE alone protects the code. Most issuers refuse that for a server: set client_secret_file.",
                matters=False,
            )
        if ANY in issuer.trusted_for:
            yield Finding(
                setting=name,
                what="trusted_for is *: an address that the issuer calls verified signs in to the account that has it.",
                why="A mistake there, or a tenant of a stranger, opens accounts here. Name the domains that it runs.",
                matters=False,
            )
        if settings.public_url is None and issuer.form_post:
            yield Finding(
                setting=name,
                what="The issuer sends people back to https addresses alone, and public_url is not set.",
                why="Its log-in cannot work on this machine.",
                matters=False,
            )


def _keeping(settings: Settings) -> Iterator[Finding]:
    if is_in_memory(settings.database.reveal()):
        yield Finding(
            setting="database",
            what="All data is kept in memory.",
            why="Accounts and revocations are lost when the process exits.",
            matters=True,
        )
    file = sqlite_file(settings)
    if settings.master_key is None and Path(settings.master_key_file).exists():
        try:
            read_master_key(Path(settings.master_key_file))
        except Misconfigured as exc:
            yield _no_start("master_key_file", exc)
    if file is not None and settings.master_key is None:
        beside = Path(settings.master_key_file).resolve().parent == file.resolve().parent
        if beside:
            yield Finding(
                setting="master_key_file",
                what=f"The master key is in the directory of the database ({Path(settings.master_key_file).name}).",
                why="A copy of that directory, such as a backup, contains the signing keys and the key to open them.",
                matters=False,
            )


def _ways(settings: Settings) -> Iterator[Finding]:
    url = settings.database.reveal()
    if url.startswith("postgres"):
        options = dict(parse_qsl(urlsplit(url).query))
        checked = options.get("sslmode") == "verify-full" or options.get("sslrootcert") == "system"
        if not checked and _leaves_the_machine(url, options.get("host", "")):
            yield Finding(
                setting="database",
                what="The certificate of the database is not verified, and the connection may not use TLS.",
                why="An attacker on the network path can read and change all data. On a shared network, add "
                "?sslmode=verify-full&sslrootcert=FILE to the URL.",
                matters=False,
            )
    url = "" if settings.redis is None else settings.redis.reveal()
    if url.startswith("redis") and not url.startswith("rediss") and _leaves_the_machine(url):
        yield Finding(
            setting="redis",
            what="The connection to Redis is not encrypted.",
            why="An attacker on the network path learns the password and can reset rate limits, except those in the "
            "database. On a shared network, use rediss://.",
            matters=False,
        )


def _leaves_the_machine(url: str, instead: str = "") -> bool:
    hosts = instead or urlsplit(url).netloc.rpartition("@")[2]
    return not all(
        is_this_machine(urlsplit(f"//{host}").hostname or "localhost") for host in hosts.split(",") if host[:1] != "/"
    )


def _files(settings: Settings) -> Iterator[Finding]:
    database = sqlite_file(settings)
    secret_files = [
        *([("database", database.with_name(database.name + end)) for end in FILES] if database else []),
        *([("tls_key", Path(settings.tls_key))] if settings.tls_key else []),
        *([("config", Path(settings.config_file))] if settings.config_file else []),
    ]
    if database and not database.parent.is_dir():
        yield Finding(
            setting="database",
            what=f"There is no directory {database.parent}.",
            why="`serve` refuses to start with this. Create it first.",
            matters=True,
        )
    for setting, path in secret_files:
        try:
            found = path.stat()
        except OSError:
            continue  # not created yet, or reported elsewhere
        if not stat.S_ISREG(found.st_mode):  # /dev/null or a pipe: its mode is not the administrator's to change
            if setting == "database":
                yield Finding(
                    setting=setting,
                    what=f"{path} is a {'directory' if stat.S_ISDIR(found.st_mode) else 'device or a pipe'}.",
                    why="`serve` refuses to start with this. Name a file.",
                    matters=True,
                )
            continue
        # A configuration file without secrets may be readable. If others can change it, they choose the settings.
        public = setting == "config" and not _holds_a_secret(settings, path)
        closed = is_closed_to_others(found)
        if found.st_mode & 0o022 if public else not closed:
            yield Finding(
                setting=setting,
                what=f"{path} can be {'changed' if public else 'read'} by other users of this machine.",
                why=f"Restrict it: chmod {'go-w' if public else '600'} {path}",
                matters=True,
            )
    if database is not None and database.parent.is_dir():
        mode = database.parent.resolve().stat().st_mode
        if mode & 0o002 and not mode & 0o1000:
            yield Finding(
                setting="database",
                what="Every user of this machine can replace files in the directory of the database.",
                why=f"Restrict it: chmod o-w {database.resolve().parent}",
                matters=True,
            )


def _holds_a_secret(settings: Settings, file: Path) -> bool:
    """Whether the configuration file itself contains a secret, rather than the name of a file with one."""
    secrets = {setting.name for setting in SETTINGS if setting.kind == "secret"}
    urls = (("mail", settings.mail), ("database", settings.database), ("redis", settings.redis))
    secrets |= {name for name, url in urls if holds_password(url)}
    return any(settings.source(name) == f"{name} in {file.name}" for name in secrets)
