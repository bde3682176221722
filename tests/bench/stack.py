"""The processes that benchmarks measure: one Redis, one backend double, workers."""

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
    """Addresses of the processes, and ways to start workers."""

    scale: Scale
    redis_port: int
    backend: OllamaProcess
    producers: Producers

    def redis_url(self, database: int) -> str:
        """Return the URL of a database."""
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
        """Return the variables of Citadel's processes: its defaults, but for the addresses."""
        return {
            "CITADEL_BROKER_URL": self.redis_url(CITADEL_DB),
            "CITADEL_WORKER__CONCURRENCY": str(CONCURRENCY),
            "CITADEL_EMBEDDINGS__BACKENDS__double__KIND": "ollama",
            "CITADEL_EMBEDDINGS__BACKENDS__double__URLS": self.backend.url,
        }

    @contextlib.contextmanager
    def citadel_worker(self) -> Iterator[int]:
        """Run a worker of Citadel; give its process id."""
        command, env = [sys.executable, "-m", "citadel_embeddings"], self.citadel_environment()
        with child("citadel-worker", command, env, ready=lambda: first_result(self.citadel)) as process:
            yield process.pid

    @contextlib.contextmanager
    def naive_worker(self) -> Iterator[None]:
        """Run a worker of the naive form."""
        env = {"NAIVE_REDIS": self.redis_url(NAIVE_DB), "NAIVE_OLLAMA": self.backend.url}
        command = _celery("tests.bench.naive", naive.QUEUE)
        with child("naive-worker", command, env, ready=lambda: first_result(self.naive)):
            yield

    @contextlib.contextmanager
    def noop_worker(self) -> Iterator[None]:
        """Run a worker of the task that does nothing."""
        env = {"NOOP_REDIS": self.redis_url(NOOP_DB)}
        command = _celery("tests.bench.noop", noop.QUEUE, "--pool=threads", f"--concurrency={CONCURRENCY}")
        with child("noop-worker", command, env, ready=lambda: first_result(self.noop)):
            yield


def _celery(app: str, queue: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "celery", "--app", app, "worker", "--queues", queue, "--loglevel=warning", *options]


def first_result(target: dict[str, str]) -> None:
    """Wait until a worker answers."""
    app = Celery("first", broker=target["broker"], backend=target["broker"])
    result: Any = app.send_task(target["task"], args=["first"], queue=target["queue"])
    result.get(timeout=FIRST_RESULT_TIMEOUT)
    app.close()


@contextlib.contextmanager
def stack(scale: Scale) -> Iterator[Stack]:
    """Run Redis, the backend double and idle producers; each benchmark starts the workers that it needs."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with (
        redis_process() as port,
        OllamaProcess(**BACKEND) as backend,
        Producers(scale.producers, scale.window) as producers,
    ):
        yield Stack(scale=scale, redis_port=port, backend=backend, producers=producers)
