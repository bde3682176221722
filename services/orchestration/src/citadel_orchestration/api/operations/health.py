"""Health of the API's dependencies: probed in parallel, within one deadline, remembered for a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from citadel_common.embeddings import catalog
from citadel_common.errors import CitadelError
from citadel_common.stores.postgres_target import shown
from citadel_common.stores.redis import redacted
from citadel_contracts import Queue
from citadel_contracts.api import ComponentHealth, HealthResponse
from citadel_orchestration.api.operations.broker import BrokerInspector
from citadel_orchestration.settings import EngineSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEADLINE = 2.0
"""Seconds that a dependency may take to answer."""
FRESH = 1.0
"""Seconds that an answer is remembered, so that frequent requests cost nothing."""
STORES = ("broker", "results", "postgres")
"""Dependencies without which no request can be accepted."""
VERSION = version("citadel-orchestration")

UNCHECKED = ComponentHealth(
    status="unknown", required=False, detail="not checked yet, or not lately: a monitoring worker does that"
)

HealthReader = Callable[[], Awaitable[Mapping[str, ComponentHealth]]]


class Unhealthy(Exception):
    """A dependency answers and is not well; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Probe of one dependency.

    Attributes:
        ask: Returns when the dependency is well, raises otherwise; a text that it returns is shown.
        required: Whether requests fail without the dependency.
        failing: Message for a dependency that does not answer.
    """

    ask: Callable[[], Awaitable[object]]
    required: bool
    failing: str


class CachedProbe:
    """Probe that remembers its last answer; concurrent callers share one probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._lock = asyncio.Lock()
        self._answer: ComponentHealth | None = None
        self._answered_at = float("-inf")

    async def state(self) -> ComponentHealth:
        """Return the dependency's state, at most `FRESH` seconds old."""
        async with self._lock:
            if self._answer is None or time.monotonic() - self._answered_at > FRESH:
                self._answer = await _answer(self._probe)
                self._answered_at = time.monotonic()
            return self._answer


class Health:
    """Health of all dependencies: probed here, or checked by the monitoring worker.

    Args:
        probes: Probes by name of the dependency.
        monitored: Reads the health of dependencies that have no probe here.
        configured: Names of the dependencies that the monitoring worker checks, as far as this process knows them.
    """

    def __init__(self, probes: Mapping[str, Probe], monitored: HealthReader, configured: Iterable[str] = ()) -> None:
        self._unchecked = dict.fromkeys(configured, UNCHECKED)
        self._probes = {name: CachedProbe(probe) for name, probe in probes.items()}
        self._monitored = monitored

    async def report(self) -> HealthResponse:
        """Return the state of all dependencies: `down` if a required one is, `degraded` if an optional one is."""
        components = await self._ask(tuple(self._probes))
        components = {**self._unchecked, **await self._monitored(), **components}
        down = [component for component in components.values() if component.status == "down"]
        status: Literal["ok", "degraded", "down"] = "ok"
        if down:
            status = "down" if any(component.required for component in down) else "degraded"
        return HealthResponse(status=status, version=VERSION, components=components)

    async def stores_down(self) -> dict[str, str]:
        """Return the required stores that do not answer: name → what is wrong."""
        states = await self._ask(STORES)
        return {name: state.detail or "" for name, state in states.items() if state.status == "down"}

    async def _ask(self, names: tuple[str, ...]) -> dict[str, ComponentHealth]:
        answers = await asyncio.gather(*(self._probes[name].state() for name in names))
        return dict(zip(names, answers, strict=True))


async def _answer(probe: Probe) -> ComponentHealth:
    started = time.perf_counter()
    detail: str | None = None
    said: object = None
    try:
        async with asyncio.timeout(DEADLINE):
            said = await probe.ask()
    except TimeoutError:
        detail = f"{probe.failing}: no answer within {DEADLINE:.0f} s"
    except (Unhealthy, CitadelError) as error:
        detail = str(error)
    except Exception as error:  # noqa: BLE001  (any failure is the dependency's state)
        detail = f"{probe.failing}: {type(error).__name__}"
    latency = round((time.perf_counter() - started) * 1000, 2)
    shown = detail or (said if isinstance(said, str) else None)
    return ComponentHealth(status="down" if detail else "up", required=probe.required, latency_ms=latency, detail=shown)


def probes(
    settings: EngineSettings,
    *,
    broker: "Redis",
    results: "Redis",
    cache: "Redis",
    inspector: BrokerInspector,
    postgres: Callable[[], Awaitable[None]],
    storage: Callable[[], Awaitable[str]],
) -> dict[str, Probe]:
    """Return the probes of the API's dependencies.

    A dependency is required if without it a request cannot be accepted, or an accepted one cannot finish: all stores
    except the cache, workers of the embeddings and orchestration queues, and a backend that has models.
    """
    return {
        "broker": _store(broker, redacted(settings.broker_url), required=True),
        "results": _store(results, redacted(settings.results), required=True),
        "cache": _store(cache, redacted(settings.cache_store), required=False),
        "postgres": Probe(ask=postgres, required=True, failing=f"{shown(settings.postgres_dsn)} does not answer"),
        "storage": Probe(ask=storage, required=False, failing="the bytes in PostgreSQL are not known"),
        "embedding_workers": _workers(inspector, Queue.EMBEDDINGS, required=True),
        "orchestration_workers": _workers(inspector, Queue.ORCHESTRATION, required=True),
        "monitoring_workers": _workers(inspector, Queue.MONITORING, required=False),
        "maintenance_workers": _workers(inspector, Queue.MAINTENANCE, required=False),
        "embedding_models": Probe(
            ask=lambda: _check_models(results), required=True, failing="the results store does not answer"
        ),
    }


def configured(settings: EngineSettings) -> list[str]:
    """Return the names of the dependencies that the monitoring worker checks and this process knows of."""
    return ["qdrant", *(f"llm/{name}" for name in settings.llm.endpoints)]


def _store(client: "Redis", url: str, *, required: bool) -> Probe:
    return Probe(ask=client.ping, required=required, failing=f"{url} does not answer")


def _workers(inspector: BrokerInspector, queue: Queue, *, required: bool) -> Probe:
    return Probe(ask=lambda: _check_workers(inspector, queue), required=required, failing="the broker does not answer")


async def _check_workers(inspector: BrokerInspector, queue: Queue) -> None:
    if not await inspector.count_live(queue):
        raise Unhealthy(f"no live worker serves the {queue.value} queue; start one")


async def _check_models(results: "Redis") -> None:
    if not await results.exists(catalog.KEY):
        raise Unhealthy("no embeddings worker publishes models: none runs, or its backends do not answer")
