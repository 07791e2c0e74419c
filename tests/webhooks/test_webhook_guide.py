"""The guide about webhooks: its receiver takes what we sign, once, and refuses everything else."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.model.webhooks import Secret, payload, signed

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "webhooks.md"


def test_the_receiver_of_the_guide_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    """B20: a message that comes twice is acted on once; a forged, an altered and an old one are refused."""
    (block,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 16
    page: dict[str, Any] = {}
    exec(compile(block.replace("from __future__", "#"), "guide", "exec"), page)
    client, now = TestClient(page["app"]), time.time()
    happened = event("account_created", now=now, client=Client(), subject="ann")
    body, secret = payload(happened, with_client=False), Secret(page["SECRET"])

    def status(sent: bytes, by: Secret, at: float) -> int:
        return client.post("/hooks", content=sent, headers=signed(happened.id, body, [by], at)).status_code

    other = Secret("whsec_" + "A" * 44)
    assert [status(body, secret, now), status(body, secret, now)] == [204, 204]
    assert [status(body, other, now), status(body + b" ", secret, now), status(body, secret, now - 600)] == [400] * 3
    assert capsys.readouterr().out == "account_created ann\n"
