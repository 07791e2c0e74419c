"""The browser client as an npm package: its contents, its version, its types, and what is served of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from tests.nodejs import needed, node_modules

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "src" / "dutchdoor" / "client" / "browser"
MANIFEST = json.loads((CLIENT / "package.json").read_text())


def test_the_package_has_the_version_of_the_python_package() -> None:
    """One number for both, in the spelling of each: 0.1.0.dev0 and 0.1.0-dev.0."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert MANIFEST["version"] == re.sub(r"\.?(dev|a|b|rc)(\d+)$", r"-\1.\2", version)
    assert not {"dependencies", "peerDependencies", "scripts"} & MANIFEST.keys()


@pytest.mark.long
def test_what_is_served_is_made_of_the_source(nodejs: dict[str, str]) -> None:
    """`make client` makes the file that is served, byte by byte, from the one that people read."""
    terser = needed(node_modules) / "terser" / "bin" / "terser"
    (line,) = re.findall(r"^client:.*\n\t.*\\\n\t\t(.*) --output", (ROOT / "Makefile").read_text(), re.MULTILINE)
    options = ["--module", "--ecma", "2022", *line.split()]
    made = subprocess.run(
        ["node", terser, CLIENT / "client.js", *options], env=nodejs, capture_output=True, text=True, check=True
    ).stdout
    assert made.rstrip("\n") == (CLIENT / "client.min.js").read_text().rstrip("\n"), "run `make client`"


def packed(folder: Path, environment: dict[str, str]) -> Path:
    """Pack the client as npm publishes it."""
    command = ["npm", "pack", str(CLIENT), "--pack-destination", str(folder), "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    (said,) = json.loads(done.stdout)
    names = {file["path"] for file in said["files"]}
    assert names == {"README.md", "client.d.ts", "client.js", "package.json"}
    return folder / str(said["filename"])


@pytest.mark.long
def test_the_packed_client_installs_and_its_types_hold(nodejs: dict[str, str], tmp_path: Path) -> None:
    """`npm pack` packs the client, its types and its text, and nothing else. Where it is installed, `tsc --strict`
    takes what its documentation promises and refuses what is wrong, and Node imports it, as a server that renders
    pages does.
    """
    tarball = packed(tmp_path, nodejs)
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"private": true, "type": "module"}')
    subprocess.run(
        ["npm", "install", "--offline", str(tarball)], cwd=project, env=nodejs, check=True, capture_output=True
    )
    shutil.copy(Path(__file__).with_name("typed.ts"), project)
    tsc = needed(node_modules) / ".bin" / "tsc"
    options = [
        "--strict",
        "--noEmit",
        "--module",
        "nodenext",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom",
        "--types",
        "",
    ]
    checked = subprocess.run(
        [tsc, *options, "typed.ts"], cwd=project, env=nodejs, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")
    program = "import { createClient } from 'dutchdoor'; const auth = createClient(); auth.onChange(() => {});"
    program += "console.log(auth.user === undefined, typeof auth.fetch)"
    run = subprocess.run(["node", "-e", program], cwd=project, env=nodejs, capture_output=True, text=True, check=True)
    assert run.stdout == "true function\n"
