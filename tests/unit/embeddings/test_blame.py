"""A server that fails at one text: the text gets its error, the server and everybody else go on."""

import asyncio

import numpy as np
import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import TextRejected
from citadel_common.telemetry.prometheus import PrometheusMetrics
from citadel_embeddings.engine import EmbedRequest
from tests.support.engine import MODEL, SECONDS, World, vector_of
from tests.support.virtual_time import CLOCK, run_virtually

NEVER = "failing 1000000 x"


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


def request(*texts):
    return EmbedRequest(text=list(texts), model=MODEL)


def together(world, *requests, seconds=1500.0):
    """Responses to requests that run at once, each with the seconds after which it came."""

    async def timed(each):
        begin = CLOCK.monotonic()
        return await world.engine.embed(each, Deadline.after(seconds)), CLOCK.monotonic() - begin

    async def everything():
        return await asyncio.gather(*(timed(each) for each in requests))

    return run_virtually(everything())


def assert_good(response, texts):
    assert response.errors == {}
    assert np.array_equal(response.vectors, [vector_of(text) for text in texts])


def openings(metrics):
    value = metrics.registry.get_sample_value("citadel_breaker_changes_total", {"backend": "fake", "state": "open"})
    return value or 0.0


def test_a_text_at_which_the_server_fails_gets_its_own_error_and_its_neighbours_their_vectors():
    world, texts = World(), [f"good {n}" for n in range(20)]
    [(response, _)] = together(world, request(*texts, NEVER))
    assert list(response.errors) == [20]
    assert isinstance(response.errors[20], TextRejected)
    assert np.array_equal(response.vectors[:20], [vector_of(text) for text in texts])


def test_failing_texts_of_one_caller_open_no_breaker_and_shrink_no_limit():
    metrics = PrometheusMetrics()
    world = World(metrics=metrics, concurrency=4)
    before = world.pool.concurrency
    together(world, request(*(f"failing 1000000 {n}" for n in range(60))))
    assert openings(metrics) == 0
    assert world.pool.concurrency >= before


def test_another_callers_texts_do_not_wait_behind_failing_ones():
    world, texts = World(concurrency=2), [f"good {n}" for n in range(8)]
    _, (response, seconds) = together(world, request(*(f"failing 1000000 {n}" for n in range(40))), request(*texts))
    assert_good(response, texts)
    assert seconds < 100 * SECONDS


def test_a_text_for_which_a_server_says_that_it_is_busy_may_be_tried_again_later():
    world = World()
    [(response, _)] = together(world, request("good 1", "busy 1000000 x"))
    assert list(response.errors) == [1]
    assert (response.errors[1].code, response.errors[1].retryable) == ("backend_unavailable", True)


def test_a_server_that_fails_at_every_text_is_waited_for():
    world, texts = World(), ["good 1", "good 2"]

    async def outage():
        world.backend.failing = True
        call = asyncio.ensure_future(world.engine.embed(request(*texts), Deadline.after(100)))
        await asyncio.sleep(10)
        world.backend.failing = False
        return await call

    assert_good(run_virtually(outage()), texts)


class TestCrashes:
    def test_a_text_that_ends_servers_does_so_twice_at_most(self):
        world, texts = World(urls=3), [f"good {n}" for n in range(30)]
        (response, _), (other, _) = together(world, request("crash 1000 x", *texts), request(*texts, "good 99"))
        assert len(world.backend.crashes) == 2
        assert isinstance(response.errors.pop(0), TextRejected)
        assert response.errors == {}
        assert_good(other, [*texts, "good 99"])

    def test_the_last_server_is_not_risked_while_another_may_return(self):
        world = World(urls=2)
        [(response, _)] = together(world, request("crash 3 x", "good 1"))
        assert set(response.errors) == {0}
        assert len(set(world.backend.crashes)) == 1

    def test_a_server_that_never_returns_costs_no_text(self):
        world, texts = World(urls=2, concurrency=4), [f"good {n}" for n in range(60)]
        first = "http://server0"

        async def killed():
            call = asyncio.ensure_future(world.engine.embed(request(*texts), Deadline.after(1500)))
            await asyncio.sleep(SECONDS / 2)
            world.backend.down_until[first] = float("inf")
            return await call

        assert_good(run_virtually(killed()), texts)

    def test_the_only_server_may_end_twice_and_everybody_else_is_served_when_it_returns(self):
        world, texts = World(urls=1), [f"good {n}" for n in range(20)]
        (response, _), (other, _) = together(world, request(*texts, "crash 2 x"), request("good 77"))
        assert list(response.errors) == [20]
        assert len(world.backend.crashes) == 2
        assert_good(other, ["good 77"])
