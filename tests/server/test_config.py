"""Reading the configuration: order, spellings, refusals, and nothing secret in what is printed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from msgspec.structs import replace

from dutchdoor.auth import Auth
from dutchdoor.errors import Misconfigured
from dutchdoor.model.durations import read_duration
from dutchdoor.model.policy import HIGH, PRESETS, STANDARD
from dutchdoor.server.check import findings
from dutchdoor.server.commands.serve import serve
from dutchdoor.server.config import Secret, Settings, read_settings
from dutchdoor.server.config_docs import reference
from dutchdoor.server.factory import make_auth
from dutchdoor.server.settings import SETTINGS, SHORTEST_LIKELY, Setting

CANARY = "canary-9f2b7c51-e0d4"
MASTER = "q7Zt0x2m4kP9vB1cY8nR5sL3wJ6hD0fGaQeUiOyTxKM"


def refused(arguments: dict[str, object] | None = None, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(Misconfigured) as caught:
        read_settings(arguments or {}, environment or {})
    return str(caught.value)


def test_arguments_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    """The nearest to the command counts, and each setting remembers where it came from."""
    file = tmp_path / "door.toml"
    file.write_text('port = 1001\nworkers = 3\nhost = "::1"\nproduct = "Door"\n')
    environment = {"DUTCHDOOR_PORT": "1002", "DUTCHDOOR_WORKERS": "4", "DUTCHDOOR_CONFIG": str(file)}
    settings = read_settings({"port": "1003"}, environment)
    assert (settings.port, settings.workers, settings.host, settings.product) == (1003, 4, "::1", "Door")
    assert settings.alg == "ES256"
    assert [settings.source(name) for name in ("port", "workers", "host", "alg")] == [
        "--port", "DUTCHDOOR_WORKERS", "host in door.toml", "the default",
    ]  # fmt: skip


def test_platforms_variables_are_fall_backs() -> None:
    """DATABASE_URL, PORT and WEB_CONCURRENCY count where ours are not set; REDIS_URL belongs to another program."""
    theirs = {"DATABASE_URL": "sqlite:///theirs.db", "PORT": "5000", "WEB_CONCURRENCY": "2", "REDIS_URL": "redis://x"}
    settings = read_settings({}, theirs)
    assert (settings.database.reveal(), settings.port, settings.workers) == ("sqlite:///theirs.db", 5000, 2)
    settings = read_settings({}, {**theirs, "DUTCHDOOR_DATABASE": "sqlite:///ours.db", "DUTCHDOOR_PORT": "5001"})
    assert (settings.database.reveal(), settings.port) == ("sqlite:///ours.db", 5001)
    assert settings.redis is None


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("DUTCHDOOR_PROT", "DUTCHDOOR_PORT"),
        ("DUTCHDOOR_ACCESS_FRO", "DUTCHDOOR_ACCESS_FOR"),
        ("DUTCHDOOR_port", "DUTCHDOOR_PORT"),
    ],
)
def test_an_unknown_variable_is_an_error_that_names_the_nearest(variable: str, nearest: str) -> None:
    """A misspelt variable stops the start: a protection that is silently skipped is none."""
    message = refused(environment={variable: "1"})
    assert variable in message
    assert nearest in message


def test_an_unknown_key_in_the_file_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    """The same in the file, also for a table that would be skipped whole."""
    file = tmp_path / "door.toml"
    for text, nearest in (
        ("idle_fro = 1", "Did you mean idle_for?"),
        ("[server]\nport = 1", "not in a table"),
        ("xyzzy = 1", "--help"),
    ):
        file.write_text(text)
        message = refused({"config": str(file)})
        assert "door.toml" in message
        assert nearest in message


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("access_for", "5", "--access-for has no unit, so it counts 5 seconds"),
        ("idle_for", "3600", "--idle-for has no unit, so it counts 3600 seconds"),
        ("access_for", 300, "--access-for has no unit, so it counts 300 seconds"),
        ("lease", " 20 ", "--lease has no unit, so it counts 20 seconds"),
        ("access_for", "5s", "--access-for is 5 seconds; a value below 60 is probably a mistake"),
        ("reset_for", "30s", "--reset-for is 30 seconds; a value below 300 is probably a mistake"),
        ("access_for", "5m", ""),
        ("stop_for", "0", ""),
        ("refresh_window", "10s", ""),
        ("workers", "2", ""),
    ],
)
def test_p17_a_length_that_is_most_likely_a_slip_is_doubted(name: str, value: object, says: str) -> None:
    """`--access-for 5` is five seconds and no minutes: a duration without a unit, or one that is shorter than anyone
    wants, is used as it is, and `serve` and `check` say what it is.
    """
    settings = read_settings({name: value}, {})
    assert list(settings.doubts) == [name] * bool(says)
    assert settings.doubts.get(name, "").startswith(says)
    assert {*settings.doubts.values()} <= {each.what for each in findings(settings)}


def test_p17_every_duration_that_is_likely_has_a_default_that_is() -> None:
    """No default and no preset is doubted."""
    for setting in SETTINGS:
        if setting.kind == "duration" and isinstance(setting.default, float):
            assert setting.default >= SHORTEST_LIKELY.get(setting.name, 0.0)
    for preset in PRESETS.values():
        assert all(getattr(preset, name) >= least for name, least in SHORTEST_LIKELY.items())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("access_for = 5m", 'Write texts and durations in quotes: access_for = "10m".'),
        ("idle_for=14d", 'Write texts and durations in quotes: idle_for = "10m".'),
        ("host = localhost", 'Write texts and durations in quotes: host = "...".'),
        ("pepper = canary-secret", 'Write texts and durations in quotes: pepper = "...".'),
        ('host = "localhost', ""),
        ("nonsense = 5m", ""),
        ("access_for", ""),
    ],
)
def test_p17_what_toml_wants_in_quotes_is_said(tmp_path: Path, line: str, says: str) -> None:
    """Where the configuration file fails at a value without quotes, the message shows how it is written, and does not
    repeat the value.
    """
    file = tmp_path / "door.toml"
    file.write_text(f'product = "Door"\n{line}\nport = 1\n')
    message = refused({"config": str(file)})
    assert "is not valid TOML" in message
    assert ("quotes" in message) is bool(says)
    assert says in message
    assert "canary" not in message


def test_kubernetes_variables_are_not_misspelt_settings() -> None:
    """A Service called dutchdoor puts these into every container beside it."""
    environment = {
        "DUTCHDOOR_SERVICE_HOST": "10.0.0.1",
        "DUTCHDOOR_SERVICE_PORT": "80",
        "DUTCHDOOR_SERVICE_PORT_HTTP": "80",
        "DUTCHDOOR_PORT": "tcp://10.0.0.1:80",
        "DUTCHDOOR_PORT_80_TCP": "tcp://10.0.0.1:80",
        "DUTCHDOOR_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert read_settings({}, environment).port == 8000


def test_empty_variables_are_unset() -> None:
    """A compose file passes on what it does not have as an empty text."""
    assert read_settings({}, {"DUTCHDOOR_PORT": "", "DUTCHDOOR_PUBLIC_URL": ""}).public_url is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("12h", 43_200), ("30d", 2_592_000), ("1h30m", 5400), ("2w", 1_209_600), ("45", 45)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are written with a unit, or as seconds."""
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "10 minutes", "-5m", "m", "1e9d", "nan", "inf", "9" * 40, "10m;", True, None, [1]]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """A duration that was not understood is not guessed at."""
    if text == "10":
        assert read_duration(text) == 10
    else:
        with pytest.raises(Misconfigured, match="duration"):
            read_duration(text)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "70000", "at most 65535"),
        ("port", "http", "whole number"),
        ("workers", "0", "at least 1."),
        ("lease", "0", "at least 1 seconds"),
        ("lease", "6m", "at most 300 seconds"),
        ("alg", "none", "ES256"),
        ("access_for", "2h", "at most an hour"),
        ("idle_for", "90d", "longer than absolute_for"),
        ("modes", "session,cookie", "session, hybrid, jwt"),
        ("rotation", "loose", "convergent"),
        ("theft_ends_all", "maybe", "true or false"),
        ("password_minimum", "4", "between 8 and 64"),
        ("password_hash", "cheapest", "owasp"),
        ("product", "two\nlines", "one line"),
        ("tls_cert", "cert.pem", "--tls-key"),
    ],
)
def test_wrong_values_name_their_setting(name: str, value: str, says: str) -> None:
    """Whatever is wrong is said in words that lead to the setting."""
    message = refused(environment={f"DUTCHDOOR_{name.upper()}": value})
    assert says in message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            'other_host = ["a.example", 7]',
            "other_host in door.toml: element 2 of the list is 7. Each is a text in quotes.",
        ),
        ('origin = [["https://a.example"]]', "origin in door.toml: element 1 of the list is ['https://a.example']."),
        (
            "modes = ['jwt', true]",
            "element 2 of the list is True. Each is a text in quotes, one of session, hybrid, jwt.",
        ),
        ('proxy = ["10.0.0.7", "a\\u0007b"]', "'a\\x07b' in proxy in door.toml must be one line of text."),
        ("proxy = 7", "proxy in door.toml must be a list of strings."),
        ("product = 7", "product in door.toml must be a text in quotes."),
    ],
)
def test_p17_a_wrong_element_of_a_list_is_named(tmp_path: Path, line: str, says: str) -> None:
    """Of a list in the file, the message has the wrong element, its place and what is allowed."""
    file = tmp_path / "door.toml"
    file.write_text(line)
    assert says in refused({"config": str(file)})


def test_policy_is_the_one_an_application_would_have_built() -> None:
    """A preset, and single settings over it."""
    assert read_settings({}, {}).policy == STANDARD
    settings = read_settings({"preset": "high"}, {"DUTCHDOOR_MAX_SESSIONS": "1", "DUTCHDOOR_MODES": "hybrid, jwt"})
    assert settings.policy.access_for == HIGH.access_for
    assert settings.policy.password_minimum == 15
    assert (settings.policy.max_sessions, settings.policy.modes) == (1, ("hybrid", "jwt"))


def test_every_secret_also_from_a_file(tmp_path: Path) -> None:
    """`..._FILE` holds the secret itself; the nearer layer wins whichever of the two spellings it uses."""
    held = tmp_path / "held"
    held.write_text(f"{CANARY}\n")
    settings = read_settings({}, {"DUTCHDOOR_PEPPER_FILE": str(held), "DUTCHDOOR_METRICS_TOKEN_FILE": str(held)})
    assert settings.pepper == Secret(CANARY)
    assert settings.metrics_token == Secret(CANARY)
    held.write_text("sqlite:///held.db")
    assert read_settings({}, {"DUTCHDOOR_DATABASE_FILE": str(held)}).database.reveal() == "sqlite:///held.db"
    file = tmp_path / "door.toml"
    file.write_text(f'database_file = "{held}"')
    settings = read_settings({"config": str(file)}, {"DUTCHDOOR_DATABASE": "sqlite:///nearer.db"})
    assert settings.database.reveal() == "sqlite:///nearer.db"


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.hidden], ids=lambda each: each.name)
def test_p11_every_secret_is_read_from_a_file_in_each_of_three_ways(setting: Setting, tmp_path: Path) -> None:
    """The file of a secret, or of a URL that may hold one, is named by an argument, a variable or the TOML file."""
    value = {"master_key": f"{'ab' * 31}cd", "database": "sqlite:///x.db", "mail": "console:", "redis": "redis://cache"}
    secret, toml = tmp_path / "secret", tmp_path / "door.toml"
    secret.write_text(value.get(setting.name, CANARY) + "\n")
    toml.write_text(f'{setting.name}_file = "{secret}"\n')
    options = {option.name: option.opts for option in serve.params}
    assert options[f"{setting.name}_file"] == [f"{setting.option}-file"]
    for arguments, environment in (
        ({f"{setting.name}_file": str(secret)}, {}),
        ({}, {f"{setting.variable}_FILE": str(secret)}),
        ({"config": str(toml)}, {}),
    ):
        settings = read_settings(arguments, environment)
        if setting.name == "master_key":
            assert settings.master_key_file == str(secret)
        else:
            assert getattr(settings, setting.name) == Secret(secret.read_text().strip())


def test_two_spellings_among_the_arguments_are_refused() -> None:
    """A URL and the file of another one cannot both be meant."""
    assert "Keep one" in refused({"database": "sqlite:///a.db", "database_file": "b"})


def test_secrets_files_are_bounded_and_there(tmp_path: Path) -> None:
    """A wrong path is named; a file without end does not fill the memory; two spellings at once are refused."""
    assert "cannot be read" in refused(environment={"DUTCHDOOR_PEPPER_FILE": str(tmp_path / "none")})
    assert "too large" in refused(environment={"DUTCHDOOR_PEPPER_FILE": "/dev/zero"})
    (tmp_path / "empty").write_text("\n")
    assert "no text" in refused(environment={"DUTCHDOOR_PEPPER_FILE": str(tmp_path / "empty")})
    both = {"DUTCHDOOR_PEPPER": CANARY, "DUTCHDOOR_PEPPER_FILE": str(tmp_path / "empty")}
    assert "Keep one" in refused(environment=both)


def test_p18_what_is_kept_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `memory:` neither an application nor the server writes a file, unless a file for the master key is named."""
    monkeypatch.chdir(tmp_path)
    Auth("memory:")
    make_auth(read_settings({"database": "memory:"}, {}))
    assert list(tmp_path.iterdir()) == []
    make_auth(read_settings({"database": "memory:", "master_key_file": "named.keys"}, {}))
    assert [file.name for file in tmp_path.iterdir()] == ["named.keys"]


@pytest.mark.parametrize(
    "text", ["s3cr3t", "changeme-changeme-changeme", "your-secret-goes-here-please", "aaaaaaaaaaaaaaaaaaaaaaaa"]
)
def test_p09_placeholders_and_short_secrets_are_refused(text: str) -> None:
    """P09, J14: a secret that is not random stops the start, and is not repeated in the message."""
    for name in ("PEPPER", "METRICS_TOKEN"):
        message = refused(environment={f"DUTCHDOOR_{name}": text})
        assert "dutchdoor key master" in message
        assert text not in message
    with pytest.raises(Misconfigured) as caught:
        make_auth(read_settings({}, {"DUTCHDOOR_MASTER_KEY": text, "DUTCHDOOR_DATABASE": "memory:"}))
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "url", "without"),
    [
        ("mail", "smtps://user:canary@mail.example.com", "smtps://mail.example.com"),
        ("database", "postgresql://door:canary@db/door", "postgresql://door@db/door"),
        ("database", "postgresql://door@db/door?password=canary", "postgresql://door@db/door?sslmode=require"),
        ("redis", "redis://:canary@cache", "redis://cache"),
        (
            "redis",
            "redis+sentinel://one,two/service?sentinel_password=canary",
            "redis+sentinel://one,two/service",
        ),
    ],
)
def test_p11_a_password_is_no_argument(name: str, url: str, without: str) -> None:
    """A URL with a password is refused as an argument, which every user of the machine sees in the list of processes;
    the message names the variable. The environment may hold it, and a URL without a password may be an argument.
    """
    assert {setting.name for setting in SETTINGS if setting.kind == "url"} == {"mail", "database", "redis"}
    with pytest.raises(Misconfigured, match=f"--{name} .* DUTCHDOOR_{name.upper()}") as refused:
        read_settings({name: url}, {})
    assert "canary" not in str(refused.value)
    assert getattr(read_settings({}, {f"DUTCHDOOR_{name.upper()}": url}), name).reveal() == url
    assert read_settings({name: without}, {})


def test_nothing_secret_in_repr_or_messages(tmp_path: Path) -> None:
    """The struct, a copy of it and every refusal keep addresses with passwords and keys to themselves."""
    environment = {
        "DUTCHDOOR_DATABASE": f"sqlite:///{CANARY}.db",
        "DUTCHDOOR_MASTER_KEY": MASTER,
        "DUTCHDOOR_PEPPER": CANARY,
        "DUTCHDOOR_METRICS_TOKEN": CANARY,
        "DUTCHDOOR_MAIL": f"smtps://user:{CANARY}@mail.example.com",
    }
    settings = read_settings({}, environment)
    assert CANARY not in repr(settings)
    assert MASTER not in repr(settings)
    assert CANARY not in refused(environment={**environment, "DUTCHDOOR_MASTER_KEY": CANARY})
    assert pickle.loads(pickle.dumps(settings)) == settings
    file = tmp_path / "door.toml"
    for text in (f'pepper = "{CANARY}', f"pepper = {CANARY}", f'pepper = ["{CANARY}"]', f'mail = "x:{CANARY}\\n"'):
        file.write_text(text)
        assert CANARY not in refused({"config": str(file)})
    wrong_mail = read_settings(
        {}, {**environment, "DUTCHDOOR_MAIL": f"pigeon:{CANARY}", "DUTCHDOOR_DATABASE": "memory:"}
    )
    with pytest.raises(Misconfigured) as caught:
        make_auth(wrong_mail)
    assert CANARY not in str(caught.value)


def test_the_reference_is_what_the_code_says() -> None:
    """docs/reference/configuration.md names every setting as it is."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
    assert page.read_text() == reference(), (
        "write it anew: python -m dutchdoor.server.config_docs > docs/reference/configuration.md"
    )


def test_every_policy_field_is_a_setting() -> None:
    """Nothing the policy knows is out of an operator's reach, and every setting has its reason. Session data is kept
    for the application that a server does not have.
    """
    names = {setting.name for setting in SETTINGS}
    assert set(STANDARD.__struct_fields__) - {"session_data_at_most", "visitor_data_for"} <= names
    assert (
        set(Settings.__struct_fields__)
        - {
            "doubts",
            "policy",
            "issuers",
            "sources",
            "config_file",
            "master_key_file",
        }
        <= names
    )
    assert all(setting.does and setting.why for setting in SETTINGS)


ISSUERS = """
[issuers.google]
client_id = "g"
client_secret_file = "{folder}/google"

[issuers.staff]
preset = "keycloak"
url = "https://sso.example.com/realms/staff"
client_id = "k"
domains = ["example.com"]
roles_claim = "groups"
roles = {{"admins" = "admin"}}
"""


def test_other_logins_are_tables_of_the_file(tmp_path: Path) -> None:
    """Each table is an issuer, by the preset of its name or the one it names. The environment sets id and secret in
    place of it, and no secret is shown.
    """
    (tmp_path / "google").write_text(f"{CANARY}\n")
    file = tmp_path / "door.toml"
    file.write_text(ISSUERS.format(folder=tmp_path))
    environment = {
        "DUTCHDOOR_CONFIG": str(file),
        "DUTCHDOOR_ISSUERS_STAFF_CLIENT_SECRET": "by-the-environment",
        "DUTCHDOOR_ISSUERS_GITHUB_CLIENT_ID": "h",
        "DUTCHDOOR_ISSUERS_GITHUB_CLIENT_SECRET": "s",
    }
    settings = read_settings({}, environment)
    google, staff, github = settings.issuers
    assert (google.name, google.url, google.client_secret) == ("google", "https://accounts.google.com", CANARY)
    assert (staff.title, staff.client_secret, staff.roles) == ("Staff", "by-the-environment", {"admins": "admin"})
    assert (github.kind, github.client_id) == ("github", "h")
    assert CANARY not in repr(settings) and "by-the-environment" not in repr(settings)
    assert pickle.loads(pickle.dumps(settings)) == settings
    auth = make_auth(replace(settings, database=Secret("memory:")))
    assert list(auth.directory.issuers.issuers) == ["google", "staff", "github"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('issuers = "google"', "[issuers.google]"),
        ("[issuers]\ngoogle = 1", "[issuers.google]"),
        ("[issuer.google]\nclient_id = 'c'", "[issuer] in door.toml: settings stand at the top of the file"),
        ("[issuers.gogle]\nclient_id = 'c'", "Did you mean google?"),
        ("[issuers.corp]\nclient_id = 'c'", 'preset = "openid"'),
        ("[issuers.google]", "client_id is missing"),
        ("[issuers.google]\nclient_id = ''", "client_id is empty. The issuer shows it"),
        ("[issuers.google]\nclient_id = 7", "The issuer google: client_id must be a text"),
        ("[issuers.google]\nclient_id = 'c'\ndomains = ['a.example', 7]", "domains: 7 is not a domain"),
        ("[issuers.google]\nclient_id = 'c'\nroles_claim = 'g'\nroles = {staff = ['editor']}", "roles: 'staff' gives"),
        ("[issuers.google]\nclient_id = 'c'\nkind = 'saml'", "kind of the issuer google"),
        ("[issuers.google]\nclient_id = 'c'\ntenant = 'contoso'", "tenant has no place in its URL"),
        ("[issuers.microsoft]\nclient_id = 'c'\ntenant = ['contoso']", "The issuer microsoft: tenant must be a text"),
        (
            "[issuers.microsoft]\nclient_id = 'c'\ntenant = 'contoso'\nurl = 7",
            "The issuer microsoft: url must be a text",
        ),
        ("[issuers.google]\nclient_id = 'c'\ncolour = 'red'", "colour is not known"),
        ("[issuers.google]\nclient_id = 'c'\nclient_secret = 7", "client_secret must be a text"),
        ("[issuers.google]\nclient_id = 'c'\ntrusts_second_factor = 'no'", "true or false"),
        ("[issuers.google]\nclient_id = 'c'\nclient_secret_file = '/none'", "cannot be read"),
        (f"[issuers.google]\nclient_id='c'\nclient_secret='{CANARY}'\nclient_secret_file='x'", "Keep one of them"),
        ("[issuers.keycloak]\nclient_id = 'c'", "needs url"),
    ],
)
def test_a_wrong_table_of_an_issuer_says_the_fix(tmp_path: Path, table: str, says: str) -> None:
    """Each mistake stops the start with what to write, and without the secret."""
    file = tmp_path / "door.toml"
    file.write_text(table)
    message = refused(environment={"DUTCHDOOR_CONFIG": str(file)})
    assert says in message and CANARY not in message


def test_a_misspelt_variable_of_an_issuer_stops_the_start() -> None:
    """Of an issuer, the environment has three values."""
    for variable in (
        "DUTCHDOOR_ISSUERS_GOOGLE_SECRET",
        "DUTCHDOOR_ISSUERS_GOOGLE",
        "DUTCHDOOR_ISSUERS_google_CLIENT_ID",
    ):
        assert "_CLIENT_SECRET_FILE" in refused(environment={variable: CANARY})
