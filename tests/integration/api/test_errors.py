"""Every error class of every package, on its way from a real worker to whoever reads it.

The API, which has not imported the classes of the embeddings service, the database, a Celery client without Citadel and
the SDK tell the same code, message, field, index, status, retryability and delay.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from citadel_client import NEVER, Citadel, CitadelApiError, Run, RunFailed, TaskFailed
from citadel_client.errors import error_class
from citadel_common.errors import CitadelError
from citadel_contracts.api import TaskStatus
from citadel_contracts.errors import KINDS, ErrorData
from tests.integration.api.servers import Api, RedisServer
from tests.support.error_classes import RETRY_AFTER, all_classes, raised
from tests.support.fixtures import require_redis
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import CREDENTIALS
from tests.support.postgres_server import PostgresProcess
from tests.support.worker import FAST, ServiceProcess

WORKER = FAST | {"WORKER__RETRY__MAX_RETRIES": "1"}
BAD = 1
"""Index of the text that fails."""
Tasks = dict[str, tuple[TaskStatus, TaskFailed]]
Runs = dict[str, tuple[Run, RunFailed]]


@dataclass(frozen=True, kw_only=True)
class Failing:
    """A server whose every text fails as it says, and all error classes by code."""

    classes: dict[str, type[CitadelError]]
    http: httpx.Client
    citadel: Citadel
    redis: RedisServer

    def each(self, call: Any) -> dict[str, Any]:
        """Return what a call gives for each code, called from several threads."""
        with ThreadPoolExecutor(8) as threads:
            return dict(zip(self.classes, threads.map(call, self.classes), strict=True))

    def data(self, code: str) -> ErrorData:
        """Return what the worker raised."""
        return raised(self.classes[code], BAD).data


@pytest.fixture(scope="module")
def failing(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    require_redis()
    with RedisServer() as redis, postgres_server.database() as dsn:
        stores = {"CITADEL_BROKER_URL": redis.url, "CITADEL_POSTGRES_DSN": dsn}
        api = Api(stores | {"CITADEL_API__WORKERS": "1"}, tmp_path_factory.mktemp("api") / "log")
        try:
            with (
                ServiceProcess("tests.support.programs.failing_worker", {"BROKER_URL": redis.url} | WORKER),
                OrchestrationProcess(redis.url, dsn),
                httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as http,
                Citadel(api.url, retry=NEVER) as citadel,
            ):
                yield Failing(classes=all_classes(), http=http, citadel=citadel, redis=redis)
        finally:
            api.kill_all()


@pytest.fixture(scope="module")
def tasks(failing: Failing) -> Tasks:
    """A task that failed for each code, and what the SDK raises for it."""

    def failed(code: str) -> tuple[TaskStatus, TaskFailed]:
        handle = failing.citadel.submit(texts_of(code), model="any")
        with pytest.raises(TaskFailed) as caught:
            handle.wait(timeout=60)
        return handle.status(), caught.value

    return failing.each(failed)


@pytest.fixture(scope="module")
def runs(failing: Failing) -> Runs:
    """A run that failed for each code, and what the SDK raises for it."""

    def failed(code: str) -> tuple[Run, RunFailed]:
        parameters = {"text": texts_of(code), "model": "any"}
        retry = {"max_attempts": 2, "delay": "10ms"}
        step = {"step_id": "s", "type": "embedding", "parameters": parameters, "retry": retry}
        run = failing.citadel.workflows.submit({"steps": [step]})
        with pytest.raises(RunFailed) as caught:
            run.wait(timeout=60)
        return run, caught.value

    return failing.each(failed)


def texts_of(code: str) -> list[str]:
    return ["fine", f"fail {code}"]


def facts_of(error: CitadelApiError) -> dict[str, Any]:
    """What an exception of the SDK says beside its message."""
    names = ("code", "field", "index", "status", "retryable", "retry_after")
    return {name: getattr(error, name) for name in names}


def expected_facts(data: ErrorData, **changes: Any) -> dict[str, Any]:
    expected = {"code": data.code, "field": "text", "index": BAD, "status": KINDS[data.code].status}
    return expected | {"retryable": KINDS[data.code].retryable, "retry_after": RETRY_AFTER} | changes


def test_each_class_has_a_code_of_its_own_and_each_code_a_class(failing: Failing) -> None:
    assert failing.classes.keys() == KINDS.keys()
    for code, kind in failing.classes.items():
        assert (kind.code, kind.status, kind.retryable) == (code, KINDS[code].status, KINDS[code].retryable)


def test_the_openai_route_tells_each_in_openais_form(failing: Failing) -> None:
    answers = failing.each(lambda code: failing.http.post("/v1/embeddings", json={"input": texts_of(code)}))
    for code, answer in answers.items():
        status = 400 if code == "invalid_input" else KINDS[code].status
        assert (answer.status_code, answer.headers["retry-after"]) == (status, "7"), code
        error = answer.json()["error"]
        named = {"field": "input", "index": BAD, "param": f"input[{BAD}]"}
        expected = {"code": code, "message": f"input[{BAD}]: as told: {code}", "retry_after": RETRY_AFTER}
        assert error.items() >= (named | expected | {"retryable": KINDS[code].retryable}).items(), code
        assert error["errors"] == [{"pointer": f"/input/{BAD}", "detail": f"as told: {code}"}]
        assert error["trace_id"]
        assert answer.headers["x-should-retry"] == ("true" if KINDS[code].retryable else "false")


def test_the_sdk_raises_each_with_its_data(failing: Failing) -> None:
    def error_of(code: str) -> CitadelApiError:
        with pytest.raises(CitadelApiError) as caught:
            failing.citadel.embed(texts_of(code))
        return caught.value

    for code, error in failing.each(error_of).items():
        status = 400 if code == "invalid_input" else KINDS[code].status
        assert type(error) is error_class(status)
        assert facts_of(error) == expected_facts(failing.data(code), field="input", status=status)
        assert error.bad_items == {BAD: f"as told: {code}"}


def test_the_state_of_a_task_tells_each(failing: Failing, tasks: Tasks) -> None:
    for code, (status, _) in tasks.items():
        assert status.error is not None
        assert status.trace_id
        assert status.error.model_dump() == failing.data(code).model_dump() | {"trace_id": status.trace_id}


def test_the_sdk_tells_why_a_task_failed(failing: Failing, tasks: Tasks) -> None:
    for code, (_, failure) in tasks.items():
        assert failure.message == f"text[{BAD}]: as told: {code}"
        assert facts_of(failure) == expected_facts(failing.data(code))


def test_a_celery_client_without_citadel_gets_class_and_message(failing: Failing, tasks: dict[str, TaskStatus]) -> None:
    ids = [status.task_id for status, _ in tasks.values()]
    command = [sys.executable, "-m", "tests.support.programs.plain_reader", failing.redis.url, *ids]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    expected = [[failing.classes[code].__name__, f"text[{BAD}]: as told: {code}"] for code in tasks]
    assert json.loads(output) == expected


def test_dead_letters_and_their_attempts_keep_each_that_was_retried(failing: Failing, tasks: Tasks) -> None:
    for code in (code for code in tasks if KINDS[code].retryable):
        dead_letter = failing.citadel.dead_letters.get(tasks[code][0].task_id)
        assert dead_letter.trace_id
        assert dead_letter.failure == failing.data(code).model_copy(update={"trace_id": dead_letter.trace_id})
        assert (dead_letter.code, dead_letter.error) == (code, dead_letter.failure.message)
        known = {"field": "text", "index": BAD, "retryable": True, "retry_after": RETRY_AFTER}
        assert [attempt.items() >= (known | {"code": code}).items() for attempt in dead_letter.history] == [True, True]


def test_runs_and_their_steps_keep_each(failing: Failing, runs: Runs) -> None:
    for code, (_, failure) in runs.items():
        data = of_step(failing.data(code))
        assert facts_of(failure) == expected_facts(data)
        view = failure.run
        assert view.error is not None
        assert view.trace_id
        expected = data.model_dump() | {"trace_id": view.trace_id}
        assert view.error.model_dump() == expected | {"step_id": "s"}
        assert view.steps[0].error is not None
        assert view.steps[0].error.model_dump() == expected


def test_events_of_a_run_keep_each_through_its_retry(failing: Failing, runs: Runs) -> None:
    for code, (run, _) in runs.items():
        data = of_step(failing.data(code))
        events = list(run.history())
        by_event = {event.type: event.data.get("error") for event in events}
        assert ("step_retrying" in by_event) == data.retryable
        names = {"step_retrying", "step_failed"} & by_event.keys()
        assert {name: by_event[name] for name in names} == dict.fromkeys(names, data.model_dump(mode="json"))


def of_step(data: ErrorData) -> ErrorData:
    """The deadline that was exceeded is the attempt's, and another attempt has its own."""
    if data.code == "deadline_exceeded":
        return data.model_copy(update={"code": "step_timed_out", "retryable": True})
    return data
