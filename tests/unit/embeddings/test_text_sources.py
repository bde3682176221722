"""Sources of texts in the worker's metric: each text is counted once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citadel_common.deadline import Deadline
from citadel_common.telemetry.prometheus import PrometheusMetrics
from citadel_embeddings.engine import EmbedRequest
from tests.support.engine import MODEL, FakeCache, World
from tests.support.virtual_time import run_virtually

SOURCES = ("cache", "shared", "backend", "error")
texts_of = st.lists(st.builds("{} {}".format, st.sampled_from(["good", "rejected"]), st.integers(0, 6)), min_size=1)
requests_of = st.builds(EmbedRequest, text=texts_of, model=st.just(MODEL), cache_enabled=st.booleans())


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


def world(**options):
    """A world that counts, and its counts."""
    metrics = PrometheusMetrics()
    return World(metrics=metrics, **options), metrics


def counted(metrics):
    counts = {name: metrics.registry.get_sample_value("citadel_texts_total", {"source": name}) for name in SOURCES}
    return {name: value for name, value in counts.items() if value}


def request(*texts, cached=True):
    return EmbedRequest(text=list(texts), model=MODEL, cache_enabled=cached)


async def together(*calls):
    """Requests to engines, all at once."""
    return await asyncio.gather(*(found.engine.embed(each, Deadline.after(100)) for found, each in calls))


async def in_one_call(found, requests):
    """Requests that travel together."""
    return await found.engine.embed_all(requests, Deadline.after(100))


@pytest.mark.parametrize("cached", [True, False])
def test_a_request_that_joins_a_computation_shares_it(cached):
    one, metrics = world()
    first, second = request("good 1", "good 2", cached=cached), request("good 2", "good 3", cached=cached)
    run_virtually(together((one, first), (one, second)))
    assert counted(metrics) == {"backend": 3, "shared": 1}


def test_a_vector_that_another_process_computes_is_shared():
    cache = FakeCache()
    (one, first), (two, second) = world(cache=cache), world(cache=cache)
    run_virtually(together((one, request("good 1")), (two, request("good 1", "good 2"))))
    assert counted(first) == {"backend": 1}
    assert counted(second) == {"backend": 1, "shared": 1}
    assert sum(one.backend.computed.values()) + sum(two.backend.computed.values()) == 2


def test_cached_texts_come_from_the_cache():
    one, metrics = world()

    async def one_after_another():
        await together((one, request("good 1")))
        await together((one, request("good 1", "good 1", "good 2")))

    run_virtually(one_after_another())
    assert counted(metrics) == {"backend": 2, "cache": 2}


def test_the_same_text_twice_in_a_request_is_computed_once_and_shared():
    one, metrics = world()
    run_virtually(together((one, request("good 1", "good 1", "good 1", "rejected 1", "rejected 1"))))
    assert counted(metrics) == {"backend": 1, "shared": 2, "error": 2}


def test_requests_that_travel_together_share_a_computed_text():
    one, metrics = world()
    both = [request("good 1", "good 2"), request("good 2")]
    run_virtually(in_one_call(one, both))
    assert counted(metrics) == {"backend": 2, "shared": 1}


def test_an_uncached_request_computes_its_texts_for_itself():
    one, metrics = world()
    both = [request("good 1"), request("good 1", cached=False)]
    run_virtually(in_one_call(one, both))
    assert counted(metrics) == {"backend": 2}


@given(st.lists(st.lists(requests_of, min_size=1, max_size=4), min_size=1, max_size=3))
@settings(max_examples=60)
def test_every_text_is_counted_once_and_the_backends_count_is_what_it_computed(groups):
    one, metrics = world()

    async def group_after_group():
        for group in groups:
            await together(*((one, each) for each in group))

    run_virtually(group_after_group())
    counts = counted(metrics)
    assert sum(counts.values()) == sum(len(each.text) for group in groups for each in group)
    assert counts.get("backend", 0) == sum(one.backend.computed.values())
