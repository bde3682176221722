"""Vectors that the API keeps in memory: bounded by bytes and by age."""

import pytest

from citadel_orchestration.api.embeddings.responses import EncodedVector, MemoryCache

VECTOR = EncodedVector(b"x" * 700, truncated=False)


def test_the_least_recently_used_are_evicted_first() -> None:
    cache = MemoryCache(max_bytes=3100, ttl=60)
    for name in "abc":
        cache.put(name, VECTOR)
    assert cache.get("a") == VECTOR
    cache.put("d", VECTOR)
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_a_replaced_entry_counts_once() -> None:
    cache = MemoryCache(max_bytes=2100, ttl=60)
    for _ in range(10):
        cache.put("a", VECTOR)
    cache.put("b", VECTOR)
    assert cache.get("a") == cache.get("b") == VECTOR


@pytest.mark.parametrize("size", [0, 500])
def test_an_entry_larger_than_the_cache_is_not_kept(size: int) -> None:
    cache = MemoryCache(max_bytes=size, ttl=60)
    cache.put("a", VECTOR)
    assert cache.get("a") is None


def test_entries_expire() -> None:
    now = 1000.0
    cache = MemoryCache(max_bytes=10_000, ttl=60, clock=lambda: now)
    cache.put("a", VECTOR)
    now += 59
    assert cache.get("a") == VECTOR
    now += 2
    assert cache.get("a") is None
