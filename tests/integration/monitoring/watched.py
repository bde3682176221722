"""Servers for health checks, healthy and silent ones."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from citadel_common.loop_thread import LoopThread
from citadel_monitoring.health.report import HealthReporter
from citadel_monitoring.machine import Machine
from citadel_monitoring.settings import MonitoringSettings
from tests.doubles.process import LlmProcess, OllamaProcess, QdrantProcess
from tests.support.child import free_port
from tests.support.planted import BACKEND_KEY, LLM_KEY, QDRANT_KEY, REDIS_PASSWORD
from tests.support.postgres_server import PASSWORD, PostgresProcess
from tests.support.redis_server import RedisProcess
from tests.support.relay import PIECE, Relay

DEADLINE = 3.0
"""Seconds of a check: enough for servers that answer, even on a busy machine."""
NEVER = 3600.0
REDIS_KEY, OLLAMA_KEY = REDIS_PASSWORD, BACKEND_KEY
SECRETS = (PASSWORD, REDIS_KEY, QDRANT_KEY, OLLAMA_KEY, LLM_KEY)


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Yield a port that accepts connections and never answers: the kernel accepts, and nobody reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@contextlib.contextmanager
def parrot_port() -> Iterator[int]:
    """Yield a port that answers with an error of Redis that repeats what it received."""

    def repeat(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while heard := connection.recv(PIECE):
                        connection.sendall(b"-ERR what is " + heard.replace(b"\r\n", b" ") + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=repeat, args=(listener,), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


class QuerySwallowingRelay(Relay):
    """A relay that drops a PostgreSQL client's queries, so that the client waits for ever."""

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        del is_answer
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                if not piece.startswith(b"Q"):
                    sink.sendall(piece)


@dataclass(kw_only=True)
class Watched:
    """The servers, and checks of them with settings that a test has changed."""

    broker: RedisProcess
    cache: RedisProcess
    postgres: PostgresProcess
    ollama: OllamaProcess
    qdrant: QdrantProcess
    llm: LlmProcess
    loop: LoopThread = field(default_factory=lambda: LoopThread("checks"))

    def settings(self, monitoring: dict[str, Any], changes: dict[str, Any]) -> MonitoringSettings:
        """Return settings of healthy servers, with changes."""
        fragment = {"check_deadline": DEADLINE, "slow": NEVER, "cpu_sample": 0.01} | monitoring
        healthy = {
            "broker_url": self.broker.url,
            "cache_url": self.cache.url,
            "postgres_dsn": self.postgres.dsn,
            "qdrant": {"url": self.qdrant.url, "api_key": QDRANT_KEY},
            "embeddings": {"backends": {"main": backend(self.ollama.url)}},
            "llm": {"endpoints": {"main": endpoint(self.llm.url)}},
        }
        return MonitoringSettings.model_validate(healthy | changes | {"monitoring": fragment})

    def check(self, monitoring: dict[str, Any] | None = None, **changes: Any) -> Any:
        """Check the servers once, verify that the report contains no secret, and return it."""
        settings = self.settings(monitoring or {}, changes)
        report = HealthReporter(settings, Machine(settings.monitoring), self.loop).report()
        assert not [secret for secret in SECRETS if secret in json.dumps(report)]
        return report


def backend(*urls: str, kind: str = "ollama", api_key: str = OLLAMA_KEY) -> dict[str, Any]:
    """Return settings of an embedding backend."""
    return {"kind": kind, "urls": list(urls), "api_key": api_key}


def endpoint(url: str, *, style: str = "openai", api_key: str = LLM_KEY) -> dict[str, Any]:
    """Return settings of an LLM endpoint."""
    return {"url": url, "style": style, "model": "tiny-llm", "api_key": api_key}


def closed_url(scheme: str = "http") -> str:
    """Return the URL of a port that nobody listens on."""
    return f"{scheme}://127.0.0.1:{free_port()}"


def problems(report: Any) -> dict[str, str]:
    """Return the details of the services that are not up."""
    return {name: each["detail"] for name, each in report["services"].items() if each["status"] != "up"}


def open_files() -> int:
    """Return the number of file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def active_threads() -> int:
    """Return the number of threads of this process."""
    return threading.active_count()
