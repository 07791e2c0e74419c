"""Every link between the pages of this repository leads somewhere, and so does every page that the code names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
NAMED = re.compile(r"(?<![\w./-])docs/[\w./-]*\w")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_leads_somewhere() -> None:
    """Each relative link of each page names a file that is there, and a heading that is in it."""
    wrong = []
    for page in tracked():
        if page.suffix != ".md" and page.name != "llms.txt":
            continue
        for target, anchor in LINK.findall(page.read_text()):
            if ":" in target:
                continue
            there = (page.parent / target).resolve() if target else page
            if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
                wrong.append(f"{page.relative_to(ROOT)}: {target}{'#' * bool(anchor)}{anchor}")
    assert wrong == []


def test_every_page_that_is_named_is_there() -> None:
    """A comment, a message or an example names no page of docs/ that is not there."""
    wrong = []
    for file in tracked():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        wrong += [
            f"{file.relative_to(ROOT)}: {name}" for name in NAMED.findall(text) if not list(ROOT.glob(f"{name}*"))
        ]
    assert wrong == []


HOUSE_WORDS = re.compile(
    r"(?<![\w-])(whoever|nobody|somebody|anybody|everybody|mend|mended|told|hears|heard|asker)(?![\w-])", re.IGNORECASE
)


def test_pages_are_in_plain_words() -> None:
    """Pages name who acts: no page says `nobody` or `whoever` where it can name the client or the verifier."""
    pages = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "llms.txt")]
    wrong = [
        f"{page.relative_to(ROOT)}: {found}"
        for page in (*pages, *(ROOT / "docs").rglob("*.md"))
        for found in HOUSE_WORDS.findall(re.sub(r"\]\([^)]*\)|`[^`]*`", "", page.read_text()))
    ]
    assert wrong == []


def test_the_package_is_in_plain_words() -> None:
    """No comment, message, name or statement of the package, and of the examples to deploy it and to start from, has a
    house word, as a word or as a part of a name.
    """
    part = (
        r"(?<![^\W_])(whoever|nobody|nobodys|somebody|anybody|everybody|mend|mended|told|hears|heard|asker)(?![^\W_])"
    )
    wrong = [
        f"{file.relative_to(ROOT)}: {found}"
        for room in ("src", "deploy", "examples")
        for file in sorted((ROOT / room).rglob("*"))
        if file.is_file() and file.suffix not in {".gz", ".pyc"}
        for found in re.findall(part, file.read_text(), re.IGNORECASE)
    ]
    assert wrong == []
