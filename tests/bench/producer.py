"""A producer process: a plain Celery client that keeps a window of tasks under way and takes each result.

Reads jobs as lines of JSON and answers each with a line. `send_task` publishes; results arrive as Celery's own
result messages (the channel that `AsyncResult.get` waits on), by one subscription for all of the producer's ids.
"""

import json
import sys
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from celery import Celery

RESULT_TIMEOUT = 300.0
"""Seconds without any result after which the job has failed."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Tasks to send, one per entry of `arguments`; see `Producers.run`."""

    broker: str
    queue: str
    task: str
    arguments: list[list[Any]]
    kwargs: dict[str, Any] = field(default_factory=dict)
    window: int = 32


class Producer:
    """One connection for publishing, one subscription for results."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._app = Celery("producer", broker=job.broker, backend=job.broker)
        self._ids = f"bench-{uuid.uuid4().hex[:12]}"
        self._client = redis.Redis.from_url(job.broker)
        self._results: Any = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]

    def run(self) -> dict[str, Any]:
        """Send all tasks and wait for all results; times are seconds since the epoch."""
        self._results.psubscribe(f"celery-task-meta-{self._ids}-*")
        self._results.get_message(timeout=1.0)
        started, done, sent, failures = time.time(), 0, 0, []
        with self._app.connection_for_write() as connection, self._app.amqp.Producer(connection) as publisher:
            while done < len(self._job.arguments):
                while sent < len(self._job.arguments) and sent - done < self._job.window:
                    self._send(publisher, sent)
                    sent += 1
                answer = self._next_result()
                if answer["status"] in {"SUCCESS", "FAILURE"}:
                    done += 1
                    if answer["status"] == "FAILURE" or not _is_good(answer["result"]):
                        failures.append(str(answer["result"])[:300])
        finished = time.time()
        self._results.close()
        self._client.close()
        return {"started": started, "finished": finished, "done": done, "failures": failures[:3]}

    def _send(self, publisher: Any, number: int) -> None:
        self._app.send_task(
            self._job.task,
            args=self._job.arguments[number],
            kwargs=self._job.kwargs,
            queue=self._job.queue,
            task_id=f"{self._ids}-{number}",
            producer=publisher,
        )

    def _next_result(self) -> dict[str, Any]:
        message = self._results.get_message(timeout=RESULT_TIMEOUT)
        while message is not None and message["type"] != "pmessage":
            message = self._results.get_message(timeout=RESULT_TIMEOUT)
        if message is None:
            raise TimeoutError(f"no result of {self._job.task} for {RESULT_TIMEOUT:.0f} s")
        content: dict[str, Any] = orjson.loads(message["data"])
        return content


def _is_good(result: Any) -> bool:
    """Return True for a complete embedding result, and for any result of another task."""
    return not isinstance(result, dict) or bool(result.get("success") and all(result["embeddings"]))


def main() -> None:
    """Run jobs until standard input closes."""
    for line in sys.stdin:
        answer = Producer(Job(**json.loads(line))).run()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
