"""Chains and chords of a Celery client go on, each once, while workers are killed and Redis is restarted."""

import random
import uuid
from contextlib import closing

import pytest
from celery import chain, chord

from tests.support.canvas import CanvasClient, ClientWorker
from tests.support.fixtures import require_redis
from tests.support.platform import Platform
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess

SENT = 40
KILLS = 8


@pytest.fixture
def client(postgres_dsn, doubles):
    """A client and Citadel's workers on a Redis that keeps what it has on disk."""
    require_redis()
    doubles.reset()
    with (
        RedisProcess(durable=True) as redis,
        Platform(redis=redis, dsn=postgres_dsn, doubles=doubles) as platform,
        closing(ClientWorker(redis.url)),
        closing(CanvasClient(platform)) as client,
    ):
        yield client


def send(client, number):
    """Send a chain and a chord of tasks of Citadel; return their results, and the tasks to be called at their ends."""
    after_chain, after_chord = client.note(), client.note()
    ask, embed = client.ask(f"{number}"), client.task("generate_embedding", f"text {number}").set(immutable=True)
    steps = chain(ask, embed, client.ask(f"{number}").set(immutable=True), after_chain, app=client.app)
    header = [client.ask(f"{number}"), client.task("generate_embedding", f"part {number}")]
    return (steps.apply_async(), after_chain), (chord(header, app=client.app)(after_chord), after_chord)


def states_of(result):
    """Return the states of the tasks that lead to a result."""
    before = [] if result.parent is None else states_of(result.parent)
    members = getattr(result, "results", None)
    return [*before, [member.state for member in members] if members else result.state]


def assert_published_once(client, sent, about=""):
    """Check that each task was called by one message, however often its worker ran it."""
    for result, noted in sent:
        try:
            entries = client.seen(noted)
        except AssertionError:
            raise AssertionError(f"{about} was not called; the states before it: {states_of(result)}") from None
        assert len({entry["id"] for entry in entries}) == 1, about


def start(client, kind):
    return client.platform.orchestration() if kind == "orchestration" else client.platform.embeddings()


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_chains_and_chords_end_once_while_workers_are_killed(client):
    seed = uuid.uuid4().int % 10**6
    chance = random.Random(seed)
    workers = {kind: [start(client, kind) for _ in range(2)] for kind in ("orchestration", "embeddings")}
    sent = []
    for number in range(SENT):
        sent += send(client, number)
        if number % (SENT // KILLS) == 0:
            kind = chance.choice(list(workers))
            workers[kind].pop(chance.randrange(2)).kill()
            workers[kind].append(start(client, kind))
    assert_published_once(client, sent, f"seed {seed}")


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_chains_and_chords_end_once_after_a_restart_of_redis(client):
    """Runs are under way at the restart; what waits in a list, or is held, is on Redis' disk."""
    client.platform.doubles.llm.behaviour("hang")
    worker = start(client, "orchestration")
    start(client, "embeddings")
    sent = [pair for number in range(5) for pair in send(client, number)]
    query = "SELECT run_id FROM steps WHERE status = 'running'"
    eventually(lambda: len(client.platform.db.rows(query)) == len(sent))
    client.platform.redis.kill()
    worker.wait_for("pulse_step_failed")
    client.platform.redis.restart()
    worker.kill()
    client.platform.doubles.llm.behaviour("ok")
    start(client, "orchestration")
    assert_published_once(client, sent)
