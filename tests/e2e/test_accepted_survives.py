"""What was answered with 202 finishes, whichever process is killed meanwhile."""

import signal

from tests.doubles.ollama.vectors import expected_vector
from tests.e2e.conftest import Server
from tests.support.planted import TEXT
from tests.support.polling import eventually
from tests.support.worker import WorkerProcess

MODEL = "nomic-embed-text"
TASKS = 60


def test_every_accepted_task_survives_workers_that_are_killed_one_after_the_other(server: Server) -> None:
    server.double.behaviour("slow", delay_ms=50)
    ids = {server.submit(f"{TEXT} {number}", model=MODEL): f"{TEXT} {number}" for number in range(TASKS)}
    for _ in range(3):
        with WorkerProcess(server.redis.url, server.double.url, WORKER__CONCURRENCY=4) as worker:
            before = _finished(server, ids)
            eventually(lambda before=before: _finished(server, ids) > min(before, TASKS - 1))
            worker.kill()
    server.double.behaviour("ok")
    with WorkerProcess(server.redis.url, server.double.url):
        for task_id, text in ids.items():
            status = eventually(lambda task_id=task_id: server.finished(task_id), timeout=60)
            assert status["status"] == "succeeded", status
            assert abs(status["result"]["embeddings"][0][0] - expected_vector(MODEL, text)[0]) < 1e-6


def test_a_task_whose_message_was_lost_is_published_again(server: Server) -> None:
    task_id = server.submit(f"{TEXT} lost on the way", model=MODEL)
    with server.redis.client() as client:
        client.delete("embeddings", "embeddings\x06\x163")
    with WorkerProcess(server.redis.url, server.double.url) as worker:
        # the first look of the API's record comes after half a minute: the sweep is tested with a due one
        with server.redis.client() as client:
            client.zadd("citadel:accepted:due", {task_id: 0})
        assert eventually(lambda: server.finished(task_id))["status"] == "succeeded"
        assert worker.events("accepted_task_republished")


def test_a_worker_that_stops_hands_its_task_over_to_the_next_one(server: Server) -> None:
    server.double.behaviour("slow", delay_ms=200)
    texts = [f"{TEXT} handed over {number}" for number in range(400)]
    ids = [server.submit(texts[start : start + 40], model=MODEL) for start in range(0, 400, 40)]
    with WorkerProcess(server.redis.url, server.double.url, WORKER__STOP_GRACE="0.3") as worker:
        eventually(lambda: server.double.stats()["requests"])
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    server.double.behaviour("ok")
    with WorkerProcess(server.redis.url, server.double.url):
        for task_id in ids:
            assert eventually(lambda task_id=task_id: server.finished(task_id), timeout=60)["status"] == "succeeded"


def _finished(server: Server, ids: dict[str, str]) -> int:
    return sum(server.finished(task_id) is not None for task_id in ids)
