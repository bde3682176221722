"""The probe: what it looks at, and what it says."""

import os
import time

import pytest

from citadel_common.probe import main, process_of, why_unwell
from citadel_common.worker.health import touch


@pytest.mark.parametrize(
    ("command", "process"),
    [
        ("tini -- python -m citadel_embeddings", "worker"),
        ("/sbin/docker-init -- /usr/bin/tini -- python -X dev -m citadel_orchestration", "worker"),
        ("tini -- python -m citadel_orchestration.api", "api"),
        ("tini -- python -m citadel_monitoring.exporter", "exporter"),
        ("tini -- python -m citadel_maintenance.beat", "beat"),
        ("tini -- python -m citadel_orchestration.migrate", None),
        ("tini -- python -m http.server", None),
        ("tini -- sh -m", None),
        ("", None),
    ],
)
def test_the_first_process_tells_what_runs(command, process):
    assert process_of(command.replace(" ", "\0").encode() + b"\0") == process


@pytest.mark.parametrize("process", ["worker", "beat"])
def test_a_file_that_is_old_or_missing_is_unwell(tmp_path, process):
    file = tmp_path / "health"
    environment = {f"CITADEL_{process.upper()}__HEALTH_FILE": str(file), "CITADEL_WORKER__DEAD_AFTER": "300"}
    assert why_unwell(process, "", environment) == f"{file}: No such file or directory"
    file.touch()
    assert why_unwell(process, "", environment) is None
    os.utime(file, (0, 0))
    assert why_unwell(process, "", environment).startswith(f"{file} was touched ")


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_file_is_as_old_as_it_is_when_the_clock_is_set(tmp_path, monkeypatch, step):
    file, ours, monotonic = tmp_path / "health", time.time, time.monotonic
    environment = {"CITADEL_WORKER__HEALTH_FILE": str(file), "CITADEL_WORKER__DEAD_AFTER": "300"}
    touch(file)
    monkeypatch.setattr(time, "time", lambda: ours() + step)
    assert why_unwell("worker", "", environment) is None
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 301)
    assert why_unwell("worker", "", environment) == f"{file} was touched 301 s ago"


def test_missing_and_wrong_settings_are_reported():
    assert why_unwell("worker", "", {}) == "no health file is set"
    environment = {"CITADEL_WORKER__DEAD_AFTER": "soon", "CITADEL_WORKER__HEALTH_FILE": "/x"}
    assert why_unwell("worker", "", environment).startswith("wrong setting: ")


def test_the_status_says_it_all(tmp_path, monkeypatch, capsys):
    file = tmp_path / "health"
    monkeypatch.setenv("CITADEL_BEAT__HEALTH_FILE", str(file))
    assert main(["beat"]) == 1
    file.touch()
    assert main(["beat"]) == 0
    assert capsys.readouterr().out == f"{file}: No such file or directory\nok\n"
