"""A Redis without memory for more: tasks are refused with 503 and nothing of them is kept."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import StorageFull
from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from citadel_contracts import GENERATE_EMBEDDING, Lane
from citadel_orchestration.api.tasks.publisher import Publisher
from tests.integration.api.servers import RedisServer
from tests.support.polling import eventually

TASK = {"text": "t"}


@pytest.fixture
def full(api_redis: RedisServer) -> Iterator[None]:
    """Leave Redis less memory than it uses."""
    api_redis.store.config_set("maxmemory", "100kb")
    yield
    api_redis.store.config_set("maxmemory", "0")


def test_tasks_are_refused_while_redis_is_full_and_taken_again_later(
    http: httpx.Client, api_redis: RedisServer, full: None
) -> None:
    def refused() -> bool:
        return http.post("/v1/embeddings/tasks", json=TASK).status_code == 503

    eventually(refused)
    task = http.post("/v1/embeddings/tasks", json=TASK)
    assert (task.status_code, task.json()["code"], task.headers["retry-after"]) == (503, "storage_full", "60")
    assert "maxmemory" in task.json()["detail"]
    direct = http.post("/v1/embeddings", json={"input": "not cached"})
    assert (direct.status_code, direct.json()["error"]["code"]) == (503, "storage_full")
    assert http.get("/v1/runs").status_code == 200
    assert 'citadel_submissions_refused_total{reason="redis_memory"}' in http.get("/metrics").text
    api_redis.store.config_set("maxmemory", "0")
    eventually(lambda: not refused())


def test_a_publisher_tells_a_full_broker_from_one_that_is_down(api_redis: RedisServer, full: None) -> None:
    settings = CommonSettings(broker_url=api_redis.url)
    app = create_app(settings)
    publisher = Publisher(app, settings)
    try:
        with pytest.raises(StorageFull, match="maxmemory"):
            asyncio.run(
                publisher.publish(
                    GENERATE_EMBEDDING, TASK, task_id="full", lane=Lane.STANDARD, deadline=Deadline.after(5)
                )
            )
    finally:
        publisher.close()
        app.close()
