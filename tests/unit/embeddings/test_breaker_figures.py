"""What the metrics tell of breakers: each change, and how many keep calls away now."""

import asyncio

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import BackendUnavailable, TextRejected
from citadel_common.telemetry.prometheus import PrometheusMetrics
from citadel_embeddings.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE
from citadel_embeddings.endpoints import Endpoints
from tests.support.virtual_time import run_virtually

NONE = {"open": 0, "half_open": 0, "closed": 0}


class Backend:
    """The URLs of a backend, and what is told of them."""

    def __init__(self, *urls: str) -> None:
        self._metrics = PrometheusMetrics()
        self._endpoints = Endpoints(
            "main",
            list(urls),
            concurrency=4,
            max_concurrency=4,
            patience=60.0,
            longest_pause=LONGEST_PAUSE,
            metrics=self._metrics,
        )

    async def call(self, error: type[BaseException] | None = None, *, model: str = "m") -> None:
        """One call, which ends so."""
        deadline = Deadline.after(100)
        try:
            async with self._endpoints.call(model, tokens=1, texts=1, deadline=deadline, since=0.0, avoid=frozenset()):
                if error is not None:
                    raise error
        except (BackendUnavailable, TextRejected, asyncio.CancelledError):
            assert error is not None

    async def open(self, model: str = "m") -> None:
        """Calls that open a breaker."""
        for _ in range(FAILURES):
            await self.call(BackendUnavailable, model=model)

    @property
    def changes(self) -> dict[str, float]:
        """Changes by state."""
        return {state: self._told("citadel_breaker_changes_total", state=state) for state in NONE}

    @property
    def open_now(self) -> float:
        """The gauge."""
        return self._told("citadel_breakers_open")

    def _told(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(name, {"backend": "main", **labels}) or 0


@pytest.fixture
def backend(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Backend("http://one")


def test_a_probe_that_succeeds_closes(backend):
    async def course():
        await backend.open()
        assert (backend.changes, backend.open_now) == (NONE | {"open": 1}, 1)
        await asyncio.sleep(FIRST_PAUSE)
        assert (backend.changes, backend.open_now) == (NONE | {"open": 1}, 1)
        await backend.call()
        assert (backend.changes, backend.open_now) == ({"open": 1, "half_open": 1, "closed": 1}, 0)

    run_virtually(course())


def test_a_probe_that_fails_opens_again(backend):
    async def course():
        await backend.open()
        for _ in range(2):  # the second probe waits for the end of the longer pause
            await backend.call(BackendUnavailable)
        assert (backend.changes, backend.open_now) == ({"open": 3, "half_open": 2, "closed": 0}, 1)
        await backend.call(TextRejected)
        assert (backend.changes, backend.open_now) == ({"open": 3, "half_open": 3, "closed": 1}, 0)

    run_virtually(course())


def test_a_probe_that_is_given_up_leaves_it_half_open_for_the_next(backend):
    async def course():
        await backend.open()
        await backend.call(asyncio.CancelledError)
        assert (backend.changes, backend.open_now) == ({"open": 1, "half_open": 1, "closed": 0}, 1)
        await backend.call()
        assert (backend.changes, backend.open_now) == ({"open": 1, "half_open": 2, "closed": 1}, 0)

    run_virtually(course())


def test_calls_while_closed_change_nothing(backend):
    async def course():
        await backend.call()
        await backend.call(BackendUnavailable)
        await backend.call()

    run_virtually(course())
    assert (backend.changes, backend.open_now) == (NONE, 0)


def test_each_model_of_each_url_has_its_own():
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
