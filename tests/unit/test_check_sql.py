"""SQL is written in the `db` package of a service only: planted statements elsewhere are found."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path("scripts/check-sql").resolve()
PACKAGE = Path("services/planted/src/citadel_planted")


def check(root, content, place):
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return subprocess.run([sys.executable, CHECK, root], capture_output=True, text=True, check=False)


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
    place = PACKAGE / "engine/steps.py"
    done = check(tmp_path, content, place)
    message = f"{place}:{found} outside `db`: move the statement to the service's db package\n"
    assert (done.returncode, done.stdout) == (1, message), done.stderr


@pytest.mark.parametrize("place", ["db/runs.py", "db.py", "exporter/db.py"])
def test_statements_of_a_db_package_are_allowed(tmp_path, place):
    done = check(tmp_path, 'QUERY = "SELECT status FROM runs"\n', PACKAGE / place)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "content", ['"""SELECT is told apart from prose."""\n', 'PROBE = "SELECT 1"\n', 'TEXT = "select an update"\n']
)
def test_prose_and_probes_are_not_statements(tmp_path, content):
    done = check(tmp_path, content, PACKAGE / "engine/steps.py")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_project_keeps_the_rule():
    done = subprocess.run([sys.executable, CHECK], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
