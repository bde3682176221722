"""Delays that a Qdrant, or a proxy before it, asks for."""

import asyncio
import time
from email.utils import formatdate

import httpx
import pytest

from citadel_common.errors import VectorStoreUnavailable
from tests.unit.orchestration.vectors.test_fuzzed_answers import store_of


def refused(**headers):
    """Return the error of a search that is answered with 429."""
    body = {"status": {"error": "Rate limiting exceeded"}, "time": 0.0}
    transport = httpx.MockTransport(lambda _: httpx.Response(429, json=body, headers=headers))

    async def search():
        store = await store_of(transport)
        with pytest.raises(VectorStoreUnavailable) as caught:
            await store.search("docs", [1.0, 0.0])
        await store.aclose()
        return caught.value

    return asyncio.run(search())


@pytest.mark.parametrize(("header", "seconds"), [("3", 3), ("1.5", 2), ("0", 0), ("-5", 0), ("1e9", 86_400)])
def test_a_delay_is_passed_on_in_whole_seconds(header, seconds):
    assert refused(**{"Retry-After": header}).retry_after == seconds


def test_a_date_is_a_delay():
    error = refused(**{"Retry-After": formatdate(time.time() + 60, usegmt=True)})
    assert 50 < error.retry_after <= 60


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}])
def test_without_a_delay_the_refusal_still_tells_its_cause(headers):
    error = refused(**headers)
    assert error.retry_after is None
    assert "status 429: Rate limiting exceeded" in error.message
