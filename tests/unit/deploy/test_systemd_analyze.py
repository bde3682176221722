"""Checks of the units by systemd's own tools: it knows every line, and rates their exposure as low."""

import re
import shutil
import subprocess

import pytest

from tests.support.required import program
from tests.unit.deploy.unit_files import NEWER, SERVICES, UNITS, drop_ins_of_the_guide

TIMEOUT_S = 60
MOST_EXPOSED = 2.0
STANDARD = ("sysinit", "basic", "shutdown", "network-online", "multi-user")
"""Targets of every host that the units refer to."""
PROGRAMS = ("python", "citadel-worker")


@pytest.fixture(scope="module")
def analyze(tmp_path_factory):
    """Return a function that runs the tool on a root with units and drop-ins, and returns all its output."""
    command = program("systemd-analyze")
    root = tmp_path_factory.mktemp("root")

    def run(*arguments):
        done = subprocess.run(
            [command, f"--root={root}", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        return done.stdout + done.stderr

    version = int(re.search(r"^systemd (\d+)", run("--version")).group(1))
    for tree in [UNITS, *([NEWER] if version >= 254 else [])]:
        shutil.copytree(tree, root / "usr/local/lib/systemd/system", dirs_exist_ok=True)
    for name in STANDARD:
        write(root / f"usr/lib/systemd/system/{name}.target", "[Unit]\nDescription=of the host\n")
    for path, text in drop_ins_of_the_guide().items():
        write(root / path.lstrip("/"), text)
    for name in PROGRAMS:
        write(root / "opt/citadel/current/bin" / name, "#!/bin/sh\n", mode=0o755)
    return run


def write(path, text, *, mode=0o644):
    """Make a file and its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize("unit", [*SERVICES, "citadel.slice", "citadel.target"])
def test_systemd_knows_every_line_of_the_units_and_of_the_guides_drop_ins(analyze, unit):
    assert analyze("verify", "--man=no", unit) == ""


@pytest.mark.parametrize("unit", SERVICES)
def test_every_unit_passes_the_security_analysis(analyze, unit):
    output = analyze("security", "--offline=true", "--no-pager", unit)
    assert float(re.search(r"level for .*: ([0-9.]+)", output).group(1)) <= MOST_EXPOSED
