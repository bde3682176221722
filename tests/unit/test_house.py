"""The rules of the house: planted offences against words and sizes are found, and named with what to do instead."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path("scripts/check-house").resolve()
MODULE = Path("libs/common/src/citadel_common/planted.py")


def check(root, content, place=MODULE):
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return subprocess.run([sys.executable, CHECK, root], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("class Reaper:\n    pass\n", "1: `Reaper` uses the word 'reaper'; say 'reclaimer'"),
        ("def run(the_parcel):\n    pass\n", "1: `the_parcel` uses the word 'parcel'; say 'message'"),
        ("\nletter = []\n", "2: `letter` uses the word 'letter'; say 'dead_letter'"),
        ("x.put_aside = 1\n", "1: `put_aside` uses the word 'put_aside'; say 'dead_letter'"),
        ("def long():\n" + "    x = 1\n" * 60, "1: `long` has 61 lines; at most 60 are allowed"),
        ("x = 1\n" * 351, "1: the module has 351 lines; at most 350 are allowed: cut it by idea"),
    ],
)
def test_an_offence_is_named_with_its_place(tmp_path, content, problem):
    done = check(tmp_path, content)
    assert (done.returncode, done.stdout) == (1, f"{MODULE}:{problem}\n"), done.stderr


def test_the_name_of_a_module_is_checked(tmp_path):
    done = check(tmp_path, "", MODULE.with_name("upkeep.py"))
    assert (done.returncode, "say 'job_runner'" in done.stdout) == (1, True)


@pytest.mark.parametrize("name", ["in_flight", "SingleFlight", "dead_letters", "DeadLetterHead", "dead_letter"])
def test_the_words_of_the_field_are_allowed(tmp_path, name):
    done = check(tmp_path, f"{name} = 1\n")
    assert (done.returncode, done.stdout) == (0, "")


SERVICE = Path("services/planted/src/citadel_planted")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('\nQUERY = "SELECT status FROM runs"\n', "2: SQL (SELECT)"),
        ('cursor.execute(b"DELETE FROM runs")\n', "1: SQL (DELETE FROM)"),
        ('cursor.execute(f"LISTEN {channel}")\n', "1: SQL (LISTEN)"),
        ('cursor.execute("""\nWITH done AS (UPDATE steps SET status = %s)\n""")\n', "1: SQL (WITH done AS)"),
        ("leave(tx, \"status = 'ready', lease_until = now()\")\n", "1: SQL (now())"),
    ],
)
def test_a_statement_outside_the_db_package_is_named_with_its_place(tmp_path, content, found):
    place = SERVICE / "engine/steps.py"
    done = check(tmp_path, content, place)
    message = f"{place}:{found} outside `db`: move the statement to the service's db package\n"
    assert (done.returncode, done.stdout) == (1, message), done.stderr


@pytest.mark.parametrize("reading", ["time.time()", "datetime.now(UTC)", "dt.datetime.now()", "field(time.time_ns)"])
def test_a_reading_of_the_hosts_clock_is_named_with_its_place(tmp_path, reading):
    done = check(tmp_path, f"\nx = {reading}\n")
    assert (done.returncode, done.stdout.startswith(f"{MODULE}:2: ")) == (1, True), done.stdout
    assert "use ServerClock, the database's now(), or monotonic" in done.stdout


def test_the_modules_that_may_read_it_do():
    """An exception that nothing needs any more hides the next mistake."""
    listed = runpy.run_path(str(CHECK))["CLOCKS"]
    for place in listed:
        [path] = [*Path().glob(f"libs/*/src/{place}"), *Path().glob(f"services/*/src/{place}")]
        assert re.search(r"time\.time|datetime\.now", path.read_text()), place


@pytest.mark.parametrize("place", ["db/runs.py", "db.py", "exporter/db.py"])
def test_statements_of_a_db_package_are_allowed(tmp_path, place):
    done = check(tmp_path, 'QUERY = "SELECT status FROM runs"\n', SERVICE / place)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "content", ['"""SELECT is told apart from prose."""\n', 'PROBE = "SELECT 1"\n', 'TEXT = "select an update"\n']
)
def test_prose_and_probes_are_not_statements(tmp_path, content):
    done = check(tmp_path, content, SERVICE / "engine/steps.py")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


OFFENCES = {
    "libs/contracts/src/citadel_contracts/base.py": "import citadel_common.errors",
    "libs/common/src/citadel_common/delivery/queues.py": "from citadel_common.worker import launch",
    "libs/common/src/citadel_common/errors.py": "import citadel_maintenance.tasks",
    "libs/client/src/citadel_client/errors.py": "import citadel_common.settings.common",
    "services/embeddings/src/citadel_embeddings/endpoints/pool.py": "from citadel_embeddings import engine",
    "services/monitoring/src/citadel_monitoring/settings.py": "import citadel_maintenance.worker",
    "services/maintenance/src/citadel_maintenance/scanning.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from citadel_maintenance import orphans"
    ),
}
"""Planted imports that lead the wrong way, by module."""
BROKEN = {
    "The contracts import nothing of Citadel",
    "The shared library imports no service and no client",
    "Of Citadel, the client imports the contracts only",
    "No service imports another",
    "No import circles between modules or packages, type-checking imports included",
    "Layers of the shared library",
    "A text's way through the embeddings worker leads down",
    "Layers of maintenance",
}


def test_imports_that_lead_the_wrong_way_break_their_rules(tmp_path):
    sources = [path for tree in ("libs", "services") for path in Path(tree).glob("*/src")]
    for source in sources:
        shutil.copytree(source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
    for name, planted in OFFENCES.items():
        module = tmp_path / name
        module.write_text(f"{module.read_text()}\n{planted}\n")
    command = [Path(sys.executable).with_name("lint-imports"), "--config", "pyproject.toml", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(tmp_path / source) for source in sources)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    broken = {line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith(" BROKEN")}
    assert (broken, done.returncode) == (BROKEN, 1)
