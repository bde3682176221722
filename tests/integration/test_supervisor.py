"""The words to a service manager, on real datagram sockets, and when each kind of process says them."""

import os
import signal

import pytest

from citadel_common.delivery.worker_registry import WORKERS
from citadel_common.supervisor import NULL_SUPERVISOR, supervisor_of
from tests.integration.monitoring.exporter import Exporter
from tests.support.beat import BeatProcess
from tests.support.celery_client import PlainClient
from tests.support.child import free_port
from tests.support.notify_socket import NotifySocket
from tests.support.redis_server import RedisProcess
from tests.support.worker import FAST, ServiceProcess, WorkerProcess, backend_settings


@pytest.fixture(params=[False, True], ids=["path", "abstract"])
def manager(request):
    """A manager that listens on either kind of socket."""
    with NotifySocket(abstract=request.param) as listening:
        yield listening


@pytest.fixture
def watching(monkeypatch):
    """A manager with a watchdog, whose variables the processes that are started here inherit."""
    with NotifySocket() as listening:
        for name, value in listening.variables(watchdog_s=0.9).items():
            monkeypatch.setenv(name, value)
        yield listening


def test_readiness_life_and_end_are_reported(manager):
    supervisor = supervisor_of(manager.variables(watchdog_s=9))
    supervisor.alive("waiting")
    supervisor.ready("working")
    supervisor.alive("a\nMAINPID=1")  # a second line would be another word
    supervisor.stopping(within=1.5)
    assert manager.take() == [
        {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "9000000", "STATUS": "waiting"},
        {"READY": "1", "STATUS": "working", "WATCHDOG": "1"},
        {"WATCHDOG": "1", "STATUS": "a MAINPID=1"},
        {"STOPPING": "1", "STATUS": "stopping", "EXTEND_TIMEOUT_USEC": "1500000"},
    ]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_is_said(environment):
    assert supervisor_of(environment) is NULL_SUPERVISOR


def test_a_manager_that_is_gone_harms_nobody():
    with NotifySocket() as manager:
        supervisor = supervisor_of(manager.variables())
    supervisor.ready("working")
    supervisor.stopping(within=1)


def test_no_child_process_finds_the_variables(manager):
    environment = manager.variables(watchdog_s=9) | {"WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert supervisor_of(environment).interval == 3
    assert environment == {"HOME": "/"}


def test_a_watchdog_meant_for_another_process_gets_no_sign_of_life(manager):
    assert supervisor_of(manager.variables(watchdog_s=9) | {"WATCHDOG_PID": "1"}).interval == float("inf")


def test_a_worker_is_ready_when_it_consumes(watching, store, redis_url, ollama):
    with WorkerProcess(redis_url, ollama.url, wait=False) as worker:
        assert watching.wait_for("READY")["STATUS"] == "consuming embeddings: 0 running, 0 done"
        assert any(f":{worker.pid}:".encode() in name for name in store.hkeys(WORKERS))
        watching.wait_for("WATCHDOG", times=3)
        worker.signal(signal.SIGTERM)
        assert watching.wait_for("STOPPING")["EXTEND_TIMEOUT_USEC"] == "35000000"
        assert worker.wait() == 0


def test_a_worker_without_its_broker_is_not_ready_and_says_why(watching, ollama):
    with RedisProcess() as server:
        server.kill()
        with WorkerProcess(server.url, ollama.url, wait=False):
            seen = watching.wait_for("EXTEND_TIMEOUT_USEC", times=2)  # again and again: the start may take for ever
            assert (seen["STATUS"], seen["EXTEND_TIMEOUT_USEC"]) == ("waiting for the broker", "900000")
            assert not watching.has_had("READY")
            server.restart()
            watching.wait_for("READY")


def test_a_broker_that_hangs_is_no_illness_of_the_worker(watching, ollama):
    with (
        RedisProcess() as server,
        WorkerProcess(server.url, ollama.url, STORES__TIMEOUT="0.5") as worker,
        server.frozen(),
    ):
        worker.wait_for("pulse_step_failed", times=3)
        watching.take()
        watching.wait_for("WATCHDOG", times=5)


def test_a_task_past_its_hard_limit_ends_the_signs_of_life(watching, redis_url, double):
    double.behaviour("hang")
    settings = backend_settings(redis_url, double.url) | FAST
    with (
        ServiceProcess("tests.support.programs.impatient_worker", settings) as worker,
        PlainClient(redis_url) as client,
    ):
        watching.wait_for("WATCHDOG", times=2)
        client.send("generate_embedding", ["text"])
        worker.wait_for("tasks_stuck")
        watching.take()
        worker.wait_for("tasks_stuck", times=len(worker.events("tasks_stuck")) + 5)
        assert watching.take() == []


def test_beat_and_exporter_tell_their_course(watching, redis_url):
    with BeatProcess(redis_url, wait=False) as beat:
        watching.wait_for("READY")
        watching.wait_for("WATCHDOG", times=2)
        assert beat.terminate() == 0
        watching.wait_for("STOPPING")
    with Exporter(redis_url) as exporter:
        assert watching.wait_for("READY")["STATUS"] == f"serving on port {exporter.port}"
        watching.wait_for("WATCHDOG", times=2)
        assert exporter.terminate() == 0
        watching.wait_for("STOPPING")


def test_the_api_is_ready_when_a_server_process_serves(watching, redis_url, postgres_dsn):
    settings = {"BROKER_URL": redis_url, "POSTGRES_DSN": postgres_dsn, "API__PORT": free_port(), "API__WORKERS": 2}
    settings["API__KEYLESS"] = "loopback"
    with ServiceProcess("citadel_orchestration.api", settings, wait=False) as api:
        assert watching.wait_for("READY")["STATUS"] == "serving"
        watching.wait_for("WATCHDOG", times=2)
        api.signal(signal.SIGTERM)
        watching.wait_for("STOPPING")
        assert api.wait() == 0
