"""A hundred runs are under way when something goes down: each succeeds, and no recorded step is repeated."""

import signal
from collections import Counter

import pytest

from tests.support.platform import Platform
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess

RUNS = 100
STEPS = 4


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL server that may be restarted."""
    with PostgresProcess() as server:
        yield server


@pytest.fixture(scope="module")
def fleet_of_two(postgres, doubles):
    """Two workers of each kind, on stores of their own."""
    redis = RedisProcess()
    with postgres.database() as dsn, Platform(redis=redis, dsn=dsn, doubles=doubles) as platform:
        platform.workers = {"orchestration": platform.orchestration, "embeddings": platform.embeddings}
        platform.running = {name: [start(), start()] for name, start in platform.workers.items()}
        yield platform
    redis.stop()


@pytest.fixture
def fleet(fleet_of_two):
    """Return the workers, with slow doubles."""
    fleet_of_two.doubles.reset()
    fleet_of_two.doubles.llm.behaviour("slow", delay_ms=400)
    return fleet_of_two


def definition(name):
    """Return a definition of vectors and questions; no other run asks the same ones."""
    text = {"text": f"text of {name}", "model": "all-minilm"}
    return {
        "workflow_id": name,
        "defaults": {"retry": {"max_attempts": 8, "delay": "100ms", "max_delay": "1s"}},
        "steps": [
            {"step_id": "before", "type": "embedding", "parameters": text},
            {"step_id": "one", "type": "llm_query", "parameters": {"query": f"one of {name}"}},
            {"step_id": "two", "type": "llm_query", "parameters": {"query": f"two of {name}"}},
            {"step_id": "after", "type": "embedding", "parameters": text | {"text": f"end of {name}"}},
        ],
    }


def begin(fleet, kind):
    """Begin the runs; return them when they are in the middle of their work."""
    runs = [fleet.begin(definition(f"{kind}-{number}")) for number in range(RUNS)]
    eventually(lambda: succeeded(fleet, runs, "one") >= 10)
    return runs


def succeeded(fleet, runs, step_id):
    """Return how many of the runs have recorded a step."""
    query = "SELECT count(*) FROM steps WHERE run_id = ANY(%s) AND step_id = %s AND status = 'succeeded'"
    return fleet.db.rows(query, runs, step_id)[0][0]


def asked(fleet):
    """Return how often each question was asked."""
    return Counter(fleet.doubles.llm.stats()["prompt_counts"])


def recorded(fleet, runs):
    """Return the questions with recorded answers, and the attempts that recorded them."""
    query = (
        "SELECT step_id || ' of ' || workflow_id, attempt FROM steps JOIN runs USING (run_id)"
        " WHERE run_id = ANY(%s) AND steps.status = 'succeeded' AND step_id IN ('one', 'two')"
    )
    return dict(fleet.db.rows(query, runs))


def assert_all_end_well(fleet, runs, before):
    """Assert that all succeed, record each step once, and ask again for no answer that was recorded `before`."""
    assert {fleet.db.ended(run) for run in runs} == {"succeeded"}
    for run in runs:
        fleet.db.assert_recorded_once(run)
        assert Counter(event[0] for event in fleet.db.events(run))["step_succeeded"] == STEPS
    counts, attempts = asked(fleet), recorded(fleet, runs)
    assert len(attempts) == 2 * RUNS
    assert {question for question in before if counts[question] != 1 and before[question] == 1} == set()
    assert {question for question, attempt in attempts.items() if counts[question] > attempt} == set()


def replace(fleet, kind):
    """Kill a worker at once, and start another."""
    fleet.running[kind].pop(0).kill()
    fleet.running[kind].append(fleet.workers[kind]())


def restart_redis(fleet):
    """Stop Redis, which keeps nothing, and start it."""
    fleet.redis.kill()
    fleet.redis.restart()


@pytest.mark.parametrize("kind", ["orchestration", "embeddings"])
def test_every_run_succeeds_after_a_worker_was_killed(fleet, kind):
    runs = begin(fleet, f"killed-{kind}")
    before = recorded(fleet, runs)
    replace(fleet, kind)
    assert_all_end_well(fleet, runs, before)


def test_every_run_succeeds_after_all_workers_were_killed(fleet):
    runs = begin(fleet, "all-killed")
    before = recorded(fleet, runs)
    for kind, workers in fleet.running.items():
        for worker in workers:
            worker.kill()
        workers[:] = [fleet.workers[kind]()]
    assert_all_end_well(fleet, runs, before)


def test_every_run_succeeds_after_redis_was_emptied(fleet):
    runs = begin(fleet, "emptied")
    before = recorded(fleet, runs)
    fleet.redis.flush()
    assert_all_end_well(fleet, runs, before)


def test_every_run_succeeds_after_redis_was_restarted_empty(fleet):
    runs = begin(fleet, "redis")
    before = recorded(fleet, runs)
    restart_redis(fleet)
    assert_all_end_well(fleet, runs, before)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_every_run_succeeds_after_postgres_was_restarted(fleet, postgres, way):
    runs = begin(fleet, f"postgres-{way}")
    before = recorded(fleet, runs)
    getattr(postgres, way)()
    postgres.start()
    assert_all_end_well(fleet, runs, before)
    assert max(asked(fleet).values()) == 1


def test_a_paused_run_outlives_restarts_of_workers_and_stores(fleet, postgres):
    runs = [fleet.begin(definition(f"paused-{number}")) for number in range(10)]
    for run in runs:
        fleet.db.commands.pause(run)
    for kind in fleet.running:
        replace(fleet, kind)
    restart_redis(fleet)
    postgres.restart()
    other = fleet.begin(definition("not-paused"))
    assert fleet.db.ended(other) == "succeeded"
    assert {fleet.db.status(run) for run in runs} == {"paused"}
    assert not succeeded(fleet, runs, "two")
    for run in runs:
        fleet.db.commands.resume(run)
    assert {fleet.db.ended(run) for run in runs} == {"succeeded"}


def test_a_polite_stop_finishes_running_steps(fleet):
    runs = begin(fleet, "polite")
    stopped = fleet.running["orchestration"].pop(0)
    stopped.signal(signal.SIGTERM)
    fleet.running["orchestration"].append(fleet.orchestration())
    assert_all_end_well(fleet, runs, recorded(fleet, runs))
    assert stopped.wait() == 0
    assert max(asked(fleet).values()) == 1


def test_a_polite_stop_hands_back_steps_that_do_not_end(fleet):
    stopped = fleet.running["orchestration"].pop()
    for other in fleet.running["orchestration"]:
        other.kill()
    fleet.doubles.llm.behaviour("hang")
    runs = [fleet.begin(definition(f"hanging-{number}")) for number in range(20)]
    eventually(lambda: fleet.doubles.llm.stats()["in_flight"] == len(runs))
    fleet.doubles.llm.behaviour("ok")
    fleet.running["orchestration"] = [fleet.orchestration()]
    assert stopped.terminate() == 0
    assert {fleet.db.ended(run) for run in runs} == {"succeeded"}
    assert {attempt for question, attempt in recorded(fleet, runs).items() if question.startswith("one")} == {2}
