"""The real worker, as a process."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.child import spawn
from tests.support.disclosure import DISCLOSURES
from tests.support.exports import exports
from tests.support.planted import BACKEND_KEY
from tests.support.polling import eventually

# Short times: periods of minutes in production are over in moments here.
FAST = {
    "WORKER__HEARTBEAT_INTERVAL": "0.2",
    "WORKER__DEAD_AFTER": "1.5",
    "WORKER__RETRY__BASE": "0.05",
    "WORKER__RETRY__CAP": "0.1",
    "CACHE__CLAIM_TTL": "0.5",
    "ACCEPTED__FIRST_LOOK": "0.5",
    "ACCEPTED__LEASE": "1",
    "EMBEDDINGS__REFRESH": "1",
    "EMBEDDINGS__BACKENDS__main__LONGEST_PAUSE": "0.1",
}
BACKEND = "EMBEDDINGS__BACKENDS__main__"


def environment(redis_url: str, urls: str | Iterable[str], **settings: Any) -> dict[str, str]:
    """Return the environment of a worker; `settings` are names without the `CITADEL_` prefix.

    Without a URL the settings say where Redis is.
    """
    return variables(backend_settings(redis_url, urls) | FAST | settings)


def backend_settings(redis_url: str, urls: str | Iterable[str]) -> dict[str, Any]:
    """Return the settings that say where Redis and the backend are."""
    listed = urls if isinstance(urls, str) else ",".join(urls)
    backend = {f"{BACKEND}KIND": "ollama", f"{BACKEND}URLS": listed, f"{BACKEND}API_KEY": BACKEND_KEY}
    return backend | ({"BROKER_URL": redis_url} if redis_url else {})


def variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment with these settings, names without the prefix, and no other of Citadel's.

    One that is also there as a file comes from the file.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")}
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return (
        inherited
        | threads
        | exports()
        | {f"CITADEL_{name}": str(value) for name, value in settings.items() if f"{name}_FILE" not in settings}
    )


class ServiceProcess:
    """`python -m <module>`; ready when the constructor returns, unless told not to wait."""

    def __init__(self, module: str, settings: Mapping[str, Any], *, wait: bool = True) -> None:
        self._output = tempfile.NamedTemporaryFile(prefix="citadel-worker-", suffix=".log")  # noqa: SIM115
        command = [sys.executable, "-m", module]
        self._module, self._metrics_port = module, settings.get("TELEMETRY__METRICS_PORT")
        DISCLOSURES.watch(module, Path(self._output.name))
        self._child = spawn(command, output=self._output.file, env=variables(settings))
        if wait:
            self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        try:
            self.wait_for("worker_ready")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def output(self) -> str:
        """The text of its log so far."""
        return Path(self._output.name).read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return its log lines with that event."""
        lines = (line for line in self.output.splitlines() if line.startswith("{"))
        return [event for event in map(_parsed, lines) if event.get("event") == name]

    def wait_for(self, event: str, *, times: int = 1) -> None:
        """Wait until it has logged an event."""
        try:
            eventually(lambda: len(self.events(event)) >= times or self.is_over)
        except AssertionError as error:
            raise AssertionError(f"no {event}: {error}; its output:\n{self.output}") from None
        assert len(self.events(event)) >= times, f"the worker ended: {self.output}"

    @property
    def is_over(self) -> bool:
        """True if it has ended."""
        return self._child.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """Kill it."""
        self.scrape_last()
        self._child.kill()
        self._child.wait()

    def terminate(self) -> int:
        """Stop it with SIGTERM; return its exit code."""
        self.scrape_last()
        self.signal(signal.SIGTERM)
        return self.wait()

    def scrape_last(self) -> None:
        """Search its metrics, if it serves any."""
        if self._metrics_port and not self.is_over:
            DISCLOSURES.scrape(self._module, f"http://127.0.0.1:{self._metrics_port}/metrics")

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for its end; return its exit code."""
        return self._child.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        print(self.output)  # pytest shows it beside a failure
        DISCLOSURES.end(Path(self._output.name))
        self._output.close()


class WorkerProcess(ServiceProcess):
    """`python -m citadel_embeddings`."""

    def __init__(self, redis_url: str, urls: str | Iterable[str] = (), *, wait: bool = True, **settings: Any) -> None:
        super().__init__("citadel_embeddings", backend_settings(redis_url, urls) | FAST | settings, wait=wait)


def _parsed(line: str) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:  # a line that is only half written
        return {}
    return event
