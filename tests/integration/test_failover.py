"""Two servers of one backend die and return; every text still gets its vector."""

import time

import pytest

from tests.doubles.process import OllamaProcess
from tests.support.assertions import assert_vectors
from tests.support.celery_client import error_of
from tests.support.planted import TEXT
from tests.support.polling import eventually
from tests.support.worker import WorkerProcess

TASK = "generate_embedding"
SETTINGS = {"EMBEDDINGS__PATIENCE": 0.5, "WORKER__RETRY__MAX_RETRIES": 1000, "WORKER__RETRY__BASE": 0.2}


@pytest.fixture(scope="module")
def pair():
    with OllamaProcess(slots=2, text_ms=2) as one, OllamaProcess(slots=2, text_ms=2) as two:
        yield one, two


@pytest.fixture(scope="module")
def worker(redis_url, pair):
    """A worker that has both servers."""
    with WorkerProcess(redis_url, [double.url for double in pair], **SETTINGS) as process:
        yield process


@pytest.fixture
def servers(store, pair, worker):
    """Both servers, healthy."""
    for double in pair:
        double.restart_same_port()
    store.delete(*(store.keys("citadel:embedding:*") or ["none"]))
    return pair


def embedded(servers):
    return [double.stats()["texts_embedded"] for double in servers]


def test_calls_are_spread_over_both_urls(plain, servers):
    texts = [f"{TEXT} {n}" for n in range(600)]
    assert_vectors(plain.call(TASK, texts), texts)
    first, second = embedded(servers)
    assert first + second == 600
    assert min(first, second) >= 100


@pytest.fixture
def no_retry(worker):
    """Check that the task itself is not retried: the other server takes over within it."""
    before = len(worker.events("task_retried"))
    yield
    assert len(worker.events("task_retried")) == before


@pytest.mark.usefixtures("no_retry")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_url_that_dies_midway_costs_no_text(plain, servers, victim):
    texts = [f"{TEXT} {n}" for n in range(600)]
    task = plain.send(TASK, texts)
    eventually(lambda: servers[victim].stats()["requests"] >= 2)
    servers[victim].kill()
    assert_vectors(task.get(timeout=60), texts)


@pytest.mark.usefixtures("no_retry")
@pytest.mark.parametrize("mode", ["error500", "dead", "busy503", "garbage_json", "zero", "wrong_dimension", "missing"])
def test_a_url_that_answers_errors_costs_no_text(plain, servers, mode):
    servers[0].behaviour(mode)
    texts = [f"{TEXT} {mode} {n}" for n in range(100)]
    assert_vectors(plain.call(TASK, texts), texts)


@pytest.mark.usefixtures("no_retry")
def test_a_url_without_the_model_costs_no_text(plain, servers):
    servers[0].behaviour("not_found404")
    texts = [f"{TEXT} {n}" for n in range(100)]
    assert_vectors(plain.call(TASK, texts), texts)


def test_a_server_that_returns_is_used_again(plain, servers):
    servers[0].kill()
    plain.call(TASK, [f"without {n}" for n in range(50)])
    servers[0].restart_same_port()

    def used():
        plain.call(TASK, [f"{time.monotonic()} {n}" for n in range(100)])
        return servers[0].stats()["texts_embedded"]

    eventually(used)


def test_with_all_urls_dead_urgent_work_fails_and_patient_work_is_retried(plain, servers, worker):
    before = len(worker.events("task_retried"))
    for double in servers:
        double.kill()
    waiting = plain.publish(TASK, ["urgent"], headers={"citadel_deadline": time.time() + 0.7})
    texts = [f"{TEXT} patient {n}" for n in range(100)]
    patient = plain.send(TASK, texts)
    assert error_of(waiting).startswith(("BackendUnavailable: ", "DeadlineExceeded: "))
    worker.wait_for("task_retried", times=before + 1)
    servers[1].restart_same_port()
    assert_vectors(patient.get(timeout=60), texts)
    assert_vectors(plain.call(TASK, ["after"]), ["after"])
