"""The alert rules and the dashboard of `deploy/`: what they name exists, and each alert fires when it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from dutchdoor.auth import Auth
from dutchdoor.model.audit_events import EventName
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.server.metrics import Counters

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus-rules.yaml"
DASHBOARD = DEPLOY / "grafana-dashboard.json"

NODE = 'instance="node1:9464"'
LOG_INS = 'route="/auth/login"'


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def events(name: str, values: str, outcome: str = "ok") -> tuple[str, str]:
    return f'dutchdoor_events_total{{{NODE}, name="{name}", outcome="{outcome}"}}', values


def gauge(name: str, values: str, more: str = "") -> tuple[str, str]:
    return f"dutchdoor_{name}{{{', '.join(filter(None, [NODE, more]))}}}", values


def slow(name: str, more: str = "") -> list[tuple[str, str]]:
    """A histogram in which nearly all values are above the bucket 0.1, and below 10."""
    return [
        gauge(f"{name}_bucket", f"0+{step}x60", ", ".join(filter(None, [more, f'le="{le}"'])))
        for le, step in (("0.1", 1), ("10.0", 100), ("+Inf", 100))
    ]


FIRES: dict[str, tuple[list[tuple[str, str]], dict[str, str]]] = {
    "DutchdoorNotScraped": ([], {}),
    "DutchdoorNoNodeReady": ([gauge("ready", "1 0x60")], {}),
    "DutchdoorNodeNotReady": ([gauge("ready", "0x60"), ('dutchdoor_ready{instance="node2:9464"}', "1x60")], {}),
    "DutchdoorErrors": (
        [
            gauge("http_answers_total", "0+100x60", f'{LOG_INS}, status="200"'),
            gauge("http_answers_total", "0+1x60", f'{LOG_INS}, status="500"'),
        ],
        {},
    ),
    "DutchdoorUnavailable": (
        [gauge("unavailable_total", "0+9x60", 'source="sqlite"')],
        {"source": "sqlite"},
    ),
    "DutchdoorRedisDown": ([gauge("dependency_up", "0x60", 'name="redis"')], {}),
    # The series starts at 0, and one event is enough.
    "DutchdoorRefreshImpossible": ([events("refresh_impossible", "0x25 1x60")], {"name": "refresh_impossible"}),
    "DutchdoorRefreshTheft": ([events("refresh_theft", "0x25 1x60", "refused")], {"name": "refresh_theft"}),
    "DutchdoorDeviceKeyConflict": (
        [events("device_key_conflict", "0x25 1x60", "refused")],
        {"name": "device_key_conflict"},
    ),
    "DutchdoorDeviceProofsFail": ([gauge("unproved_total", "0+1x60", 'why="unreachable"')], {"why": "unreachable"}),
    "DutchdoorSessionsRefused": (
        [events("session_suspected", "0x20 0+5x40", "refused")],
        {"name": "session_suspected"},
    ),
    "DutchdoorSensitiveChange": ([events("key_exported", "0x25 1x60")], {"name": "key_exported"}),
    "DutchdoorLogBegun": ([gauge("log_begun_timestamp_seconds", "0x20 1200x40")], {}),
    "DutchdoorGuessing": (
        [events("login", "0+100x60", "refused"), events("session_started", "0+10x60")],
        {"name": "login"},
    ),
    "DutchdoorNoSignIns": ([events("session_started", "0+10x120 1200x1440")], {}),
    "DutchdoorFencesPending": (
        [
            gauge("fence_seconds_count", "0+29x60", 'state="acknowledged"'),
            gauge("fence_seconds_count", "0+31x60", 'state="pending"'),
        ],
        {},
    ),
    "DutchdoorFollowerBehind": ([gauge("followers_behind", "2x60", 'credential="orders"')], {"credential": "orders"}),
    "DutchdoorStale": ([gauge("stale", "1x60")], {}),
    "DutchdoorManyRevocations": ([gauge("revocation_entries", "100001x60")], {}),
    "DutchdoorLogInsSlow": (slow("http_seconds", LOG_INS), {}),
    "DutchdoorCommitsSlow": (slow("commit_seconds"), {}),
    "DutchdoorDatabaseWaiting": ([gauge("database_waiting", "101x60")], {}),
    "DutchdoorCertificateExpires": ([gauge("expiry_timestamp_seconds", "1200000x60", 'of="certificate"')], {}),
    "DutchdoorKeyOverdue": ([gauge("next_key_due_timestamp_seconds", "60x60")], {}),
    "DutchdoorMailFails": ([gauge("mails_total", "0+1x60", 'outcome="failed"')], {}),
    "DutchdoorMailWave": ([gauge("mails_total", "0x20 0+20x40", 'outcome="sent"')], {}),
    "DutchdoorWebhookBehind": (
        [gauge("webhook_behind_seconds", "3600x60", 'webhook="5o0JgG0QmHvYk2C7w1pXzA"')],
        {"webhook": "5o0JgG0QmHvYk2C7w1pXzA"},
    ),
    "DutchdoorWebhookStopped": ([events("webhook_disabled", "0+1x60")], {"name": "webhook_disabled"}),
    "DutchdoorNotPurged": ([gauge("last_purge_timestamp_seconds", "0x1500")], {}),
    "DutchdoorRestarts": ([gauge("process_start_time_seconds", "0+60x60")], {}),
}
"""For each alert: what the metrics say when it has to fire, and the labels that it has then."""
ALSO: list[tuple[str, list[tuple[str, str]], dict[str, str], str]] = [
    # Where clients have the mode jwt, a sign-in starts no session.
    ("DutchdoorNoSignIns", [events("token_issued", "0+10x120 1200x1440"), events("session_started", "0x1560")],
     {}, "25h30m"),
    ("DutchdoorGuessing", [events("login", "0+100x60", "refused"), events("token_issued", "0+10x60")],
     {"name": "login"}, "30m"),
    # Many more than are usual.
    ("DutchdoorMailWave", [gauge("mails_total", "0+1x1500 1500+20x60", 'outcome="sent"')], {}, "25h30m"),
    ("DutchdoorSessionsRefused", [events("session_suspected", "0+1x1500 1500+20x60", "refused")],
     {"name": "session_suspected"}, "25h30m"),
]  # fmt: skip
"""More that has to fire, with its labels, and when it is looked at."""
STAYS_QUIET: list[tuple[str, list[tuple[str, str]], str]] = [
    ("DutchdoorNoSignIns", [events("session_started", "0+10x120 1200x1440"), events("token_issued", "0+10x1560")],
     "25h30m"),
    ("DutchdoorGuessing", [
        events("login", "0+100x60", "refused"), events("session_started", "0+30x60"), events("token_issued", "0+30x60"),
    ], "30m"),
    ("DutchdoorLogBegun", [gauge("log_begun_timestamp_seconds", "60x500")], "7h"),
    # What is recorded or mailed refuses no one; and a large deployment refuses as many each hour of the day.
    ("DutchdoorSessionsRefused", [events("session_suspected", "0+20x60", "ok")], "30m"),
    ("DutchdoorSessionsRefused", [events("session_suspected", "0+20x1560", "refused")], "25h30m"),
    ("DutchdoorMailWave", [gauge("mails_total", "0+100x1560", 'outcome="sent"')], "25h30m"),
]  # fmt: skip
"""What looks like a trouble and is none, and when it is looked at."""
AT = {"DutchdoorNoSignIns": "25h30m", "DutchdoorNotPurged": "7h"}
"""When it is looked at, if not after half an hour."""

QUIET: list[tuple[str, str]] = [
    gauge("ready", "1x60"), gauge("stale", "0x60"), gauge("log_begun_timestamp_seconds", "-86400x60"),
    gauge("dependency_up", "1x60", 'name="redis"'),
    gauge("http_answers_total", "0+1000x60", f'{LOG_INS}, status="200"'),
    gauge("http_answers_total", "0x60", f'{LOG_INS}, status="500"'),
    gauge("http_answers_total", "0+60x60", 'route="/readyz", status="503"'),
    gauge("unavailable_total", "0x60", 'source="sqlite"'),
    *(events(name, "0x60", outcome) for name in get_args(EventName) for outcome in ("ok", "refused")
      if name not in {"session_started", "login"}),
    events("session_started", "0+50x60"), events("login", "0+20x60", "refused"),
    gauge("unproved_total", "0+5x60", 'why="none"'), gauge("unproved_total", "0x60", 'why="unreachable"'),
    gauge("fence_seconds_count", "0+30x60", 'state="acknowledged"'),
    gauge("fence_seconds_count", "0x60", 'state="pending"'),
    gauge("followers_behind", "0x60", 'credential="orders"'), gauge("revocation_entries", "5000x60"),
    *(gauge("commit_seconds_bucket", "0+100x60", f'le="{le}"') for le in ("0.01", "+Inf")),
    *(gauge("http_seconds_bucket", "0+100x60", f'{LOG_INS}, le="{le}"') for le in ("0.1", "+Inf")),
    gauge("database_waiting", "3x60"), gauge("expiry_timestamp_seconds", "5000000x60", 'of="certificate"'),
    gauge("next_key_due_timestamp_seconds", "90000x60"), gauge("mails_total", "0x60", 'outcome="failed"'),
    gauge("last_purge_timestamp_seconds", "0x60"), gauge("process_start_time_seconds", "0x60"),
]  # fmt: skip
"""A node at work with which nothing is wrong, and which a probe finds not ready while it starts."""


def one_test(name: str, series: list[tuple[str, str]], alerts: list[dict[str, Any]], at: str = "30m") -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series],
        "alert_rule_test": [{"eval_time": at, **alert} for alert in alerts],
    }


@pytest.mark.long
def test_p54_each_alert_fires_and_none_fires_without_a_reason(tmp_path: Path) -> None:
    """Prometheus itself says so: each alert fires on the metrics of its trouble, and on a node at work none does."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, which Debian's package prometheus has")
    known = {rule["alert"]: rule for rule in rules()}
    tests = [one_test("quiet", QUIET, [{"alertname": name, "exp_alerts": []} for name in known])]
    tests += [
        one_test(f"{name} stays quiet", series, [{"alertname": name, "exp_alerts": []}], at)
        for name, series, at in STAYS_QUIET
    ]
    first = [(name, *case, AT.get(name, "30m")) for name, case in FIRES.items()]
    for name, series, labels, at in [*first, *ALSO]:
        shown = {**labels, **known[name]["labels"]}
        if "by (" not in known[name]["expr"] and not re.search(r"\b(max|min|sum|absent)\b", known[name]["expr"]):
            shown["instance"] = "node1:9464"
        alert = {"exp_labels": shown, "exp_annotations": known[name]["annotations"]}
        tests.append(one_test(name, series, [{"alertname": name, "exp_alerts": [alert]}], at))
    file = tmp_path / "alerts.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "10m", "tests": tests}))
    ran = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_p54_every_alert_has_a_case() -> None:
    """Each alert that is shipped has a case that fires it. Each says in a sentence what is wrong and how urgent it is,
    and the page says what to do about those that wake a person.
    """
    found = rules()
    assert [rule["alert"] for rule in found] == list(FIRES)
    assert {rule["labels"]["severity"] for rule in found} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"].endswith(".") for rule in found)
    page = (DEPLOY.parent / "docs" / "operating" / "watching.md").read_text()
    explained = set(re.findall(r"`(Dutchdoor\w+)`", page))
    assert explained == {rule["alert"] for rule in found if rule["labels"]["severity"] == "page"}


def expressions() -> list[str]:
    """Every expression of the rules and of the dashboard."""
    board = json.loads(DASHBOARD.read_text())
    targets = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [rule["expr"] for rule in rules()] + targets


async def test_p54_what_alerts_and_dashboard_name_exists() -> None:
    """Each metric, event and route in the rules and the dashboard is one that this program has: a renamed one would
    never fire.
    """
    auth = Auth("memory:", master_key=MasterKeys(MasterKey.generate()))
    there = {metric.name for metric in Counters(auth.api.routes).registry.collect()}
    for expression in expressions():
        named = re.findall(r"\bdutchdoor_[a-z_]+", expression)
        assert named, expression
        assert {re.sub("_(total|bucket|count|sum)$", "", name) for name in named} <= there, expression
        for metric, label, matched in re.findall(r'(\w+)\{[^}]*?\b(name|route)!?=~?"([^"]*)"', expression):
            values = {route.path for route in auth.api.routes} if label == "route" else set(get_args(EventName))
            if not metric.startswith("dutchdoor_dependency"):
                assert set(matched.split("|")) <= values, expression


def test_p54_the_dashboard_is_one_that_grafana_reads() -> None:
    """Each panel has an id of its own, a title, a place that no other panel covers, and the chosen data source."""
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = set()
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in covered) < 24
        assert not covered & places, panel["title"]
        places |= covered
    assert board["templating"]["list"][0]["name"] == "datasource"
