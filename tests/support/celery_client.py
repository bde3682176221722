"""A Celery client that knows a broker URL, and nothing of Citadel."""

from types import TracebackType
from typing import Any, Self

from celery import Celery
from celery.result import AsyncResult

QUEUE = "embeddings"
TIMEOUT = 60.0


class PlainClient:
    """Sends tasks by their names and waits for results."""

    def __init__(self, url: str) -> None:
        self.app = Celery("plain", broker=url, backend=url, set_as_current=False)
        self._results: list[AsyncResult] = []

    def send(self, name: str, *args: Any, **kwargs: Any) -> AsyncResult:
        """Publish a task."""
        return self.publish(name, args, kwargs)

    def publish(self, name: str, args: Any = (), kwargs: Any = None, **options: Any) -> AsyncResult:
        """Publish a task with options of Celery's: priority, headers, countdown."""
        result = self.app.send_task(name, args=args, kwargs=kwargs, **({"queue": QUEUE} | options))
        self._results.append(result)
        return result

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Publish a task and return its result."""
        return self.send(name, *args, **kwargs).get(timeout=TIMEOUT)

    def error(self, name: str, *args: Any, **kwargs: Any) -> str:
        """Publish a task that must fail; return the error's class and message."""
        return error_of(self.send(name, *args, **kwargs))

    def close(self) -> None:
        """Close every connection; results that go later must not open one again to a server that is gone."""
        for result in self._results:
            result.backend = None
        self.app.backend.result_consumer.stop()
        self.app.backend.client.close()
        self.app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def error_of(result: AsyncResult) -> str:
    """Wait for a failure; return its class and message."""
    error = result.get(timeout=TIMEOUT, propagate=False)
    assert isinstance(error, Exception), f"the task did not fail: {str(error)[:500]}"
    return f"{type(error).__name__}: {error}"
