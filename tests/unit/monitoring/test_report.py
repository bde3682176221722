"""The overall state, from the states of the services."""

import pytest

from citadel_monitoring.health.report import overall_status, store_health

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
def test_the_overall_state_depends_on_required_groups(services, status):
    assert overall_status(services) == status


@pytest.mark.parametrize("status", ["up", "slow", "embedded"])
def test_stores_that_answer_are_healthy(status):
    assert store_health(ALL_UP | {"qdrant": status, "cache": "slow"}) == {
        "redis": True, "qdrant": True, "postgres": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key"),
    [("broker", "redis"), ("results", "redis"), ("cache", "redis"), ("qdrant", "qdrant"), ("postgres", "postgres")],
)
def test_a_store_that_is_down_is_unhealthy(name, key):
    health = store_health(ALL_UP | {name: "down"})
    assert [key] == [each for each, healthy in health.items() if not healthy]
