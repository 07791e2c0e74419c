"""Write `docs/reference/configuration.md` from the table of settings, when this file is run as a module."""

from __future__ import annotations

import sys

from dutchdoor.issuers.presets import PRESETS
from dutchdoor.model.durations import short_duration
from dutchdoor.server.config import DEFAULT_MASTER_KEY_FILE
from dutchdoor.server.settings import GROUPS, SETTINGS, Setting

__all__ = ["reference"]

_HEAD = """\
# Configuration

`python -m dutchdoor.server.config_docs > docs/reference/configuration.md` writes this page from the code, and a test
checks that the page is current.

All settings have defaults: `dutchdoor serve` serves this machine only, with a SQLite file in the working directory.
Every setting can be set in three ways. The first of these that is set takes effect:

1. as an argument: `dutchdoor serve --access-for 5m`
2. in the environment: `DUTCHDOOR_ACCESS_FOR=5m`
3. in a file: `access_for = "5m"` in the TOML file that `--config` or `DUTCHDOOR_CONFIG` names

A misspelt name, in the file or in a variable that begins with `DUTCHDOOR_`, stops the start, and the message gives the
name that was probably meant. An empty variable counts as unset. Variables that Kubernetes creates for a Service named
`dutchdoor` are ignored.

Durations are `90s`, `10m`, `12h`, `30d`, `1h30m`, in quotes in the file. A number without a unit means seconds; `serve`
and `check` warn about it, and about durations that are probably a mistake. Lists are repeated options
(`--proxy 10.0.0.7 --proxy 10.0.0.8`), words separated by commas or spaces in the environment, and arrays in the file.

A setting marked *secret* can also be read from a file, in the same three ways: `--pepper-file /run/secrets/pepper`,
`DUTCHDOOR_PEPPER_FILE=/run/secrets/pepper`, and `pepper_file` in the TOML file. A secret itself is never an argument,
because all users of the machine can see arguments. The URLs `--database`, `--redis` and `--mail` are arguments too, and
are refused if they contain a password. dutchdoor never prints the values of these settings. Placeholders, secrets of
fewer than 16 bytes and secrets from public lists are refused.

`dutchdoor check` lists unsafe settings, each with its reason, and exits with 1 if one of them is marked UNSAFE.

Some values are not settings. `public_url` decides the prefix and the Secure attribute of cookies, and the issuer
of tokens (without it, the issuer is `http://localhost:PORT`). HttpOnly and SameSite cannot be changed.

## Example: a server behind nginx on the same machine

```toml
public_url = "https://auth.example.com"
proxy = ["127.0.0.1", "::1"]
database = "sqlite:////var/lib/dutchdoor/dutchdoor.db"
master_key_file = "/etc/dutchdoor/dutchdoor.keys"
mail_file = "/etc/dutchdoor/mail_url"
require_verified_email = true
security_contact = "mailto:security@example.com"
```
"""

_ISSUERS = """\
## Other log-ins

People [sign in with Google and others](../guides/social-sign-in.md) by a table for each in the file:

```toml
[issuers.google]
client_id = "123.apps.googleusercontent.com"
client_secret_file = "/run/secrets/google"

[issuers.staff]
preset = "keycloak"
title = "Staff"
url = "https://keycloak.example.com/realms/staff"
client_id = "dutchdoor"
client_secret_file = "/run/secrets/staff"
domains = ["example.com"]
trusted_for = ["example.com"]
roles_claim = "groups"
roles = {"editors" = "editor"}
```

The name of a table is part of the redirect URI, `/auth/issuers/google/callback`. `preset` is one of {presets}; without
it, it is the name. The other values are those of the guide. The environment may set the id and the secret:
`DUTCHDOOR_ISSUERS_GOOGLE_CLIENT_ID`, and `_CLIENT_SECRET` or `_CLIENT_SECRET_FILE`; a dash in a name is `_` there. A
change needs a restart.
"""


def reference() -> str:
    """Write the page."""
    parts = [_HEAD]
    for group, sentence in GROUPS.items():
        parts.append(f"## {group}\n\n{sentence}\n")
        parts += [_entry(setting) for setting in SETTINGS if setting.group == group]
    presets = ", ".join(f"`{each}`" for each in PRESETS)
    parts.append(_ISSUERS.replace("{presets}", presets))
    return "\n".join(parts)


def _entry(setting: Setting) -> str:
    facts = [f"default: {_default(setting)}"]
    if setting.choices:
        facts.append("one of " + ", ".join(f"`{choice}`" for choice in setting.choices))
        if setting.kind == "list":
            facts[-1] = facts[-1].replace("one of", "any of")
    else:
        facts.append(_UNITS[setting.kind])
    if setting.least is not None and setting.most is not None:
        facts.append(f"{_number(setting, setting.least)} to {_number(setting, setting.most)}")
    if setting.fallback:
        facts.append(f"also read from `{setting.fallback}`")
    return f"### {setting.name}\n\n{setting.does}\n\n*{'; '.join(facts)}.* {setting.why}\n"


_UNITS = {
    "text": "text",
    "url": "URL, secret",
    "secret": "text, secret",
    "path": "file path",
    "list": "list",
    "count": "number",
    "duration": "duration",
    "switch": "true or false",
}


def _number(setting: Setting, value: float) -> str:
    return short_duration(value) if setting.kind == "duration" else f"{value:,.0f}"


def _default(setting: Setting) -> str:
    default = setting.default
    if setting.name == "master_key":
        return f"the file `{DEFAULT_MASTER_KEY_FILE}`"
    if default is None or default == "":
        return "not set"
    if default == ():
        return "empty"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if setting.kind == "duration":
        return f"`{short_duration(default)}`"
    return ", ".join(f"`{each}`" for each in (default if isinstance(default, tuple) else (default,)))


if __name__ == "__main__":
    sys.stdout.write(reference())
