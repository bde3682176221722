"""The two tasks, called by a plain Celery client that knows the broker's URL and their names."""

from datetime import UTC, datetime, timedelta

import pytest

from citadel_common.history import History, key_of
from tests.integration.monitoring.watched import OLLAMA_KEY, QDRANT_KEY, SECRETS, closed_url
from tests.support.celery_client import TIMEOUT, PlainClient, error_of
from tests.support.polling import eventually
from tests.support.worker import ServiceProcess

QUEUE = "monitoring"
FAST = {"WORKER__HEARTBEAT_INTERVAL": "0.2", "MONITORING__CPU_SAMPLE": "0.05", "MONITORING__SLOW": "60"}


@pytest.fixture(scope="module")
def settings(servers):
    """Return the worker's settings: all servers, and settings of other services."""
    main = "EMBEDDINGS__BACKENDS__main__"
    return FAST | {
        "BROKER_URL": servers.broker.url,
        "CACHE_URL": servers.cache.url,
        "POSTGRES_DSN": servers.postgres.dsn,
        "QDRANT__URL": servers.qdrant.url,
        "QDRANT__API_KEY": QDRANT_KEY,
        f"{main}KIND": "ollama",
        f"{main}URLS": servers.ollama.url,
        f"{main}API_KEY": OLLAMA_KEY,
        "EMBEDDINGS__LINGER": "0.5",
        "WORKFLOWS__LEASE": "9",
    }


@pytest.fixture(scope="module")
def worker(servers, settings):
    """Yield a monitoring worker on an empty Redis."""
    servers.broker.flush()
    with ServiceProcess("citadel_monitoring", settings) as process:
        eventually(lambda: kept(servers, "health"))  # the check at the start
        yield process


@pytest.fixture(scope="module")
def client(servers, worker):
    """Yield a plain Celery client of its broker."""
    with PlainClient(servers.broker.url) as plain:
        yield plain


def call(client, name, *args):
    return client.publish(name, args, queue=QUEUE).get(timeout=TIMEOUT)


def assert_now(timestamp):
    moment = datetime.fromisoformat(timestamp)
    assert moment.utcoffset() == timedelta(0)
    assert timedelta(0) <= datetime.now(UTC) - moment < timedelta(minutes=2)


def kept(servers, kind):
    with servers.broker.client() as store:
        now = datetime.now(UTC)
        return History(store).between(kind, now - timedelta(hours=1), now, 100)


def test_system_health_check_returns_the_documented_keys(watched, client):
    result = call(client, "system_health_check")
    status = result["health_status"]
    assert result["success"] is True
    assert status.keys() >= {"timestamp", "server_ip", "system_metrics", "service_health", "overall_health"}
    assert status["system_metrics"].keys() == {
        "cpu_percent", "memory_percent", "memory_available_gb", "disk_percent", "disk_free_gb",
    }  # fmt: skip
    assert status["service_health"] == {"redis": True, "qdrant": True, "postgres": True}
    assert (status["status"], status["overall_health"]) == ("ok", True)
    assert_now(status["timestamp"])
    assert_now(result["timestamp"])


def test_a_worker_checks_at_its_start_and_again_while_something_is_down(watched, settings):
    """Servers that start at the same time are not up yet, and the next periodic check is minutes away."""
    with watched.broker.client() as store:
        store.delete(key_of("health"))
    watched.qdrant.kill()
    with ServiceProcess("citadel_monitoring", settings):
        [first] = eventually(lambda: kept(watched, "health"))
        watched.qdrant.restart_same_port()
        again = eventually(lambda: (found := kept(watched, "health"))[1:] and found)
    assert first["health_status"]["services"]["qdrant"]["status"] == "down"
    assert {"up", "down"} == {entry["health_status"]["services"]["qdrant"]["status"] for entry in again}


def test_a_service_that_is_down_is_reported_and_logged(watched, client, worker):
    watched.qdrant.kill()
    status = call(client, "system_health_check")["health_status"]
    watched.qdrant.restart_same_port()
    assert (status["status"], status["overall_health"]) == ("down", False)
    assert status["service_health"] == {"redis": True, "qdrant": False, "postgres": True}
    worker.wait_for("health_checked")
    [line] = worker.events("health_checked")[-1:]
    assert (line["status"], line["problems"]) == ("down", [status["services"]["qdrant"]["detail"]])


def test_collect_system_metrics_returns_the_documented_keys(client):
    result = call(client, "collect_system_metrics")
    metrics = result["metrics"]
    assert result["success"] is True
    assert metrics["cpu_metrics"].keys() >= {"usage_percent", "core_count", "load_average"}
    assert metrics["memory_metrics"].keys() >= {"total_gb", "available_gb", "usage_percent"}
    assert metrics["disk_metrics"].keys() == {"total_gb", "free_gb", "usage_percent"}
    assert 0 < metrics["cpu_metrics"]["core_count"] <= metrics["cpu_metrics"]["host_core_count"]
    assert 0 < metrics["memory_metrics"]["total_gb"] <= metrics["memory_metrics"]["host_total_gb"]
    assert len(metrics["cpu_metrics"]["load_average"]) == 3
    assert_now(metrics["timestamp"])
    assert_now(result["timestamp"])


@pytest.mark.parametrize(("kind", "task"), [("health", "system_health_check"), ("metrics", "collect_system_metrics")])
def test_the_result_of_a_task_is_added_to_the_history(servers, client, kind, task):
    before = len(kept(servers, kind))
    result = call(client, task)
    entries = kept(servers, kind)
    assert len(entries) == before + 1
    assert_now(entries[0].pop("at"))
    assert entries[0] == result


@pytest.mark.parametrize("task", ["system_health_check", "collect_system_metrics"])
def test_arguments_are_refused(client, task):
    assert "takes at most 0 arguments" in error_of(client.publish(task, ["x"], queue=QUEUE))


@pytest.mark.parametrize("task", ["system_health_check", "collect_system_metrics"])
def test_a_task_succeeds_even_if_the_history_cannot_be_written(servers, client, worker, task):
    with servers.broker.client() as store:
        for kind in ("health", "metrics"):
            store.set(key_of(kind), "not a sorted set")
        assert call(client, task)["success"] is True
        store.delete(key_of("health"), key_of("metrics"))
    assert worker.events("history_not_recorded")


def test_a_result_store_that_is_down_is_logged(servers, settings):
    """The result cannot be stored, but the check ends and logs the problem."""
    broker = servers.broker.database(3)
    elsewhere = {"BROKER_URL": broker, "RESULT_URL": closed_url("redis") + "/0", "WORKER__STOP_GRACE": "1"}
    with ServiceProcess("citadel_monitoring", settings | elsewhere) as process, PlainClient(broker) as plain:
        plain.publish("system_health_check", queue=QUEUE)
        process.wait_for("health_checked")
        assert "the result store" in process.events("health_checked")[0]["problems"][0]
        assert not process.events("history_not_recorded")


def test_the_worker_stops_on_sigterm_and_has_logged_no_secret(worker):
    assert worker.terminate() == 0
    assert not [secret for secret in SECRETS if secret in worker.output]
    assert eventually(lambda: worker.is_over)
