"""Health: each dependency asked at the same time, within one deadline, and remembered for a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from citadel_common.embeddings import catalog
from citadel_common.errors import CitadelError
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import redacted
from citadel_contracts import Queue
from citadel_contracts.api import ComponentHealth, HealthResponse
from citadel_orchestration.api.operations.broker import Fleet

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEADLINE = 2.0
"""Seconds within which a dependency must answer."""
FRESH = 1.0
"""Seconds for which an answer is remembered, so that probes cost nothing."""
STORES = ("broker", "results", "postgres")
"""Without one of these nothing can be accepted."""
VERSION = version("citadel-orchestration")

Told = Callable[[], Awaitable[Mapping[str, ComponentHealth]]]


class Unhealthy(Exception):
    """A dependency answers, but not as it should; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How one dependency is asked.

    Attributes:
        ask: Returns when it is well; raises otherwise.
        required: Whether requests fail without it.
        failing: What to say when it does not answer.
    """

    ask: Callable[[], Awaitable[object]]
    required: bool
    failing: str


class Watched:
    """A dependency and its last answer; those who ask at the same time share one probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._lock = asyncio.Lock()
        self._answer: ComponentHealth | None = None
        self._answered_at = float("-inf")

    async def state(self) -> ComponentHealth:
        """How it is, or was a moment ago."""
        async with self._lock:
            if self._answer is None or time.monotonic() - self._answered_at > FRESH:
                self._answer = await _answer(self._probe)
                self._answered_at = time.monotonic()
            return self._answer


class Health:
    """Asks the stores and for workers, and repeats what the monitoring worker has found of everything else.

    Args:
        probes: What is asked here.
        told: Tells of the rest.
    """

    def __init__(self, probes: Mapping[str, Probe], told: Told) -> None:
        self._watched = {name: Watched(probe) for name, probe in probes.items()}
        self._told = told

    async def report(self) -> HealthResponse:
        """The state of everything: `down` when something required is, `degraded` when something optional is."""
        components = await self._ask(tuple(self._watched))
        components |= {name: found for name, found in (await self._told()).items() if name not in components}
        down = [component for component in components.values() if component.status == "down"]
        status: Literal["ok", "degraded", "down"] = "ok"
        if down:
            status = "down" if any(component.required for component in down) else "degraded"
        return HealthResponse(status=status, version=VERSION, components=components)

    async def stores_down(self) -> dict[str, str]:
        """The stores without which nothing can be accepted and that do not answer: name → what is wrong."""
        states = await self._ask(STORES)
        return {name: state.detail or "" for name, state in states.items() if state.status == "down"}

    async def _ask(self, names: tuple[str, ...]) -> dict[str, ComponentHealth]:
        answers = await asyncio.gather(*(self._watched[name].state() for name in names))
        return dict(zip(names, answers, strict=True))


async def _answer(probe: Probe) -> ComponentHealth:
    started = time.perf_counter()
    detail: str | None = None
    try:
        async with asyncio.timeout(DEADLINE):
            await probe.ask()
    except TimeoutError:
        detail = f"{probe.failing}: no answer within {DEADLINE:.0f} s"
    except (Unhealthy, CitadelError) as error:
        detail = str(error)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the dependency's state)
        detail = f"{probe.failing}: {type(error).__name__}"
    latency = round((time.perf_counter() - started) * 1000, 2)
    return ComponentHealth(
        status="down" if detail else "up", required=probe.required, latency_ms=latency, detail=detail
    )


def probes(
    settings: CommonSettings,
    *,
    broker: "Redis",
    results: "Redis",
    cache: "Redis",
    fleet: Fleet,
    postgres: Callable[[], Awaitable[None]],
    postgres_url: str,
) -> dict[str, Probe]:
    """The dependencies of the API.

    Required are those without which a request cannot be accepted or what was accepted does not finish: the stores
    but for the cache, workers of both queues that carry requests, and a backend that has models.
    """
    return {
        "broker": _store(broker, redacted(settings.broker_url), required=True),
        "results": _store(results, redacted(settings.results), required=True),
        "cache": _store(cache, redacted(settings.cache_store), required=False),
        "postgres": Probe(ask=postgres, required=True, failing=f"{postgres_url} does not answer"),
        "embedding_workers": _workers(fleet, Queue.EMBEDDINGS, required=True),
        "orchestration_workers": _workers(fleet, Queue.ORCHESTRATION, required=True),
        "monitoring_workers": _workers(fleet, Queue.MONITORING, required=False),
        "maintenance_workers": _workers(fleet, Queue.MAINTENANCE, required=False),
        "embedding_models": Probe(
            ask=lambda: _some_model(results), required=True, failing="the results store does not tell of models"
        ),
    }


def _store(client: "Redis", url: str, *, required: bool) -> Probe:
    return Probe(ask=client.ping, required=required, failing=f"{url} does not answer")


def _workers(fleet: Fleet, queue: Queue, *, required: bool) -> Probe:
    return Probe(
        ask=lambda: _some_worker(fleet, queue), required=required, failing="the broker does not tell of workers"
    )


async def _some_worker(fleet: Fleet, queue: Queue) -> None:
    if not await fleet.count_live(queue):
        raise Unhealthy(f"no live worker serves the {queue.value} queue; start one")


async def _some_model(results: "Redis") -> None:
    if not await results.exists(catalog.KEY):
        raise Unhealthy("no worker has published models lately: its embedding backends do not answer, or none runs")
