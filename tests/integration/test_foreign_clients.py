"""Celery clients with other settings, and those in other languages: each is served, or hears what to change."""

import base64
import gzip
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import ContentDisallowed

from citadel_common.delivery.dead_letters import DeadLetters
from tests.doubles.process import OllamaProcess
from tests.support.celery_client import QUEUE, TIMEOUT, PlainClient, error_of
from tests.support.polling import eventually
from tests.support.worker import WorkerProcess

TASK = "generate_embedding"
OWN_KEY = Queue(QUEUE, Exchange("their-exchange"), routing_key="their.key")


@pytest.fixture(autouse=True)
def fresh(worker: WorkerProcess, double: OllamaProcess) -> None:
    """A worker and a healthy double."""


@contextmanager
def client(url: str, settings: dict[str, Any]) -> Iterator[Celery]:
    """Give a Celery client with these settings."""
    app = Celery("foreign", set_as_current=False)
    app.conf.update({"broker_url": url, "result_backend": url} | settings)
    yield app
    app.backend.remove_pending_result = lambda _: None  # results that go later must not open a connection again
    app.backend.result_consumer.stop()
    app.backend.client.close()
    app.close()


def options(**of_transport: Any) -> dict[str, Any]:
    """Return settings with these options of the broker's transport."""
    return {"broker_transport_options": of_transport}


SERVED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another separator, and no priority": (options(sep=":"), {}),
    "one step": (options(priority_steps=[0]), {"priority": 6}),
    "another order of queues": (options(queue_order_strategy="sorted"), {"priority": 6}),
    "another visibility timeout": (options(visibility_timeout=1), {}),
    "the first protocol": ({"task_protocol": 1}, {"priority": 6}),
    "the first protocol, with a countdown": ({"task_protocol": 1}, {"countdown": 0.5}),
    "the first protocol, compressed": ({"task_protocol": 1, "task_compression": "gzip"}, {}),
    "gzip": ({"task_compression": "gzip"}, {}),
    "zlib": ({"task_compression": "zlib"}, {}),
    "bzip2": ({"task_compression": "bzip2"}, {}),
    "lzma": ({"task_compression": "lzma"}, {}),
    "an exchange of its own": ({"task_queues": [OWN_KEY]}, {}),
    "quorum queues": ({"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"}, {}),
    "quorum queues, with a countdown": ({"task_default_queue_type": "quorum"}, {"countdown": 0.5}),
    "another time zone": ({"enable_utc": False, "timezone": "Asia/Tokyo"}, {"countdown": 0.5, "expires": 30}),
    "another result_expires": ({"result_expires": 1}, {}),
    "events": ({"task_send_sent_event": True}, {}),
    "the order of Django projects": (options(visibility_timeout=43200, fanout_prefix=False, max_retries=3), {}),
}  # fmt: skip
"""Settings of a client, and options with which it sends."""


@pytest.mark.parametrize(("settings", "how"), SERVED.values(), ids=SERVED)
def test_a_client_with_these_settings_is_served(redis_url: str, settings: dict[str, Any], how: dict[str, Any]) -> None:
    with client(redis_url, settings) as app:
        assert app.send_task(TASK, ["hello"], **{"queue": QUEUE, **how}).get(timeout=TIMEOUT)["success"]


def test_a_client_that_reads_results_by_resp3_is_served(redis_url: str) -> None:
    with client(redis_url, {"result_backend": f"{redis_url}?protocol=3"}) as app:
        assert app.send_task(TASK, ["hello"], queue=QUEUE).get(timeout=TIMEOUT)["success"]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "pickle": ({"task_serializer": "pickle"}, {}, "set the client's task_serializer to 'json'"),
    "yaml": ({"task_serializer": "yaml"}, {}, "set the client's task_serializer to 'json'"),
    "the first protocol, without such a task": ({"task_protocol": 1}, {"name": "x.y"}, "have no task named 'x.y'"),
    "a task of another queue": ({}, {"name": "execute_workflow"}, "it belongs to the queue 'orchestration'"),
}


@pytest.mark.parametrize(("settings", "how", "advice"), REFUSED.values(), ids=REFUSED)
def test_a_client_with_these_settings_hears_what_to_change(
    redis_url: str, dead_letters: DeadLetters, settings: dict[str, Any], how: dict[str, Any], advice: str
) -> None:
    with client(redis_url, settings) as app:
        task = app.send_task(**({"name": TASK, "args": ["hello"], "queue": QUEUE} | how))
        assert advice in error_of(task)
        assert advice in eventually(lambda: dead_letters.get(task.id)).error


def test_a_client_that_accepts_no_json_hears_it_from_celery(redis_url: str) -> None:
    settings = {"accept_content": ["pickle"], "result_accept_content": ["pickle"]}
    with client(redis_url, settings) as app, pytest.raises(ContentDisallowed):
        app.send_task(TASK, ["hello"], queue=QUEUE).get(timeout=TIMEOUT)


def entry(
    body: Any, *, delivery: dict[str, Any], headers: dict[str, Any], encode: Any = bytes, **properties: Any
) -> str:
    """Return a list entry as clients in other languages write it: with few of kombu's fields."""
    return json.dumps(
        {
            "body": base64.b64encode(encode(json.dumps(body).encode())).decode(),
            "headers": headers,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {
                "body_encoding": "base64",
                "delivery_info": delivery,
                "delivery_mode": 2,
                "delivery_tag": str(uuid.uuid4()),
                **properties,
            },
        }
    )


CELERYS = {"priority": 0, "routing_key": "celery", "exchange": "celery"}
"""What clients for Go and PHP write for every queue."""


def test_clients_in_other_languages_are_served(store: "redis.Redis", plain: PlainClient) -> None:
    go, node = str(uuid.uuid4()), str(uuid.uuid4())
    first = {"id": go, "task": TASK, "args": ["hello"], "kwargs": {}, "retries": 0, "eta": None, "expires": None}
    second = {"lang": "js", "task": TASK, "id": node, "compression": "gzip"}
    store.lpush(QUEUE, entry(first, delivery=CELERYS, headers={}))
    store.lpush(QUEUE, entry([["hello"], {}, {}], delivery=CELERYS, headers=second, encode=gzip.compress))
    for task_id in (go, node):
        assert plain.app.AsyncResult(task_id).get(timeout=TIMEOUT)["success"]


@pytest.mark.parametrize("compression", ["application/zstd", "application/x-brotli", "snappy", 5])
def test_compression_that_cannot_be_bounded_is_refused_with_the_setting(
    store: "redis.Redis", plain: PlainClient, compression: Any
) -> None:
    task_id = str(uuid.uuid4())
    headers = {"lang": "py", "task": TASK, "id": task_id, "compression": compression}
    store.lpush(QUEUE, entry([["hello"], {}, {}], delivery=CELERYS, headers=headers))
    assert "set the client's task_compression to" in error_of(plain.app.AsyncResult(task_id))


@pytest.mark.parametrize("settings", [{}, {"task_protocol": 1}], ids=["second", "first"])
def test_a_retry_stays_in_its_queue_whatever_the_client_calls_it(
    redis_url: str, double: OllamaProcess, settings: dict[str, Any]
) -> None:
    double.behaviour("error500", for_requests=3)
    with client(redis_url, settings) as app:
        task = app.send_task(TASK, [str(uuid.uuid4())], queue=QUEUE, routing_key="emb.x")
        assert task.get(timeout=TIMEOUT)["success"]


def test_a_retry_of_a_message_to_the_exchange_celery_stays_in_its_queue(
    store: "redis.Redis", plain: PlainClient, double: OllamaProcess
) -> None:
    double.behaviour("error500", for_requests=3)
    task_id = str(uuid.uuid4())
    first = {"id": task_id, "task": TASK, "args": [task_id], "kwargs": {}, "retries": 0}
    store.lpush(QUEUE, entry(first, delivery=CELERYS, headers={}))
    assert plain.app.AsyncResult(task_id).get(timeout=TIMEOUT)["success"]
