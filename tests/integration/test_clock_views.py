"""What people and programs see of workers, messages and tasks, on a host whose clock is an hour off."""

import asyncio
import time
import uuid

import pytest
from pydantic import SecretStr

from citadel_common.delivery.accepted_tasks import LEASES, AcceptedTasks, TaskMessage
from citadel_common.delivery.dead_letters import DeadLetter
from citadel_common.delivery.worker_registry import WorkerIdentity, WorkerRegistry
from citadel_common.history import History
from citadel_common.settings.common import CommonSettings, StoreSettings
from citadel_common.stores.redis import connect_async
from citadel_common.tasks.app import create_app
from citadel_common.telemetry import NULL_METRICS
from citadel_contracts import Queue
from citadel_monitoring.exporter import metrics
from citadel_monitoring.exporter.stores import BrokerReader
from citadel_orchestration.api.http.errors import RateLimited
from citadel_orchestration.api.http.rate_limit import RateLimit
from citadel_orchestration.api.operations.broker import BrokerInspector
from citadel_orchestration.api.operations.history import HistoryReader
from citadel_orchestration.db.models import StepClaim, StepRef
from citadel_orchestration.engine.parked_outputs import ParkedOutputs
from tests.support.host_clock import HOUR

STATE = {"concurrency": 4, "running": 1, "processed": 0, "failed": 0, "started_at": 1.0}
COMPONENT = {"status": "up", "latency_ms": 1.0}


@pytest.fixture(params=[HOUR, -HOUR])
def elsewhere(request, monkeypatch, store):
    """Return a function that moves this process to a host whose clock is off; its argument is a share of that."""
    store.flushdb()
    ours = time.time
    return lambda share=1: monkeypatch.setattr(time, "time", lambda: ours() + share * request.param)


def on_redis(url, call):
    """Return what a coroutine function returns that takes a client."""

    async def run():
        client = connect_async(SecretStr(url), StoreSettings())
        try:
            return await call(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_a_live_worker_is_listed_and_counted(redis_url, store, elsewhere):
    identity = WorkerIdentity.of_this_process("embeddings")
    WorkerRegistry(store).beat(identity, **STATE)
    elsewhere()

    async def seen(client):
        inspector = BrokerInspector(client, dead_after=5, timeout=5)
        [embeddings] = [queue for queue in await inspector.queues() if queue.name == "embeddings"]
        return await inspector.workers(), await inspector.count_live(Queue.EMBEDDINGS), embeddings.workers

    workers, live, of_queue = on_redis(redis_url, seen)
    assert ([worker.id for worker in workers], live, of_queue) == ([identity.id], 1, 1)
    found = BrokerReader(store, dead_after=5).read()
    assert [s.value for s in found if s.metric == metrics.WORKERS and s.labels == ("embeddings",)] == [1]


def test_the_age_of_a_message_is_its_time_in_the_queue(redis_url, store, elsewhere):
    """The sender's host is as far off as the exporter's, in the other direction."""
    elsewhere(-1)
    with create_app(CommonSettings(broker_url=redis_url)) as app:
        app.send_task("generate_embedding", args=["a"], ignore_result=True)
    elsewhere()
    found = BrokerReader(store, dead_after=5).read()
    ages = [s.value for s in found if s.metric == metrics.OLDEST and s.labels[0] == "embeddings"]
    assert 0 <= max(ages) < 60


def test_a_check_that_was_just_recorded_is_shown(redis_url, store, elsewhere):
    elsewhere(-1)
    History(store).record("health", {"health_status": {"services": {"cache": COMPONENT}}})
    elsewhere()
    assert list(on_redis(redis_url, lambda client: HistoryReader(client, timeout=5).health())) == ["cache"]
    assert len(store.zrange("citadel:history:health", 0, -1)) == 1


def test_a_lease_of_another_host_counts(store, elsewhere):
    tasks = AcceptedTasks(store)
    tasks.add(TaskMessage(task_id="t", name="generate_embedding", kwargs={}, priority=3))
    assert tasks.claim("t", "generate_embedding", "here", redelivered=False) == "run"
    elsewhere()
    assert tasks.claim("t", "generate_embedding", "there", redelivered=False) == "busy"
    assert tasks.due(10) == []
    expiry = float(store.hget(LEASES, "t").rpartition(b" ")[2])
    assert 0 < expiry - store.time()[0] <= 61


def test_a_dead_letter_of_another_host_is_kept_for_its_time(dead_letters, store, elsewhere):
    elsewhere(50)
    dead_letters.add(DeadLetter(id="d", queue="embeddings", code="internal", error="it failed"))
    elsewhere(0)
    dead_letters.expire(10)
    assert abs(dead_letters.get("d").at - store.time()[0]) < 60


def test_an_output_that_another_host_has_parked_is_recorded(store, elsewhere):
    ref = StepRef(run_id=uuid.uuid4(), step_id="a")
    claim = StepClaim(ref=ref, attempt=1, tries=0, workflow_id="w", kind="workflow", lane=3, depth=0, run_deadline=None)
    ParkedOutputs(store).park(claim, {"text": "t"})
    elsewhere(24 * 8)
    recorded = []
    ParkedOutputs(store).restore(lambda *found: recorded.append(found))
    assert recorded == [(ref, 1, {"text": "t"})]


def test_processes_on_two_hosts_share_the_limit_of_a_caller(redis_url, store, elsewhere):
    async def allowed(client):
        count = 0
        for share in (0, 1):
            elsewhere(share)
            limit = RateLimit(client, 5, processes=1, metrics=NULL_METRICS)
            for _ in range(5):
                try:
                    await limit.check("caller")
                except RateLimited:
                    continue
                count += 1
        return count

    assert on_redis(redis_url, allowed) == 5
