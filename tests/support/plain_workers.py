"""Workers of Citadel with a plain Celery task, and many tasks for them from a plain Celery client."""

import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from citadel_common.delivery.queues import lists_of
from tests.support.celery_client import PlainClient
from tests.support.programs.plain_worker import QUEUE, TASK
from tests.support.redis_server import RedisProcess
from tests.support.worker import FAST, ServiceProcess

RESULT = "celery-task-meta-"
AT_ONCE = 500


class PlainWorkers:
    """Workers on one Redis, which end with the test."""

    def __init__(self, redis: RedisProcess, plain: PlainClient) -> None:
        self.redis = redis
        self.plain = plain
        self._stack = contextlib.ExitStack()

    def start(self, **settings: Any) -> ServiceProcess:
        """Return a worker that is ready."""
        of_backend = {name: value for name, value in FAST.items() if not name.startswith(("EMBEDDINGS", "CACHE"))}
        chosen = of_backend | {"BROKER_URL": self.redis.url} | settings
        return self._stack.enter_context(ServiceProcess("tests.support.programs.plain_worker", chosen))

    def send(self, text: str, *, seconds: float = 0.0, priority: int = 0) -> Any:
        """Publish one task; return its result."""
        return self.plain.publish(TASK, [text, seconds], priority=priority)

    def held(self) -> int:
        """Return how many messages are held or in inboxes."""
        with self.redis.client() as store:
            keys = store.keys("citadel:unacked:*")
            sizes = {b"hash": store.hlen, b"list": store.llen}
            return sum(sizes[store.type(key)](key) for key in keys if store.type(key) in sizes)

    def waiting(self) -> int:
        """Return how many messages wait in the lanes."""
        with self.redis.client() as store:
            return sum(store.llen(name) for name in lists_of(QUEUE))

    def close(self) -> None:
        """End them."""
        self._stack.close()


@contextlib.contextmanager
def open_plain_workers(redis: RedisProcess) -> Iterator[PlainWorkers]:
    """Give a fleet without workers, on an empty Redis."""
    redis.flush()
    with PlainClient(redis.url) as plain, contextlib.closing(PlainWorkers(redis, plain)) as workers:
        yield workers


class ManyTasks:
    """Tasks that a plain Celery client sends while something happens to their workers."""

    def __init__(self, workers: PlainWorkers, count: int) -> None:
        self._workers = workers
        self.ids = [str(uuid.uuid4()) for _ in range(count)]
        self._unanswered = set(self.ids)
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def _send(self) -> None:
        with PlainClient(self._workers.redis.url) as plain, plain.app.connection_for_write() as connection:
            producer = plain.app.amqp.Producer(connection)
            for number, task_id in enumerate(self.ids):
                options = {"task_id": task_id, "producer": producer, "priority": (0, 3, 6)[number % 3]}
                plain.app.send_task(TASK, args=[task_id], queue=QUEUE.value, **options)

    @property
    def unanswered(self) -> list[str]:
        """The ids of tasks that have no result yet."""
        waiting = list(self._unanswered)
        with self._workers.redis.client() as store:
            for start in range(0, len(waiting), AT_ONCE):
                some = waiting[start : start + AT_ONCE]
                found = store.mget([RESULT + task_id for task_id in some])
                self._unanswered -= {task_id for task_id, result in zip(some, found, strict=True) if result}
        return list(self._unanswered)
