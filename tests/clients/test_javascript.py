"""Clients for JavaScript, tested by Node's own test runner."""

import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.clients.support import Citadel, lacking

FOLDER = Path(__file__).parent / "js"
OLDEST_NODE = 20


def node() -> str:
    """Return the path of Node; skip where it or the packages are missing, which in CI is a failure."""
    found = shutil.which("node")
    if found is None:
        lacking(f"node is not installed: Node {OLDEST_NODE} or newer is needed, with npm")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v").partition(".")[0]) < OLDEST_NODE:
        lacking(f"node is {version.strip()}: {OLDEST_NODE} or newer is needed")
    if not (FOLDER / "node_modules/.stamp").exists():
        lacking("the packages of tests/clients/js are not installed: `make test-clients` does that, with npm")
    return found


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.test.mjs")))
def test_a_client_for_javascript(citadel: Citadel, name: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("npm_")}
    done = subprocess.run(
        [node(), "--test", "--test-timeout=30000", "--test-reporter=spec", name],
        cwd=FOLDER,
        env=environment | {"CITADEL_SERVER": json.dumps(asdict(citadel))},
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"see the output of {name} below"
