"""What the states of services mean for the whole."""

import pytest

from citadel_monitoring.health.rule import overall, seed_health

ALL_UP = {"broker": "up", "results": "up", "cache": "up", "postgres": "up", "qdrant": "up"}


@pytest.mark.parametrize(
    ("services", "status"),
    [
        ([], "ok"),
        ([("broker", True, "up"), ("cache", False, "up")], "ok"),
        ([("broker", True, "down"), ("cache", False, "up")], "down"),
        ([("broker", True, "slow")], "degraded"),
        ([("cache", False, "down")], "degraded"),
        ([("llm/a", False, "down"), ("llm/b", False, "up")], "degraded"),
        ([("llm/a", False, "slow")], "degraded"),
        ([("embeddings/a", True, "down"), ("embeddings/a", True, "up")], "degraded"),
        ([("embeddings/a", True, "down"), ("embeddings/a", True, "slow")], "degraded"),
        ([("embeddings/a", True, "down"), ("embeddings/a", True, "down")], "down"),
        ([("embeddings/a", True, "down"), ("embeddings/b", True, "up")], "down"),
    ],
)
def test_the_whole(services, status):
    assert overall(services) == status


@pytest.mark.parametrize("status", ["up", "slow", "embedded"])
def test_what_answers_is_healthy(status):
    assert seed_health(ALL_UP | {"qdrant": status, "cache": "slow"}) == {
        "redis": True, "qdrant": True, "postgres": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key"),
    [("broker", "redis"), ("results", "redis"), ("cache", "redis"), ("qdrant", "qdrant"), ("postgres", "postgres")],
)
def test_what_is_down_is_not(name, key):
    health = seed_health(ALL_UP | {name: "down"})
    assert [key] == [each for each, well in health.items() if not well]
