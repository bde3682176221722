"""A baseline that dies, or is far worse in one round than in the others, is an error instead of a figure."""

import psutil
import pytest

from tests.bench import processes
from tests.bench.figure import Figure
from tests.bench.http_load import Answers, Client
from tests.support.polling import eventually

ALONE = ["sleep", "600"]
WITH_A_WORKER = ["sh", "-c", "sleep 600 & echo $! >$WORKER_PID; wait; sleep 600"]
"""A parent that stays when its worker has died, as gunicorn and Celery do."""


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "LOGS", tmp_path)


def figure(rounds, unit="requests/s"):
    return Figure.of_rounds("a_figure", unit, baseline="another server", rounds=rounds)


def measure_with_a_death(error=None):
    """Measure a process that is killed meanwhile, and fail with the error."""
    with processes.child("baseline", ALONE) as process:
        process.kill()
        process.wait()
        if error:
            raise error


def measure_with_a_death_of_a_worker(file):
    def written():
        return file.exists() and file.read_text().strip()

    with processes.child("baseline", WITH_A_WORKER, {"WORKER_PID": str(file)}, ready=lambda: eventually(written)):
        worker = psutil.Process(int(written()))
        worker.kill()
        eventually(lambda: not worker.is_running())


def test_a_process_that_dies_during_the_measurement_is_an_error():
    with pytest.raises(RuntimeError, match="baseline: 1 of 1 processes died during the measurement"):
        measure_with_a_death()


def test_a_process_that_dies_below_a_living_parent_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="baseline: 1 of 2 processes died during the measurement"):
        measure_with_a_death_of_a_worker(tmp_path / "pid")


def test_an_error_of_the_measurement_is_not_hidden_by_the_death_of_a_process():
    with pytest.raises(ZeroDivisionError):
        measure_with_a_death(ZeroDivisionError())


def test_processes_that_live_are_no_error():
    with processes.child("baseline", ALONE) as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_a_connection_that_the_server_ends_is_a_failure():
    answers = Answers()
    Client(iter([]), answers).connection_lost(None)
    assert answers.failures == ["the server ended a connection: closed"]


@pytest.mark.parametrize(("unit", "worse"), [("requests/s", 36.0), ("ms/step (p50)", 9000.0)])
def test_a_round_in_which_the_baseline_is_far_worse_is_an_error(unit, worse):
    with pytest.raises(RuntimeError, match=r"a_figure: the baseline measured .* in round 2"):
        figure([(900.0, 1000.0), (900.0, worse), (900.0, 1100.0)], unit)


def test_rounds_that_differ_little_are_a_figure():
    assert figure([(900.0, 1000.0), (900.0, 700.0), (990.0, 1100.0)]).ratio == 0.9


def test_one_round_is_a_figure():
    assert figure([(900.0, 1000.0)]).ratio == 0.9
