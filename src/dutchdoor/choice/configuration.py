"""The files and lines that an answer comes with: `dutchdoor.toml`, and code for the framework of the application."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from dutchdoor.choice.questions import Answers
from dutchdoor.model.durations import short_duration
from dutchdoor.model.policy import DURATIONS

__all__ = ["Line", "domain_of", "framework_lines", "settings_lines", "toml"]

WIDTH: Final = 76
PROXY_ELSEWHERE: Final = "10.0.0.7"
"""Stands for the address of the proxy in front, which only the operator knows."""


class Line(Struct, frozen=True, kw_only=True):
    """A setting with the reason for its value. `rule` is empty where the answers give the value as it is."""

    name: str
    value: Any
    why: str
    rule: str = ""
    to_change: bool = False
    """Whether the value stands for one that only the operator knows."""


def domain_of(url: str) -> str:
    """Return the domain of an address, for the names beside it: auth.example.com gives example.com."""
    host = urlsplit(url).hostname or ""
    return host.partition(".")[2] if host.count(".") > 1 else host


def settings_lines(answers: Answers, decided: Mapping[str, Any], modes: Sequence[str]) -> tuple[Line, ...]:
    """Return the settings of the server, those to change first."""

    def decided_line(name: str, value: Any) -> Line:
        rule = decided["why"][name]
        return Line(name=name, value=value, why=rule.because, rule=rule.id)

    domain = domain_of(answers.url)
    on_one = decided["nodes"] == 1
    lines = [
        Line(
            name="public_url",
            value=answers.url,
            why="The address that users open, and the name in each token.",
            to_change="example." in answers.url,
        ),
        Line(
            name="proxy",
            value=["127.0.0.1", "::1"] if on_one else [PROXY_ELSEWHERE],
            why="The addresses of the proxy in front, which has the certificate. Change it to yours.",
            to_change=True,
        ),
        Line(
            name="mail",
            value=f"smtps://mail.{domain}",
            why="Your mail server. If it wants a password, give the whole URL in the variable DUTCHDOOR_MAIL.",
            to_change=True,
        ),
        Line(
            name="security_contact",
            value=f"mailto:security@{domain}",
            why="Where people report a vulnerability.",
            to_change=True,
        ),
        Line(
            name="database",
            value="sqlite:///dutchdoor.db"
            if decided["database"] == "sqlite"
            else f"postgresql://dutchdoor@db.{domain}/dutchdoor?sslmode=verify-full&sslrootcert=system",
            why="A file in the working directory."
            if decided["database"] == "sqlite"
            else "Your PostgreSQL. Give its password in the variable DUTCHDOOR_DATABASE, with the whole URL.",
            rule="D1" if decided["database"] == "sqlite" else "D2",
            to_change=decided["database"] != "sqlite",
        ),
    ]
    if not on_one:
        lines.append(Line(name="host", value="0.0.0.0", why="The proxy comes from another machine."))  # noqa: S104
    if decided["workers"] > 1:
        lines.append(Line(name="workers", value=decided["workers"], why="Processes of each node.", rule="K1"))
    lines.append(Line(name="modes", value=list(modes), why=_why_modes(modes, answers)))
    if answers.origins:
        lines.append(Line(name="origin", value=list(answers.origins), why="Pages of these addresses may call."))
    elif "spa-elsewhere" in answers.clients:
        why = "The address of the page on another site. Without it, browsers let that page read no answer."
        lines.append(Line(name="origin", value=["https://app.example.net"], why=why, to_change=True))
    if answers.assurance != "standard":
        lines.append(
            Line(name="preset", value=answers.assurance, why="As you answered. The next lines say the most of it.")
        )
    for name in ("access_for", "idle_for", "absolute_for", "step_up_for", "password_minimum", "second_factor"):
        value = decided[name]
        lines.append(decided_line(name, short_duration(value) if name in DURATIONS else value))
    if decided["device_binding"] != "optional":
        lines.append(decided_line("device_binding", decided["device_binding"]))
    lines.append(
        Line(
            name="require_verified_email",
            value=True,
            why="People prove their address first, and no one learns who has an account.",
        )
    )
    if decided["checking"] == "follow":
        lines.append(decided_line("lease", short_duration(decided["lease"])))
    return tuple(lines)


def _why_modes(modes: Sequence[str], answers: Answers) -> str:
    if modes == ["session"]:
        return "The pattern of your clients. No client can ask for another one."
    last = "" if "pages" in answers.clients or "spa" in answers.clients else " The pages of the server need session."
    return "The patterns of your clients, the default first." + last


def toml(lines: Sequence[Line]) -> str:
    """Write the configuration file. A line to change says so."""
    text = [
        "# Written by `dutchdoor advise`. Change what is marked CHANGE, then",
        "#     dutchdoor check --config dutchdoor.toml",
        "#     dutchdoor serve --config dutchdoor.toml",
        "# In brackets: the rule of a value. `dutchdoor advise --explain` says why.",
        "",
    ]
    for line in lines:
        mark = "CHANGE. " if line.to_change else ""
        rule = f" [{line.rule}]" if line.rule else ""
        text += textwrap.wrap(f"{mark}{line.why}{rule}", WIDTH, initial_indent="# ", subsequent_indent="# ")
        text += [f"{line.name} = {_value(line.value)}", ""]
    return "\n".join(text).rstrip() + "\n"


def _value(value: Any) -> str:
    return json.dumps(value)  # texts, numbers, true and lists of texts are written alike in JSON and TOML


# --- code ------------------------------------------------------------------------------------------------------------

_IMPORTS: Final = {
    "fastapi": "from dutchdoor.fastapi import Auth, CurrentUser\nfrom fastapi import FastAPI",
    "starlette": (
        "from dutchdoor.starlette import Auth\nfrom starlette.applications import Starlette\n"
        "from starlette.responses import JSONResponse\nfrom starlette.routing import Route"
    ),
    "litestar": "from dutchdoor.litestar import Auth, CurrentUser\nfrom litestar import Litestar, get",
    "flask": "from dutchdoor.flask import Auth, current_user, login_required\nfrom flask import Flask",
}
_APPLICATION: Final = {
    "fastapi": "app = FastAPI()\n{auth}\n\n\n"
    '@app.get("/hello")\nasync def hello(user: CurrentUser):\n    return {{"hello": user.id}}',
    "starlette": "{auth}\n\n\n@auth.require()\nasync def hello(request):\n"
    '    return JSONResponse({{"hello": request.user.id}})\n\n\n'
    'app = Starlette(routes=[Route("/hello", hello)])\nauth.attach(app)',
    "litestar": '{auth}\n\n\n@get("/hello")\nasync def hello(current_user: CurrentUser) -> dict[str, str]:\n'
    '    return {{"hello": current_user.id}}\n\n\napp = Litestar([hello], plugins=[auth])',
    "flask": "app = Flask(__name__)\n{auth}\n\n\n"
    '@app.get("/hello")\n@login_required\ndef hello():\n    return {{"hello": current_user.id}}',
}
_FIRST: Final = {"fastapi": "app", "starlette": "None", "litestar": "", "flask": "app"}
"""What `Auth` gets before the database or the issuer."""

_IN_DJANGO: Final = """\
# settings.py, beside dutchdoor.django in INSTALLED_APPS and its middleware
# (docs/start/django.md). Users stay Django's: so do their mail, their
# addresses and the rules for their passwords.
{imports}DUTCHDOOR = {{
{arguments}
}}"""


def framework_lines(answers: Answers, decided: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """Return the lines of an application: with the sign-in inside, or as a service that checks tokens.

    Empty if no framework was named.
    """
    framework = answers.framework
    if framework == "none":
        return ""
    if answers.services and decided["checking"] != "follow":
        return _of_a_service(answers, decided)
    if answers.services:
        arguments, imports = {"issuer": json.dumps(answers.url)}, ""
    else:
        not_ours = {"mail", "require_verified_email", "password_minimum"} if framework == "django" else set()
        arguments, imports = _engine(decided, lines, not_ours), "from dutchdoor import Policy\n"
        if framework == "django":
            imports += '\n# Django\'s own page asks for a password alone.\nLOGIN_URL = "/auth/login"\n'
    if framework == "django":
        written = "\n".join(f'    "{name}": {value},' for name, value in arguments.items())
        return _IN_DJANGO.format(imports=f"{imports}\n" if imports else "", arguments=written) + "\n"
    database = arguments.pop("database", "")
    given = [each for each in (_FIRST[framework], database) if each]
    given += [f"{name}={value}" for name, value in arguments.items()]
    on_one = f"auth = Auth({', '.join(given)})"
    auth = on_one if len(on_one) <= WIDTH else "auth = Auth(\n" + "".join(f"    {each},\n" for each in given) + ")"
    return f"{imports}{_IMPORTS[framework]}\n\n{_APPLICATION[framework].format(auth=auth)}\n"


def _engine(decided: Mapping[str, Any], lines: Sequence[Line], not_ours: AbstractSet[str]) -> dict[str, str]:
    """Return the arguments of an `Auth` that signs people in, as code, without what belongs to another directory."""
    lines = [line for line in lines if line.name not in not_ours]
    of_engine = {"public_url": "public_url", "proxy": "proxies", "mail": "mail", "origin": "origins"}
    of_engine |= {"security_contact": "security_contact"}
    found = {"database": next(json.dumps(line.value) for line in lines if line.name == "database")}
    found |= {of_engine[line.name]: json.dumps(line.value) for line in lines if line.name in of_engine}
    in_policy = ("modes", *decided["why"], "require_verified_email")
    policy = [
        f"{line.name}={tuple(line.value) if line.name == 'modes' else line.value!r}".replace("'", '"')
        for line in lines
        if line.name in in_policy and line.name not in {"database", "workers", "lease"}
    ]
    found["policy"] = "Policy(\n" + "".join(f"        {each},\n" for each in policy) + "    )"
    return found


def _of_a_service(answers: Answers, decided: Mapping[str, Any]) -> str:
    if decided["checking"] == "on demand":
        return textwrap.dedent(f"""\
            from dutchdoor import Verifier

            verify = Verifier({json.dumps(answers.url)}, follow="on demand")  # outside of the handler


            def who(token):
                return verify(token).subject  # raises InvalidToken: answer 401; Unavailable: answer 503
            """)
    if decided["checking"] == "ask":
        return textwrap.dedent(f"""\
            # At each request, with the key that `dutchdoor verifier add SERVICE` printed:
            curl {answers.url}/oauth2/introspect -H "Authorization: Bearer $KEY" -d "token=$TOKEN"
            # "active": false means 401. No answer means 503, and never 401.
            """)
    return textwrap.dedent(f"""\
        # Give your JWT library these, and nothing else (docs/guides/other-languages.md):
        #   keys       {answers.url}/.well-known/jwks.json
        #   issuer     {answers.url}
        #   audience   {answers.url}
        #   algorithm  ES256
        #   typ        at+jwt
        """)
