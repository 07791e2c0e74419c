"""Read the configuration once: arguments, then the environment, then a file, then defaults, into one frozen struct.

An error stops the start, with the name of the setting and where it was set. A misspelt name that was skipped would be a
protection that an administrator only believes to have. Values that may be secret are in no message and no `repr`.
"""

from __future__ import annotations

import hmac
import operator
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Misconfigured
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.jose.weak_secrets import is_known_leaked
from dutchdoor.model.choices import near
from dutchdoor.model.durations import read_duration
from dutchdoor.model.master_key import MasterKeys
from dutchdoor.model.policy import PRESETS, Policy
from dutchdoor.model.text_file import decode_text
from dutchdoor.server.issuer_tables import ISSUER_PREFIX, read_issuers
from dutchdoor.server.listening import refuse_wrong_host
from dutchdoor.server.secret_file import read_secret
from dutchdoor.server.settings import BY_NAME, PREFIX, SETTINGS, SHORTEST_LIKELY, Setting
from dutchdoor.web.headers import Hsts

__all__ = [
    "DEFAULT_MASTER_KEY_FILE",
    "Secret",
    "Settings",
    "has_no_unit",
    "holds_password",
    "read_settings",
    "refuse_argument",
    "with_default",
]

DEFAULT_MASTER_KEY_FILE = "dutchdoor.keys"

_FILE_AT_MOST = 1024 * 1024
"""Largest size of a configuration file, in bytes. A wrong path, such as /dev/zero, must not fill the memory."""

_OTHERS_VARIABLES = frozenset(
    {"DUTCHDOOR_CONFIG", "DUTCHDOOR_VERIFIER_KEY", "DUTCHDOOR_MOVE_FROM", "DUTCHDOOR_MOVE_TO"}
)
"""Variables with the prefix that are not settings: the configuration file, the key of a verifier, URLs of a move."""

_KUBERNETES = re.compile(r"DUTCHDOOR_(SERVICE_(HOST|PORT\w*)|PORT_[0-9]+_(TCP|UDP)\w*)")
"""Variables that Kubernetes adds to containers beside a Service named dutchdoor. They are not misspelt settings."""

_PLACEHOLDERS = ("changeme", "change-me", "change_me", "placeholder", "example", "your-", "your_", "xxxxxxxx")


class Secret:
    """A text that `repr`, `str` and tracebacks never show."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(Secret)

    def __repr__(self) -> str:
        return "<secret>"


class Settings(Struct, frozen=True, kw_only=True):
    """The checked configuration of the server. `dutchdoor.server.settings` documents each field."""

    host: str
    port: int
    public_url: str | None
    base_path: str
    proxy: tuple[str, ...]
    other_host: tuple[str, ...]
    origin: tuple[str, ...]
    origin_header: tuple[str, ...]
    passkey_domain: str
    passkey_origin: tuple[str, ...]
    pass_preflights: bool
    sign_in_page: str | None
    hsts: Hsts
    clear_site_data: bool
    cookie_prefix: str
    docs: bool
    console: bool
    tls_cert: str | None
    tls_key: str | None
    workers: int
    max_connections: int
    keep_alive_for: float
    request_for: float
    stop_for: float
    handover_for: float
    database: Secret
    redis: Secret | None
    master_key: Secret | None
    master_key_file: str
    breached: str | None
    pepper: Secret | None
    alg: str
    audience: tuple[str, ...]
    lease: float
    password_hash: str
    product: str
    languages: tuple[str, ...]
    catalogues: str | None
    accent: str
    accent_dark: str
    logo: str | None
    radius: int | None
    font: str
    templates: str | None
    mail: Secret
    mail_from: str | None
    security_contact: str
    webhook_network: tuple[str, ...]
    access_log: bool
    log_format: str
    traces: bool
    metrics_token: Secret | None
    metrics_port: int | None
    policy: Policy
    issuers: tuple[Issuer, ...]
    """The other log-ins, each a table of the file."""
    config_file: str | None
    sources: Mapping[str, str]
    """Where each setting without its default was set: `--port`, `DUTCHDOOR_PORT`, `port in dutchdoor.toml`."""
    doubts: Mapping[str, str]
    """Settings with an allowed value that is probably a mistake, each with a sentence about it."""

    def source(self, name: str) -> str:
        return self.sources.get(name, "the default")


def read_settings(arguments: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Read the configuration. `arguments` contains the values from the command line, by setting name.

    Raises:
        Misconfigured: an unknown name, an invalid value, or two settings that contradict each other.
    """
    path = arguments.get("config") or environment.get("DUTCHDOOR_CONFIG") or None
    layers = [
        _from_arguments(arguments),
        _from_environment(environment),
        _from_file(Path(str(path))) if path is not None else {},
    ]
    tables, _ = layers[-1].pop("issuers", ({}, ""))
    found: dict[str, tuple[object, str]] = {}
    for layer in reversed(layers):
        for name in layer:
            # A secret and its file are two spellings of one setting: the layer with the higher priority wins.
            found.pop(_other_spelling(name), None)
        found.update(layer)
    read = {name: _read(name, value, source) for name, (value, source) in found.items()}
    sources = {name: source for name, (_, source) in found.items()}

    def given(name: str) -> Any:
        return read.get(name, _default(BY_NAME[name]))

    try:
        policy = _policy(read)
    except Misconfigured as exc:
        raise Misconfigured(_as_written(str(exc), sources)) from None
    fields = {setting.name: given(setting.name) for setting in SETTINGS if not setting.in_policy}
    del fields["preset"]
    for setting in SETTINGS:
        file = read.get(f"{setting.name}_file")
        if setting.hidden and setting.name != "master_key" and file is not None:
            fields[setting.name] = Secret(read_secret(str(file), sources[f"{setting.name}_file"]))
    settings = Settings(
        **fields,
        master_key_file=str(read.get("master_key_file", DEFAULT_MASTER_KEY_FILE)),
        policy=policy,
        issuers=read_issuers(tables, environment, Path(str(path)).name),
        config_file=None if path is None else str(path),
        sources=sources,
        doubts=dict(_doubts(found, read)),
    )
    _check(settings)
    return settings


# --- the layers ------------------------------------------------------------------------------------------------------


def _from_arguments(arguments: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {
        name: (value, "--" + name.replace("_", "-"))
        for name, value in arguments.items()
        if name != "config" and value is not None and value != ()
    }
    _one_spelling(found)
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    known = _known()
    found: dict[str, tuple[object, str]] = {}
    for variable, value in environment.items():
        if variable.startswith(ISSUER_PREFIX):
            continue
        if not variable.startswith(PREFIX) or variable in _OTHERS_VARIABLES or _KUBERNETES.fullmatch(variable):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name == "port" and value.startswith(("tcp://", "udp://")):
            continue  # Kubernetes again
        if name not in known or variable != PREFIX + name.upper():
            raise _unknown(f"The variable {variable}", variable.upper(), [PREFIX + each.upper() for each in known])
        if value != "":
            # Empty means unset: a compose file passes on missing variables as empty ones.
            found[name] = (value, variable)
    for setting in SETTINGS:
        taken = setting.name in found or f"{setting.name}_file" in found
        if setting.fallback and not taken and environment.get(setting.fallback):
            found[setting.name] = (environment[setting.fallback], setting.fallback)
    _one_spelling(found)
    return found


def _from_file(path: Path) -> dict[str, tuple[object, str]]:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_AT_MOST + 1)
    except OSError as exc:
        raise Misconfigured(f"The configuration file {path} cannot be read: {exc.strerror}.") from None
    if len(text) > _FILE_AT_MOST:
        raise Misconfigured(f"The configuration file {path} is too large: the limit is 1 MiB.")
    decoded = decode_text(text, f"The configuration file {path}")
    try:
        content = tomllib.loads(decoded)
    except tomllib.TOMLDecodeError as exc:
        # Only the place is taken from the parser's message, never a value: it may be a secret.
        place = re.search(r"\(at .*\)\Z", str(exc))
        raise Misconfigured(
            f"The configuration file {path} is not valid TOML {place[0] if place else ''}".rstrip()
            + "."
            + _quoted(decoded, exc)
        ) from None
    known = _known()
    for key in content:
        if key not in known and key != "issuers":
            if isinstance(content[key], dict):
                raise Misconfigured(
                    f"[{key}] in {path.name}: settings stand at the top of the file, and not in a table. Only the "
                    "other log-ins have tables, such as [issuers.google]."
                )
            raise _unknown(f"{key!r} in {path.name}", key, known)
    tables = content.pop("issuers", {})
    found: dict[str, tuple[object, str]] = {key: (value, f"{key} in {path.name}") for key, value in content.items()}
    _one_spelling(found)
    return {**found, "issuers": (tables, path.name)}


_LINE = re.compile(r"at line ([0-9]+)")


def _quoted(text: str, error: ValueError) -> str:
    """Explain that a value needs quotes, if their absence is the TOML error: `access_for = 5m`."""
    found = _LINE.search(str(error))
    lines = text.split("\n")
    line = lines[int(found[1]) - 1] if found and int(found[1]) <= len(lines) else ""
    key, _, value = (piece.strip() for piece in line.partition("="))
    if key not in _known() or not value or value[0] in "\"'[{":
        return ""
    # The value itself is not repeated: it may be a secret.
    setting = BY_NAME.get(key)
    example = "10m" if setting is not None and setting.kind == "duration" else "..."
    return f' Write texts and durations in quotes: {key} = "{example}".'


def _known() -> list[str]:
    names = [setting.name for setting in SETTINGS]
    return names + [f"{setting.name}_file" for setting in SETTINGS if setting.hidden]


def _unknown(what: str, name: str, known: list[str]) -> Misconfigured:
    meant = near(name, known)
    hint = f"Did you mean {meant}?" if meant else "`dutchdoor serve --help` lists all settings."
    return Misconfigured(f"{what} is not a setting of dutchdoor. {hint}")


def _other_spelling(name: str) -> str:
    setting = BY_NAME.get(name)
    return f"{name}_file" if setting else name.removesuffix("_file")


def _one_spelling(found: Mapping[str, tuple[object, str]]) -> None:
    for name, (_, source) in found.items():
        other = found.get(_other_spelling(name))
        if other is not None:
            raise Misconfigured(f"{source} and {other[1]} set the same secret. Keep one of them.")


# --- values ----------------------------------------------------------------------------------------------------------


def _read(name: str, value: object, source: str) -> object:
    setting = BY_NAME.get(name)
    if setting is None:  # the file of a secret
        return _text(value, source)
    if setting.kind == "list" and isinstance(value, list | tuple):
        _check_elements(value, setting, source)
    elif setting.choices and not isinstance(value, str):
        raise _no_choice(setting, value, source)
    read: object = _READERS[setting.kind](value, source)
    for each in read if isinstance(read, tuple) else (read,):
        if setting.choices and each not in setting.choices:
            raise _no_choice(setting, each, source)
    if isinstance(read, int | float):
        # Refused and not clamped: an administrator who asks for 100,000 workers must see that this is not possible.
        unit = " seconds" if setting.kind == "duration" else ""
        for bound, words, is_beyond in (
            (setting.least, "at least", operator.lt),
            (setting.most, "at most", operator.gt),
        ):
            if bound is not None and is_beyond(read, bound):
                raise Misconfigured(f"{source} is {read:.10g}{unit}, and must be {words} {bound:.10g}{unit}.")
    return read


def _check_elements(values: Sequence[object], setting: Setting, source: str) -> None:
    for place, value in enumerate(values, 1):
        if not isinstance(value, str):
            allowed = f", one of {', '.join(setting.choices)}" if setting.choices else ""
            raise Misconfigured(
                f"{source}: element {place} of the list is {repr(value)[:40]}. Each is a text in quotes{allowed}."
            )


def _no_choice(setting: Setting, value: object, source: str) -> Misconfigured:
    meant = near(value, setting.choices)
    hint = f" Did you mean {meant}?" if meant else ""
    return Misconfigured(f"{source}: {value!r} is not one of {', '.join(setting.choices)}.{hint}")


def _text(value: object, source: str) -> str:
    if not isinstance(value, str):
        raise Misconfigured(f"{source} must be a text in quotes.")
    if not value.strip() or not value.isprintable():
        raise Misconfigured(f"{source} must be one line of text.")
    return value.strip()


def _secret(value: object, source: str) -> Secret:
    if not isinstance(value, str) or not value.strip():
        raise Misconfigured(f"{source} must be text.")
    return Secret(value.strip())


def _url(value: object, source: str) -> Secret:
    return Secret(_text(value, source))


def _list(value: object, source: str) -> tuple[str, ...]:
    if not isinstance(value, str | list | tuple):
        raise Misconfigured(f"{source} must be a list of strings.")
    written = [value] if isinstance(value, str) else value
    pieces = [piece for each in written for piece in re.split(r"[,\s]+", each.strip()) if piece]
    return tuple(dict.fromkeys(_text(piece, f"{piece[:40]!a} in {source}") for piece in pieces))


def _count(value: object, source: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Misconfigured(f"{source} must be a whole number, and not {str(value)[:40]!a}.")
    return value


def _switch(value: object, source: str) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise Misconfigured(f"{source} must be true or false.")


def has_no_unit(value: object) -> bool:
    """Whether a duration is a number other than 0 without a unit. A reader cannot see that it counts seconds."""
    return str(value).strip()[-1:].isdigit() and read_duration(value) > 0


def _doubts(found: Mapping[str, tuple[object, str]], read: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, (value, source) in found.items():
        setting = BY_NAME.get(name)
        if setting is None or setting.kind != "duration":
            continue
        seconds = float(str(read[name]))
        if has_no_unit(value):
            yield name, f"{source} has no unit, so it counts {seconds:g} seconds. Add a unit: s, m, h, d or w."
        elif seconds < SHORTEST_LIKELY.get(name, 0.0):
            least = SHORTEST_LIKELY[name]
            yield name, f"{source} is {seconds:g} seconds; a value below {least:g} is probably a mistake."


_READERS: Mapping[str, Callable[[object, str], object]] = {
    "text": _text,
    "path": _text,
    "url": _url,
    "secret": _secret,
    "list": _list,
    "count": _count,
    "duration": read_duration,
    "switch": _switch,
}


def _default(setting: Setting) -> object:
    return Secret(str(setting.default)) if setting.hidden and setting.default is not None else setting.default


def with_default(settings: Settings, name: str) -> Settings:
    """Return the settings with the default of one of them, which a policy may refuse. Raises `Misconfigured`."""
    if name in Policy.__struct_fields__:
        return replace(settings, policy=replace(settings.policy, **{name: getattr(PRESETS["standard"], name)}))
    if name not in Settings.__struct_fields__:
        return settings
    return replace(settings, **{name: _default(BY_NAME[name])})


# --- what must fit together ------------------------------------------------------------------------------------------


def _policy(read: Mapping[str, object]) -> Policy:
    preset = PRESETS[str(read.get("preset", "standard"))]
    return replace(preset, **{name: value for name, value in read.items() if name in preset.__struct_fields__})


def _as_written(text: str, sources: Mapping[str, str]) -> str:
    """Put what the administrator wrote in the place of each field of the policy."""
    name, space, rest = text.partition(" ")
    rest = re.sub(r"[a-z]+(_[a-z]+)+", lambda found: sources.get(found[0], found[0]), rest)
    return sources.get(name, name) + space + rest


def _check(settings: Settings) -> None:
    refuse_wrong_host(settings.host, settings.source("host"))
    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(settings, name) is not None and getattr(settings, other) is None:
            lacking = BY_NAME[other]
            raise Misconfigured(f"{settings.source(name)} needs {other}, too: {lacking.option} or {lacking.variable}.")
    for setting in SETTINGS:
        if setting.kind == "url" and settings.source(setting.name) == setting.option:
            refuse_argument(getattr(settings, setting.name), setting.option, setting.variable)
    if settings.master_key is not None:
        try:
            MasterKeys.parse(settings.master_key.reveal())
        except Misconfigured as exc:
            raise Misconfigured(f"{settings.source('master_key')}: {exc}") from None
    for name, least in (("metrics_token", 16), ("pepper", 16)):
        secret: Secret | None = getattr(settings, name)
        if secret is not None:
            refuse_unfit(secret, settings.source(name), least=least)


def refuse_argument(url: Secret | None, option: str, variable: str) -> None:
    """Raise `Misconfigured` for a URL with a password that was given as an argument."""
    if holds_password(url):
        raise Misconfigured(
            f"{option} contains a password, and every user of this machine can see the arguments of a program. Set the "
            f"URL in the environment variable {variable} instead."
        )


def holds_password(url: Secret | None) -> bool:
    """Whether a URL contains a password. An invalid URL may contain one, so the answer is True."""
    if url is None:
        return False
    try:
        parts = urlsplit(url.reveal())
        options = parse_qs(parts.query)
    except ValueError:
        return True
    return parts.password is not None or any(name.endswith("password") for name in options)


def refuse_unfit(secret: Secret, source: str, *, least: int) -> None:
    """Raise `Misconfigured` for a secret that is too short, a placeholder, or publicly known (P09, J14)."""
    text = secret.reveal()
    if len(text.encode()) < least:
        raise Misconfigured(
            f"{source} is too short for a secret: it needs {least} bytes. Create one with `dutchdoor key master`."
        )
    if any(word in text.lower() for word in _PLACEHOLDERS) or len(set(text)) < 8:  # noqa: PLR2004 - random text has more
        raise Misconfigured(f"{source} is a placeholder, not a secret. Create one with `dutchdoor key master`.")
    if is_known_leaked(text.encode()):
        raise Misconfigured(f"{source} is a publicly known secret. Create one with `dutchdoor key master`.")
