"""Messages that name an exchange of their client's own come back from a dead worker into the queue they came from."""

import uuid

import pytest
from celery import Celery
from kombu import Exchange, Queue

from tests.support.celery_client import QUEUE, TIMEOUT
from tests.support.fleet import Fleet
from tests.support.polling import eventually


@pytest.mark.parametrize("how", [{}, {"task_protocol": 1}], ids=["second protocol", "first protocol"])
def test_what_a_dead_worker_held_comes_back_whatever_the_client_calls_its_queue(
    fleet: Fleet, how: dict[str, int]
) -> None:
    fleet.double.behaviour("hang")
    doomed = fleet.start(WORKER__CONCURRENCY=1)
    topic = Queue(QUEUE, Exchange(f"topic-{uuid.uuid4()}", type="topic"), routing_key="emb.#")
    app = Celery("foreign", broker=fleet.redis.url, backend=fleet.redis.url, set_as_current=False)
    app.conf.update(task_queues=[topic], **how)
    tasks = [app.send_task("generate_embedding", [f"{n}"], queue=QUEUE, routing_key="emb.x") for n in range(3)]
    with fleet.redis.client() as store:
        eventually(lambda: list(store.scan_iter("citadel:unacked:*", _type="hash")))
    doomed.kill()
    fleet.double.behaviour("ok")
    fleet.start()
    assert all(task.get(timeout=TIMEOUT)["success"] for task in tasks)
    app.close()
