"""Workers that come and go on one Redis."""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from tests.doubles.process import OllamaProcess
from tests.support.celery_client import PlainClient
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess


class Fleet:
    """Starts workers, which end with the test; `plain` is a client of theirs."""

    def __init__(self, redis: RedisProcess, double: OllamaProcess, plain: PlainClient) -> None:
        self.redis = redis
        self.double = double
        self.plain = plain
        self._stack = contextlib.ExitStack()

    def start(self, **settings: Any) -> WorkerProcess:
        """Return a worker that is ready."""
        return self._stack.enter_context(WorkerProcess(self.redis.url, self.double.url, **settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


@contextlib.contextmanager
def open_fleet(redis: RedisProcess, double: OllamaProcess) -> Iterator[Fleet]:
    """Give a fleet without workers, on an empty Redis."""
    redis.flush()
    with PlainClient(redis.url) as plain, Fleet(redis, double, plain) as fleet:
        yield fleet
