"""One health check: all probes at once, each evaluated, all within one deadline."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from citadel_common.deadline import Deadline
from citadel_contracts.monitoring import ServiceReport, ServiceStatus
from citadel_monitoring.health.dependencies import Dependency

log = structlog.get_logger(__name__)
T = TypeVar("T")
_EMBEDDED = "Qdrant is embedded in the orchestration worker: no server is configured"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a check in seconds: its deadline, and the time from which an answer counts as slow."""

    deadline: float
    slow: float


class HealthCheck:
    """Checks of all dependencies, for one event loop.

    A probe that is still waiting at the deadline is cancelled, and ends by itself.
    """

    def __init__(self, dependencies: Sequence[Dependency], limits: Limits) -> None:
        self._dependencies = dependencies
        self._limits = limits
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self) -> dict[str, ServiceReport]:
        """Return a report per service, always including `qdrant`, within the deadline."""
        deadline = Deadline.after(self._limits.deadline)
        reports = await asyncio.gather(*(self._examine(each, deadline) for each in self._dependencies))
        found = {each.name: report for each, report in zip(self._dependencies, reports, strict=True)}
        return found if "qdrant" in found else found | {"qdrant": _embedded()}

    async def _examine(self, dependency: Dependency, deadline: Deadline) -> ServiceReport:
        """Wait for the probe; from half of the time on, also test whether the server accepts connections."""
        started = time.monotonic()
        probe = self._start(dependency.probe(self._limits.deadline))
        await asyncio.wait({probe}, timeout=deadline.remaining / 2)
        if not probe.done():
            connecting = self._start(dependency.address.accepts())
            await asyncio.wait({probe}, timeout=max(0.0, deadline.remaining))
            accepts = connecting.done() and _outcome(connecting) is True
            connecting.cancel()
            if not probe.done():
                probe.cancel()
                return self._report(dependency, "down", _silence(self._limits.deadline, accepts=accepts))
        return self._evaluated(dependency, _outcome(probe), time.monotonic() - started)

    def _evaluated(self, dependency: Dependency, problem: object, seconds: float) -> ServiceReport:
        if isinstance(problem, Exception):
            log.error("check_crashed", service=dependency.name, error=type(problem).__name__)
            return self._report(dependency, "down", f"could not be checked: {type(problem).__name__}")
        if problem is not None:
            return self._report(dependency, "down", _hidden(str(problem), dependency.secrets))
        if seconds >= self._limits.slow:
            text = f"answers slowly: it took {seconds:.3g} s, and {self._limits.slow:.3g} s is the limit"
            return self._report(dependency, "slow", text, seconds)
        return self._report(dependency, "up", "answers", seconds)

    def _report(
        self, dependency: Dependency, status: ServiceStatus, text: str, seconds: float | None = None
    ) -> ServiceReport:
        return {
            "status": status,
            "latency_ms": None if seconds is None else round(seconds * 1000, 3),
            "required": dependency.required,
            "detail": f"{dependency.label} {text}",
        }

    def _start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a task and keep a reference until it ends: the event loop only keeps a weak one."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        _outcome(task)  # else asyncio logs the exception of a task that nobody waited for


def _outcome(task: "asyncio.Task[Any]") -> object:
    """Return what a finished task returned or raised; TimeoutError if it was cancelled."""
    if task.cancelled():
        return TimeoutError()
    return task.exception() or task.result()


def _silence(seconds: float, *, accepts: bool) -> str:
    if accepts:
        return f"accepts connections and does not answer within {seconds:.3g} s"
    return f"is not reachable: no connection within {seconds:.3g} s"


def _hidden(text: str, secrets: Sequence[str]) -> str:
    """Return the text with stars for secrets; some servers repeat what they were sent."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _embedded() -> ServiceReport:
    return {"status": "embedded", "latency_ms": None, "required": False, "detail": _EMBEDDED}
