"""What the pages on proxies show is what `deploy/` has, which tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "language", "file"), [("nginx", "nginx", "nginx.conf"), ("caddy", "caddyfile", "Caddyfile")]
)
def test_f23_each_line_of_a_page_is_in_the_file_that_is_tested(page: str, language: str, file: str) -> None:
    """Each line of configuration in a page is in the shipped file, but for addresses and what is there by a name."""
    text = (ROOT / "docs" / "guides" / f"{page}.md").read_text()
    shipped = {line.strip() for line in (ROOT / "deploy" / file).read_text().splitlines()}
    shipped |= {"location / {", "proxy_pass http://127.0.0.1:8000/auth/check;", "to node1:8000"}
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    assert [line for block in blocks for line in block.splitlines() if line.strip() not in shipped] == []
