"""The guide about webhooks: its receiver takes what we sign, once, and refuses everything else."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.nodejs import needed, node_environment

from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.model.webhooks import Secret, new_secret, payload, signed

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


ASK = """
import { verify } from "./verify.mjs";
for (const [body, headers] of JSON.parse(process.argv[3])) {
  try {
    console.log(verify(Buffer.from(body, "base64"), headers, process.argv[2]).type);
  } catch (error) {
    console.log(error.message);
  }
}
"""


@pytest.mark.long
def test_the_receiver_in_node_verifies(tmp_path: Path) -> None:
    """B20: without a library, too: by the newest secret or the old one. A forged, an altered, an old and an unsigned
    message are refused.
    """
    (block,) = re.findall(r"^```js\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "verify.mjs").write_text(block)
    (tmp_path / "ask.mjs").write_text(ASK)
    now, secret, other = time.time(), new_secret(), Secret(new_secret())
    body = payload(event("account_created", now=now, client=Client(), subject="ann"), with_client=False)
    by = [other, Secret(secret)]
    asked = [
        (body, signed("one", body, by, now)),
        (body, signed("one", body, by[:1], now)),
        (body + b" ", signed("one", body, by, now)),
        (body, {**signed("one", body, by, now), "webhook-id": "two"}),
        (body, signed("one", body, by, now - 600)),
        (body, {}),
        (body, {"webhook-id": "one", "webhook-timestamp": str(int(now))}),
    ]
    lines = json.dumps([(base64.b64encode(sent).decode(), headers) for sent, headers in asked])
    command = ["node", "ask.mjs", secret, lines]
    ran = subprocess.run(
        command, cwd=tmp_path, env=needed(node_environment), check=True, capture_output=True, text=True, timeout=60
    )
    forged, old = "not from our server", "too old, or a clock is wrong"
    assert ran.stdout.splitlines() == ["account_created", forged, forged, forged, old, old, forged]
