"""Metrics of breakers: each change, and how many keep calls away now."""

import asyncio
from typing import Any

import pytest

from citadel_common.breaker import FAILURES, FIRST_PAUSE
from citadel_common.deadline import Deadline
from citadel_common.errors import BackendUnavailable, TextRejected
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.telemetry.prometheus import PrometheusMetrics
from citadel_contracts import Lane
from citadel_embeddings.backends.base import EmbedCall, EmbedReply
from citadel_embeddings.endpoints.pool import EndpointPool
from citadel_embeddings.items import Batch, BatchKey, Item
from tests.support.virtual_time import CLOCK, run_virtually

NONE = {"open": 0, "half_open": 0, "closed": 0}


class FailingProtocol:
    """A backend whose next call ends with an error that the test sets."""

    kind = "fake"
    accepts_empty = False
    cuts = False
    error: type[BaseException] | None = None

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Fail as told, or answer."""
        del url, timeout
        if self.error is not None:
            raise self.error
        return EmbedReply(rows=[[1.0]] * len(call.texts))


class Backend:
    """The endpoints of a backend, and their metrics."""

    def __init__(self, *urls: str) -> None:
        self._metrics = PrometheusMetrics()
        self._protocol: Any = FailingProtocol()
        settings = BackendSettings(kind="openai", urls=list(urls))
        self._pool = EndpointPool(
            "main", self._protocol, settings, patience=60.0, metrics=self._metrics, clock=CLOCK.monotonic
        )

    async def call(self, error: type[BaseException] | None = None, *, model: str = "m") -> None:
        """Make one call, which ends with `error`."""
        self._protocol.error = error
        deadline = Deadline.after(100)
        future = asyncio.get_running_loop().create_future()
        item = Item("key", "text", Lane.STANDARD, deadline, future, since=CLOCK.now)
        key = BatchKey(backend="main", model=model, dimensions=1, own_dimensions=1, max_tokens=None, options=b"{}")
        slot = await self._pool.acquire(model, deadline, since=CLOCK.now)
        try:
            await self._pool.embed(slot, Batch(key=key, items=[item]), deadline)
        except (BackendUnavailable, TextRejected, asyncio.CancelledError):
            assert error is not None

    async def open(self, model: str = "m") -> None:
        """Make the calls that open a breaker."""
        for _ in range(FAILURES):
            await self.call(BackendUnavailable, model=model)

    @property
    def changes(self) -> dict[str, float]:
        """Changes by state."""
        return {state: self._sample("citadel_breaker_changes_total", state=state) for state in NONE}

    @property
    def open_now(self) -> float:
        """The gauge."""
        return self._sample("citadel_breakers_open")

    def _sample(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(name, {"backend": "main", **labels}) or 0


@pytest.fixture
def backend(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Backend("http://one")


def test_a_probe_that_succeeds_closes_the_breaker(backend):
    async def course():
        await backend.open()
        assert (backend.changes, backend.open_now) == (NONE | {"open": 1}, 1)
        await asyncio.sleep(FIRST_PAUSE)
        assert (backend.changes, backend.open_now) == (NONE | {"open": 1}, 1)
        await backend.call()
        assert (backend.changes, backend.open_now) == ({"open": 1, "half_open": 1, "closed": 1}, 0)

    run_virtually(course())


def test_a_probe_that_fails_opens_the_breaker_again(backend):
    async def course():
        await backend.open()
        for _ in range(2):  # the second probe waits for the end of the longer pause
            await backend.call(BackendUnavailable)
        assert (backend.changes, backend.open_now) == ({"open": 3, "half_open": 2, "closed": 0}, 1)
        await backend.call(TextRejected)
        assert (backend.changes, backend.open_now) == ({"open": 3, "half_open": 3, "closed": 1}, 0)

    run_virtually(course())


def test_an_abandoned_probe_leaves_the_breaker_half_open(backend):
    async def course():
        await backend.open()
        await backend.call(asyncio.CancelledError)
        assert (backend.changes, backend.open_now) == ({"open": 1, "half_open": 1, "closed": 0}, 1)
        await backend.call()
        assert (backend.changes, backend.open_now) == ({"open": 1, "half_open": 2, "closed": 1}, 0)

    run_virtually(course())


def test_calls_through_a_closed_breaker_change_nothing(backend):
    async def course():
        await backend.call()
        await backend.call(BackendUnavailable)
        await backend.call()

    run_virtually(course())
    assert (backend.changes, backend.open_now) == (NONE, 0)


def test_each_model_of_each_url_has_a_breaker_of_its_own():
    backend = Backend("http://one", "http://two")

    async def course():
        await backend.open("a")
        await backend.open("a")
        assert backend.open_now == 2
        await backend.open("b")
        await backend.open("b")
        assert backend.open_now == 4
        await asyncio.sleep(FIRST_PAUSE)
        await backend.call(model="a")
        assert backend.open_now == 3

    run_virtually(course())
