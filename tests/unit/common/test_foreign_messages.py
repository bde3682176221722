"""Messages of foreign clients in the form that workers expect."""

import json
from typing import Any

import pytest
from kombu.message import Message

from citadel_common.worker.foreign_messages import adapt

FIRST: dict[str, Any] = {
    "task": "generate_embedding",
    "id": "an-id",
    "args": ["text"],
    "kwargs": {"model": "m"},
    "retries": 2,
    "eta": "2026-11-28T12:00:00+00:00",
    "expires": None,
    "timelimit": [None, 5],
    "taskset": "a-group",
    "callbacks": [{"task": "t"}],
    "chord": {"task": "c"},
}


def message(body: Any, *, headers: Any = None, content_type: Any = "application/json") -> Message:
    return Message(
        body=json.dumps(body),
        headers={} if headers is None else headers,
        content_type=content_type,
        content_encoding="utf-8",
        accept={"application/json"},
        delivery_info={"exchange": "celery", "routing_key": "celery", "redelivered": True},
    )


def test_the_first_protocol_becomes_the_second() -> None:
    found = message(FIRST, headers={"sent_at": 1.5})
    assert adapt(found, "embeddings") is None
    carried = ("task", "id", "retries", "eta", "expires", "timelimit")
    assert found.headers == {name: FIRST[name] for name in carried} | {"group": "a-group", "sent_at": 1.5}
    canvas = {"callbacks": [{"task": "t"}], "errbacks": None, "chain": None, "chord": {"task": "c"}}
    assert found.payload == [["text"], {"model": "m"}, canvas]


def test_the_second_protocol_keeps_its_headers_and_body() -> None:
    found = message([["text"], {}, {}], headers={"task": "generate_embedding", "id": "x"})
    assert adapt(found, "embeddings") is None
    assert (found.headers, found.payload) == ({"task": "generate_embedding", "id": "x"}, [["text"], {}, {}])


@pytest.mark.parametrize("body", [FIRST, [["text"], {}, {}], 5, None, {"no": "task"}])
def test_the_address_is_the_queue_that_the_message_came_from(body: Any) -> None:
    found = message(body)
    assert adapt(found, "embeddings") is None
    assert found.delivery_info == {"exchange": "", "routing_key": "embeddings", "redelivered": True}


@pytest.mark.parametrize(
    ("headers", "content_type", "setting"),
    [
        ({"compression": "application/zstd"}, "application/json", "task_compression"),
        ({"compression": ["gzip"]}, "application/json", "task_compression"),
        ({}, "application/x-python-serialize", "task_serializer"),
        ({}, None, "task_serializer"),
        ({}, ["application/json"], "task_serializer"),
    ],
)
def test_what_is_not_read_is_refused_with_the_setting_to_change(headers: Any, content_type: Any, setting: str) -> None:
    problem = adapt(message([], headers=headers, content_type=content_type), "embeddings")
    assert problem is not None
    assert f"the client's {setting} to" in problem
