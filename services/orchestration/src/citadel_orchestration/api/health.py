"""Health: each dependency asked at the same time, within one deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from citadel_common.contracts import Queue
from citadel_common.contracts.api import ComponentHealth, HealthResponse
from citadel_common.embeddings import catalog
from citadel_common.redis import redacted
from citadel_common.settings import CommonSettings
from citadel_orchestration.api.fleet import Fleet

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEADLINE = 2.0
"""Seconds within which a dependency must answer."""
READY_FRESH = 1.0
"""Seconds for which readiness is remembered."""
VERSION = version("citadel-orchestration")


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


class Health:
    """Asks the broker, the results store, the cache, and whether somebody embeds."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._ready: tuple[float, dict[str, ComponentHealth]] = (float("-inf"), {})
        self._lock = asyncio.Lock()

    async def report(self) -> HealthResponse:
        """The state of everything."""
        components = await self._ask(list(self._probes))
        down = [component for component in components.values() if component.status == "down"]
        status: Literal["ok", "degraded", "down"] = "ok"
        if down:
            status = "down" if any(component.required for component in down) else "degraded"
        return HealthResponse(status=status, version=VERSION, components=components)

    async def stores_down(self) -> dict[str, str]:
        """The stores without which nothing can be accepted and that do not answer: name → what is wrong."""
        async with self._lock:
            if time.monotonic() - self._ready[0] > READY_FRESH:
                self._ready = (time.monotonic(), await self._ask(["broker", "results"]))
        return {name: state.detail or "" for name, state in self._ready[1].items() if state.status == "down"}

    async def _ask(self, names: list[str]) -> dict[str, ComponentHealth]:
        answers = await asyncio.gather(*(_answer(self._probes[name]) for name in names))
        return dict(zip(names, answers, strict=True))


async def _answer(probe: Probe) -> ComponentHealth:
    started = time.perf_counter()
    detail: str | None = None
    try:
        async with asyncio.timeout(DEADLINE):
            await probe.ask()
    except TimeoutError:
        detail = f"{probe.failing}: no answer within {DEADLINE:.0f} s"
    except Unhealthy as error:
        detail = str(error)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the dependency's state)
        detail = f"{probe.failing}: {type(error).__name__}"
    latency = round((time.perf_counter() - started) * 1000, 2)
    return ComponentHealth(
        status="down" if detail else "up", required=probe.required, latency_ms=latency, detail=detail
    )


def probes(
    settings: CommonSettings, *, broker: "Redis", results: "Redis", cache: "Redis", fleet: Fleet
) -> dict[str, Probe]:
    """The dependencies of the API."""
    return {
        "broker": _store(broker, redacted(settings.broker_url), required=True),
        "results": _store(results, redacted(settings.results), required=True),
        "cache": _store(cache, redacted(settings.cache_store), required=False),
        "embedding_workers": Probe(
            ask=lambda: _some_worker(fleet), required=True, failing="the broker does not tell of workers"
        ),
        "embedding_models": Probe(
            ask=lambda: _some_model(results), required=True, failing="the results store does not tell of models"
        ),
    }


def _store(client: "Redis", url: str, *, required: bool) -> Probe:
    return Probe(ask=client.ping, required=required, failing=f"{url} does not answer")


async def _some_worker(fleet: Fleet) -> None:
    if not await fleet.count_live(Queue.EMBEDDINGS):
        raise Unhealthy("no live worker serves the embeddings queue; start one")


async def _some_model(results: "Redis") -> None:
    if not await results.exists(catalog.KEY):
        raise Unhealthy("no worker has published models lately: its embedding backends do not answer, or none runs")
