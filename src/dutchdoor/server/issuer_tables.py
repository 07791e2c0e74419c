"""Other log-ins in the configuration: one table for each in the file, and its id and secret in the environment.

    [issuers.google]
    client_id = "123.apps.googleusercontent.com"
    client_secret_file = "/run/secrets/google"

    [issuers.staff]
    preset = "keycloak"
    url = "https://keycloak.example.com/realms/staff"
    ...

The name of a table is that of the issuer, and of its preset if there is no `preset`. In the environment,
`DUTCHDOOR_ISSUERS_GOOGLE_CLIENT_ID`, `..._CLIENT_SECRET` and `..._CLIENT_SECRET_FILE` set these three in place of the
file. A dash in a name is `_` there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dutchdoor.errors import Misconfigured
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.issuers.presets import PRESETS
from dutchdoor.model.choices import near
from dutchdoor.server.secret_file import read_secret
from dutchdoor.server.settings import PREFIX

__all__ = ["ISSUER_PREFIX", "read_issuers"]

ISSUER_PREFIX: Final = f"{PREFIX}ISSUERS_"
_VARIABLE: Final = re.compile(rf"{ISSUER_PREFIX}([A-Z][A-Z0-9_]*?)_(CLIENT_ID|CLIENT_SECRET|CLIENT_SECRET_FILE)")
_SECRET, _FILE = "client_secret", "client_secret_file"


def read_issuers(tables: object, environment: Mapping[str, str], file: str) -> tuple[Issuer, ...]:
    """Return the issuers of the tables under `issuers` in a configuration file, and of the environment.

    Args:
        tables: what the file has under `issuers`; an empty mapping for none.
        environment: the environment.
        file: the name of the file, for messages.

    Raises:
        Misconfigured: a name or a value is wrong. No message holds a secret.
    """
    if not isinstance(tables, Mapping):
        raise Misconfigured(f"issuers in {file} is a table for each issuer: [issuers.google], then its values.")
    given: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise Misconfigured(f"issuers.{name} in {file} is a table: [issuers.{name}], then its values.")
        given[name] = dict(table)
    for variable, value in environment.items():
        if not variable.startswith(ISSUER_PREFIX) or value == "":
            continue
        found = _VARIABLE.fullmatch(variable)
        if found is None:
            raise Misconfigured(
                f"The variable {variable} is not a setting of dutchdoor. Of an issuer, the environment has "
                f"{ISSUER_PREFIX}NAME_CLIENT_ID, _CLIENT_SECRET and _CLIENT_SECRET_FILE; the rest is in the file."
            )
        of_issuer = given.setdefault(found[1].lower().replace("_", "-"), {})
        if found[2] != "CLIENT_ID":  # the environment wins, in whichever spelling
            of_issuer.pop(_SECRET, None)
            if found[2] == "CLIENT_SECRET_FILE" or f"{variable}_FILE" not in environment:
                of_issuer.pop(_FILE, None)
        of_issuer[found[2].lower()] = value
    return tuple(_read(name, values, file) for name, values in given.items())


def _read(name: str, values: dict[str, Any], file: str) -> Issuer:
    preset_name = values.pop("preset", name)
    preset = PRESETS.get(preset_name) if isinstance(preset_name, str) else None
    if preset is None:
        meant = near(preset_name, PRESETS)
        hint = f" Did you mean {meant}?" if meant else ' For any other issuer, set preset = "openid".'
        raise Misconfigured(f"[issuers.{name}]: {preset_name!r} is no preset. There are {', '.join(PRESETS)}.{hint}")
    path = values.pop(_FILE, None)
    if path is not None:
        if values.get(_SECRET):
            raise Misconfigured(f"[issuers.{name}]: {_SECRET} and {_FILE} set the same secret. Keep one of them.")
        values[_SECRET] = read_secret(str(path), f"{_FILE} of issuers.{name} in {file}")
    values.setdefault("name", name)
    if preset_name in {"openid", "keycloak"}:
        values.setdefault("title", name.capitalize())
    for field, value in values.items():
        if isinstance(value, str) and not value.strip():
            fix = "The issuer shows it when you register there." if field == "client_id" else "Leave it out, or set it."
            raise Misconfigured(f"[issuers.{name}]: {field} is empty. {fix}")
    if "client_id" not in values:
        raise Misconfigured(f"[issuers.{name}]: client_id is missing. The issuer shows it when you register there.")
    return preset(**values)
