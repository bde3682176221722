"""Counts of cache lookups: hits, misses and errors add up to what was looked up, through an outage of the cache."""

import asyncio

import numpy as np
import pytest
from pydantic import SecretStr

from citadel_common.embeddings.cache import STATS_DELAY, EmbeddingCache
from citadel_common.embeddings.vectors import Stored
from citadel_common.settings.common import CacheSettings, StoreSettings
from citadel_common.stores.redis import connect_async
from citadel_common.telemetry import names

PATIENT, IMPATIENT = 60, 0.05
"""Seconds that a cache's client waits for an answer."""


class CacheCounts:
    """Metrics that adds up lookups by outcome and sets `failed` when a call of the cache failed."""

    def __init__(self):
        self.lookups = {}
        self.failed = asyncio.Event()

    def count(self, metric, amount, **labels):
        if metric is names.CACHE_FAILURES:
            self.failed.set()
        else:
            self.lookups[labels["outcome"]] = self.lookups.get(labels["outcome"], 0) + amount


@pytest.fixture
def workers():
    """No worker looks anything up."""


def open_cache(server, timeout):
    """Return a cache whose client waits `timeout` seconds, and its counts."""
    counts = CacheCounts()
    client = connect_async(SecretStr(server.url), StoreSettings(), timeout=timeout)
    return EmbeddingCache(client, CacheSettings(timeout=timeout), counts), counts


async def written(cache, **expected):
    """Wait until the fleet's statistics are the expected ones."""
    async with asyncio.timeout(60):
        while expected.items() - (await cache.stats()).items():  # noqa: ASYNC110 - another process changes them
            await asyncio.sleep(STATS_DELAY)


def test_lookups_are_hits_misses_or_errors(cache_server):
    async def look_up():
        reader, counts = open_cache(cache_server, PATIENT)
        await reader.put_many({"a": Stored(np.ones(3, np.float32), truncated=False)})
        await reader.get_many(["a", "b", "c"])
        impatient, failures = open_cache(cache_server, IMPATIENT)
        with cache_server.frozen():
            assert await impatient.get_many(["a", "b"]) == [None, None]
        await written(reader, hits=1, misses=2, errors=2)
        assert (counts.lookups, failures.lookups) == ({"hit": 1, "miss": 2}, {"error": 2})
        await impatient.aclose()
        await reader.aclose()

    asyncio.run(look_up())


def test_counts_that_a_cache_did_not_confirm_are_added_once(cache_server):
    """The frozen server runs the write that was given up, once it goes on."""

    async def write_during_an_outage():
        patient, _ = open_cache(cache_server, PATIENT)
        cache, counts = open_cache(cache_server, IMPATIENT)
        cache.count_hits(1)
        await written(patient, hits=1)
        counts.failed.clear()
        with cache_server.frozen():
            cache.count_hits(3)
            await counts.failed.wait()
            cache.count_hits(4)
        await written(patient, hits=8)
        await cache.aclose()
        assert (await patient.stats())["hits"] == 8
        await patient.aclose()

    asyncio.run(write_during_an_outage())
