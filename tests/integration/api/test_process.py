"""The API as a process: start, stop, outages of Redis."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integration.api.conftest import StartApi
from tests.integration.api.servers import Api, Program, RedisServer, until
from tests.support.web import web


@pytest.fixture(scope="module")
def patient(start_api: StartApi, models: None) -> Api:
    """An API with the fake models whose requests may take ten minutes; shared by the tests that do not end it."""
    return start_api(request_timeout=600)


@pytest.fixture
def ready(patient: Api) -> Api:
    """The same, once its Redis answers."""
    with httpx.Client(base_url=patient.url, timeout=60) as client:
        until(lambda: client.get("/readyz").status_code == 200, "readiness")
    return patient


KEYLESS = {"CITADEL_API__KEYLESS": "loopback"}


def refused(environment: dict[str, str], log: Path) -> tuple[int, list[str]]:
    program = Program("citadel_orchestration.api", environment, log)
    code = program.process.wait(timeout=60)
    return code, log.read_text().splitlines()


def test_a_port_in_use_ends_the_start_with_one_line(patient: Api, tmp_path: Path) -> None:
    code, lines = refused({"CITADEL_API__PORT": str(patient.port)} | KEYLESS, tmp_path / "log")
    assert code != 0
    assert lines == [f"citadel: cannot listen on 127.0.0.1:{patient.port}: Address already in use"]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"CITADEL_API__HOST": "0.0.0.0"}, "CITADEL_API__KEYS"),
        ({"CITADEL_API__PORT": "many"}, "CITADEL_API__PORT"),
        ({"CITADEL_API__KEYS": '[{"name": "a", "hash": "short", "scopes": ["read"]}]'}, "CITADEL_API__KEYS__0__HASH"),
        ({"CITADEL_API__TYPO": "1"}, "CITADEL_API__TYPO"),
        ({}, "set CITADEL_API__KEYS, or CITADEL_API__KEYLESS=loopback"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_its_name(variables: dict[str, str], named: str, tmp_path: Path) -> None:
    code, lines = refused(variables, tmp_path / "log")
    assert code == 78
    assert len(lines) == 1
    assert named in lines[0]


def test_sigterm_finishes_requests_in_flight(
    start_api: StartApi, api_redis: RedisServer, models: None, worker: Program
) -> None:
    api = start_api(workers=2)
    api_redis.store.delete("started")
    with ThreadPoolExecutor(2) as threads:
        answer = threads.submit(httpx.post, f"{api.url}/v1/embeddings", json={"input": "wait on stop"}, timeout=60)
        api_redis.store.blpop("started", timeout=60)
        code = threads.submit(api.terminate)
        until(lambda: _refuses(api.url), "the end of listening")
        api_redis.store.lpush("stop", 1)
        assert answer.result().status_code == 200
        assert code.result() == 0
    assert api.family == []


def _refuses(url: str) -> bool:
    try:
        web.get(f"{url}/livez", timeout=5)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_cleanly(start_api: StartApi, number: signal.Signals) -> None:
    api = start_api(workers=2)
    with httpx.Client(base_url=api.url) as idle:
        assert idle.get("/readyz").status_code == 200
        api.process.send_signal(number)
        assert api.process.wait(timeout=60) == 0
    assert api.family == []
    assert '"level": "error"' not in api.log.read_text()


def test_server_processes_end_when_their_parent_dies(start_api: StartApi) -> None:
    api = start_api(workers=2)
    os.kill(api.process.pid, signal.SIGKILL)
    api.process.wait()
    until(lambda: not api.family, "the end of the orphans")


def test_requests_fail_while_redis_is_down_and_succeed_after(ready: Api, api_redis: RedisServer) -> None:
    requests = [("/v1/embeddings", {"input": "new"}), ("/v1/embeddings/tasks", {"text": "new"})]
    with httpx.Client(base_url=ready.url, timeout=60) as client:
        assert client.post("/v1/embeddings/tasks", json={"text": "before"}).status_code == 202
        api_redis.kill()
        try:
            # until the outage is known, a task is accepted: PostgreSQL keeps it until Redis is back
            until(lambda: client.post("/v1/embeddings/tasks", json={"text": "new"}).status_code == 503, "refusal")
            for path, body in requests:
                answer = client.post(path, json=body)
                problem = answer.json()
                assert (answer.status_code, (problem.get("error") or problem)["code"]) == (503, "store_unavailable")
                assert "retry-after" in answer.headers
            assert client.get("/livez").status_code == 200
            until(lambda: "broker" in client.get("/readyz").json().get("detail", ""), "unreadiness")
            assert client.get("/readyz").status_code == 503
            for path in ("/v1/tasks/x", "/v1/queues", "/v1/workers"):
                assert client.get(path).status_code == 503
            assert client.get("/v1/cache").json()["available"] is False
            health = client.get("/v1/health").json()
            assert health["status"] == "down"
            assert "does not answer" in health["components"]["broker"]["detail"]
        finally:
            api_redis.restart()
        until(lambda: client.get("/readyz").status_code == 200, "readiness")
        until(lambda: client.post("/v1/embeddings/tasks", json={"text": "after"}).status_code == 202, "acceptance")


def test_a_hanging_redis_is_reported_in_time(start_api: StartApi, api_redis: RedisServer) -> None:
    """The API has not noticed the outage before."""
    api = start_api()
    api_redis.pause()
    try:
        health = web.get(f"{api.url}/v1/health", timeout=60).json()
        assert health["status"] == "down"
        assert "no answer within 2 s" in health["components"]["results"]["detail"]
        answer = web.post(f"{api.url}/v1/embeddings/tasks", json={"text": "new"}, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    finally:
        api_redis.resume()


def test_the_api_starts_without_redis(start_api: StartApi, api_redis: RedisServer) -> None:
    api_redis.kill()
    try:
        api = start_api()
        assert web.get(f"{api.url}/readyz").status_code == 503
    finally:
        api_redis.restart()
    until(lambda: web.get(f"{api.url}/readyz").status_code == 200, "readiness")


def test_secrets_appear_in_no_response_and_no_log(api_redis: RedisServer, tmp_path: Path) -> None:
    """The store refuses the credentials since the API has started."""
    url = f"redis://someone:opensesame@127.0.0.1:{api_redis.port}/0"
    rights = {"commands": ["+@all"], "keys": ["*"], "channels": ["*"]}
    api_redis.store.acl_setuser("someone", enabled=True, passwords=["+opensesame"], **rights)
    api = Api({"CITADEL_BROKER_URL": url, "CITADEL_API__WORKERS": "1"}, tmp_path / "log")
    try:
        api_redis.store.acl_deluser("someone")
        with httpx.Client(base_url=api.url, timeout=60) as client:
            responses = [client.get(path).text for path in ("/v1/health", "/readyz", "/v1/queues", "/v1/tasks/x")]
            responses.append(client.post("/v1/embeddings/tasks", json={"text": "a"}).text)
        assert "someone:" not in "".join(responses)
        assert "opensesame" not in "".join(responses) + api.log.read_text()
    finally:
        api.kill_all()


def test_a_long_outage_of_redis_ends_waiting_requests(ready: Api, api_redis: RedisServer, worker: Program) -> None:
    """Requests that wait for results fail well before their deadline."""
    api_redis.store.delete("started")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(httpx.post, f"{ready.url}/v1/embeddings", json={"input": "wait on gone"}, timeout=100)
        api_redis.store.blpop("started", timeout=60)
        api_redis.kill()
        try:
            assert answer.result().status_code == 503
        finally:
            api_redis.restart()
