"""The vectors that the API keeps in memory: bounded by bytes and by age."""

import pytest

from citadel_orchestration.api.embeddings import memory_cache
from citadel_orchestration.api.embeddings.memory_cache import HotCache
from citadel_orchestration.api.embeddings.responses import Piece

PIECE = Piece(b"x" * 700, truncated=False)


def test_the_least_recently_used_go_first() -> None:
    cache = HotCache(max_bytes=3100, ttl=60)
    for name in "abc":
        cache.put(name, PIECE)
    assert cache.get("a") == PIECE
    cache.put("d", PIECE)
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_replacing_counts_once() -> None:
    cache = HotCache(max_bytes=2100, ttl=60)
    for _ in range(10):
        cache.put("a", PIECE)
    cache.put("b", PIECE)
    assert cache.get("a") == cache.get("b") == PIECE


def test_what_is_larger_than_all_is_not_kept() -> None:
    for size in (0, 500):
        cache = HotCache(max_bytes=size, ttl=60)
        cache.put("a", PIECE)
        assert cache.get("a") is None


def test_entries_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(memory_cache.time, "monotonic", lambda: now)
    cache = HotCache(max_bytes=10_000, ttl=60)
    cache.put("a", PIECE)
    now += 59
    assert cache.get("a") == PIECE
    now += 2
    assert cache.get("a") is None
