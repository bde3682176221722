"""`cleanup_expired_cache`: which entries it removes, and its report."""

from typing import Any

import pytest
import redis

from citadel_common.embeddings.keys import NAMESPACE
from citadel_maintenance.cache.models import SEEN
from tests.integration.maintenance.conftest import Ask, asked
from tests.support.celery_client import PlainClient
from tests.support.maintenance import VECTOR, MaintenanceProcess, alive, cached, there
from tests.support.redis_server import RedisProcess

MANY = 20_000
LIVE, GONE = "nomic-embed-text@aaa", "old-model@bbb"
TASK = "cleanup_expired_cache"


@pytest.fixture(autouse=True)
def _empty(store: "redis.Redis") -> None:
    for key in store.scan_iter(f"{NAMESPACE}:*", count=5000):
        store.unlink(key)
    store.delete(SEEN)
    alive(store, LIVE)


def test_only_entries_of_removed_models_are_removed(store: "redis.Redis", ask: Ask) -> None:
    kept, gone = cached(store, LIVE, MANY // 2), cached(store, GONE, MANY // 2)
    foreign = ["queue", "celery-task-meta-x", f"{NAMESPACE}-of-another:1:{GONE}:own:0", "citadel:cache:stats"]
    for key in foreign:
        store.set(key, "theirs")

    foretold = ask(TASK, dry_run=True)
    assert there(store, gone) == MANY // 2
    report = ask(TASK)

    assert there(store, kept) == MANY // 2
    assert there(store, gone) == 0
    assert there(store, foreign) == len(foreign)
    assert report["success"] is report["finished"] is True
    assert report["removed"] == MANY // 2
    assert report["removed"] * len(VECTOR) <= report["bytes_freed"] <= report["removed"] * len(VECTOR) * 2
    assert foretold["dry_run"] is True
    assert entries_of(foretold) == entries_of(report)
    assert foretold["bytes_freed"] == pytest.approx(report["bytes_freed"], rel=0.01)  # sizes are sampled
    assert report["statistics"]["complete"] is True
    assert report["statistics"]["models"][LIVE]["entries"] == report["statistics"]["entries"] == MANY // 2
    store.delete(*foreign)


def entries_of(report: dict[str, Any]) -> tuple[int, dict[str, int], dict[str, int]]:
    """Return the counts of a report."""
    kinds, models = report["kinds"], report["statistics"]["models"]
    return (
        report["removed"],
        {name: kind["removed"] for name, kind in kinds.items()},
        {name: model["entries"] for name, model in models.items()},
    )


def test_entries_of_another_version_of_a_model_are_removed(store: "redis.Redis", ask: Ask) -> None:
    kept, gone = cached(store, LIVE, 10), cached(store, "nomic-embed-text@old", 10)
    ask(TASK)
    assert (there(store, kept), there(store, gone)) == (10, 0)


@pytest.mark.parametrize("catalogue", ["absent", "empty", "open"])
def test_nothing_is_removed_without_a_complete_catalogue(store: "redis.Redis", ask: Ask, catalogue: str) -> None:
    keys = cached(store, GONE, 10)
    if catalogue == "absent":
        store.delete("citadel:models")
    else:
        alive(store, *([LIVE] if catalogue == "open" else []), is_open=catalogue == "open")
    report = ask(TASK)
    assert there(store, keys) == 10
    assert report["removed"] == 0
    assert len(report["notes"]) == 1


def test_a_model_that_was_seen_recently_has_a_grace_period(store: "redis.Redis", ask: Ask) -> None:
    keys = cached(store, GONE, 10)
    alive(store, LIVE, GONE)
    ask(TASK)
    alive(store, LIVE)
    assert ask(TASK)["removed"] == 0
    store.hset(SEEN, GONE, 1.0)  # long ago
    assert ask(TASK)["removed"] == len(keys)


def test_the_default_model_stays_even_if_no_backend_has_it(store: "redis.Redis", ask: Ask) -> None:
    alive(store, "other@1")
    keys = cached(store, LIVE, 10)
    assert ask(TASK)["removed"] == 0
    assert there(store, keys) == 10


def test_older_schemas_are_removed_and_newer_ones_and_claims_stay(store: "redis.Redis", ask: Ask) -> None:
    names = {
        "old": f"{NAMESPACE}:0:{LIVE}:own:00",
        "newer": f"{NAMESPACE}:2:{LIVE}:own:00",
        "strange": f"{NAMESPACE}:x",
        "claim": f"{NAMESPACE}:1:{GONE}:own:00:claim",
    }
    for key in names.values():
        store.set(key, VECTOR, ex=3600)
    report = ask(TASK)
    assert {name for name, key in names.items() if store.exists(key)} == {"newer", "strange", "claim"}
    assert report["kinds"]["old_schema"]["removed"] == 1


def test_entries_that_would_never_expire_are_removed(store: "redis.Redis", ask: Ask) -> None:
    gone = cached(store, LIVE, 5, ttl=None)
    store.set(f"{gone[0]}:claim", "1")
    report = ask(TASK)
    assert there(store, [*gone, f"{gone[0]}:claim"]) == 0
    assert report["kinds"]["without_ttl"]["removed"] == 6


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lfu"])
def test_the_least_used_entries_are_evicted_down_to_the_budget(dsn: str, policy: str) -> None:
    with RedisProcess() as server, server.client() as store, PlainClient(server.url) as plain:
        store.config_set("maxmemory-policy", policy)
        keys = cached(store, LIVE, 1000)
        alive(store, LIVE)
        _use(store, keys[:500], policy)
        limit = int(store.memory_usage(keys[0]) or 0) * 1201 // 2  # sizes are sampled: half an entry to spare
        with MaintenanceProcess(server.url, dsn, MAINTENANCE__CACHE_MAX_BYTES=limit):
            foretold, report, again = (asked(plain, TASK, dry_run=dry_run) for dry_run in (True, False, False))
        assert there(store, keys[:500]) == 500
        assert 90 <= there(store, keys[500:]) <= 101
    assert report["kinds"]["over_budget"]["removed"] == foretold["removed"] == report["removed"]
    assert report["statistics"]["bytes"] <= limit
    assert again["removed"] == 0


def _use(store: "redis.Redis", keys: list[str], policy: str) -> None:
    """Make these keys the most used ones: the others were idle for long, or are used less often."""
    if policy == "noeviction":
        hot = set(keys)
        for key in store.scan_iter(f"{NAMESPACE}:*", count=5000):
            if key.decode() not in hot:
                store.restore(key, 3_600_000, store.dump(key), replace=True, idletime=5000)
        return
    for _ in range(200):
        pipe = store.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        pipe.execute()
