"""What the benchmarks run against: one Redis, one backend double, the workers."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery

from tests.bench import naive, noop
from tests.bench.load import Producers
from tests.bench.processes import child, redis_process
from tests.bench.scale import Scale
from tests.doubles.process import OllamaProcess

BACKEND: dict[str, Any] = {"slots": 4, "request_ms": 3.0, "text_ms": 4.0}
CONCURRENCY = 32
CITADEL_DB, NAIVE_DB, NOOP_DB = 0, 1, 2
FIRST_RESULT_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Where everything is."""

    scale: Scale
    redis_port: int
    backend: OllamaProcess
    producers: Producers

    def redis_url(self, database: int) -> str:
        """URL of one of the databases."""
        return f"redis://127.0.0.1:{self.redis_port}/{database}"

    @property
    def citadel(self) -> dict[str, str]:
        """Citadel's embedding task, as a target of producers."""
        return {"broker": self.redis_url(CITADEL_DB), "queue": "embeddings", "task": "generate_embedding"}

    @property
    def naive(self) -> dict[str, str]:
        """The naive form's embedding task."""
        return {"broker": self.redis_url(NAIVE_DB), "queue": naive.QUEUE, "task": naive.TASK}

    @property
    def noop(self) -> dict[str, str]:
        """The task that does nothing."""
        return {"broker": self.redis_url(NOOP_DB), "queue": noop.QUEUE, "task": noop.TASK}

    def citadel_environment(self) -> dict[str, str]:
        """Variables of Citadel's processes: its own defaults but for the addresses."""
        return {
            "CITADEL_BROKER_URL": self.redis_url(CITADEL_DB),
            "CITADEL_WORKER__CONCURRENCY": str(CONCURRENCY),
            "CITADEL_EMBEDDINGS__BACKENDS__double__KIND": "ollama",
            "CITADEL_EMBEDDINGS__BACKENDS__double__URLS": self.backend.url,
        }

    @contextlib.contextmanager
    def citadel_worker(self) -> Iterator[int]:
        """A worker of Citadel; its process id."""
        command = [sys.executable, "-m", "citadel_embeddings"]
        with child("citadel-worker", command, self.citadel_environment()) as process:
            first_result(self.citadel)
            yield process.pid

    @contextlib.contextmanager
    def naive_worker(self) -> Iterator[None]:
        """A worker of the naive form."""
        env = {"NAIVE_REDIS": self.redis_url(NAIVE_DB), "NAIVE_OLLAMA": self.backend.url}
        with child("naive-worker", _celery("tests.bench.naive", naive.QUEUE), env):
            first_result(self.naive)
            yield

    @contextlib.contextmanager
    def noop_worker(self) -> Iterator[None]:
        """A worker of the task that does nothing."""
        options = ("--pool=threads", f"--concurrency={CONCURRENCY}")
        with child(
            "noop-worker", _celery("tests.bench.noop", noop.QUEUE, *options), {"NOOP_REDIS": self.redis_url(NOOP_DB)}
        ):
            first_result(self.noop)
            yield


def _celery(app: str, queue: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "celery", "--app", app, "worker", "--queues", queue, "--loglevel=warning", *options]


def first_result(target: dict[str, str]) -> None:
    """Waits until a worker answers."""
    app = Celery("first", broker=target["broker"], backend=target["broker"])
    result: Any = app.send_task(target["task"], args=["first"], queue=target["queue"])
    result.get(timeout=FIRST_RESULT_TIMEOUT)
    app.close()


@contextlib.contextmanager
def stack(scale: Scale) -> Iterator[Stack]:
    """Redis, the backend double and idle producers; workers are started by who needs them."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with (
        redis_process() as port,
        OllamaProcess(**BACKEND) as backend,
        Producers(scale.producers, scale.window) as producers,
    ):
        yield Stack(scale=scale, redis_port=port, backend=backend, producers=producers)
