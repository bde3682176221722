"""Messages put straight on the queue: none ends the worker, none is lost without a word, the next task works."""

import base64
import bz2
import json
import lzma
import pickle
import uuid
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from citadel_common.delivery.accepted_tasks import DUE, LEASES, MESSAGES, AcceptedTasks, TaskMessage
from tests.support.celery_client import QUEUE, TIMEOUT, error_of
from tests.support.planted import TEXT
from tests.support.polling import eventually
from tests.support.worker import WorkerProcess


@pytest.fixture(autouse=True)
def fresh(worker, double, dead_letters):
    """A worker, a healthy double, no letters."""


REFUSALS = TEXT.encode()
BODY = b'[["%b"], {}, {}]' % REFUSALS


def raw_message(body=BODY, *, task="generate_embedding", encoding="base64", headers=(), **changes):
    """A task message as kombu writes it, with changes; its id comes with it."""
    task_id = str(uuid.uuid4())
    headers = {
        "lang": "py",
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "argsrepr": "",
        "kwargsrepr": "",
        **dict(headers),
    }
    message = {
        "body": base64.b64encode(body).decode() if encoding == "base64" else body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": encoding,
            "delivery_tag": str(uuid.uuid4()),
        },
    } | changes
    return task_id, message


def deep(depth):
    return b"[" * depth + b"]" * depth


NO_MESSAGES = {
    "garbage": b"\x00\xff %b \x80" % REFUSALS,
    "empty": b"",
    "a number": b"5",
    "a list": b"[]",
    "no envelope": b'{"%b": 1}' % REFUSALS,
    "headers of a wrong type": json.dumps(raw_message()[1] | {"headers": []}).encode(),
    "properties of a wrong type": json.dumps(raw_message()[1] | {"properties": 1}).encode(),
    "no delivery tag": json.dumps(
        raw_message()[1] | {"properties": {"delivery_info": {"exchange": "", "routing_key": "embeddings"}}}
    ).encode(),
    "a body that is no text": json.dumps(raw_message()[1] | {"body": {TEXT: 1}}).encode(),
    "a body that is not base64": json.dumps(raw_message()[1] | {"body": TEXT}).encode(),
    "a priority of a wrong type": json.dumps(
        raw_message()[1] | {"properties": raw_message()[1]["properties"] | {"priority": [TEXT]}}
    ).encode(),
    "a delivery tag with a lone surrogate": json.dumps(
        raw_message()[1] | {"properties": raw_message()[1]["properties"] | {"delivery_tag": "\udfff\ud800"}}
    ).encode(),
    "a route of a wrong type": json.dumps(
        raw_message()[1]
        | {"properties": raw_message()[1]["properties"] | {"delivery_info": {"exchange": [], "routing_key": {TEXT: 1}}}}
    ).encode(),
    "an encoding nobody knows": json.dumps(raw_message(b"", encoding="rot13")[1] | {"body": TEXT}).encode(),
    "deep nesting": deep(100_000),
    "deep nesting inside": b'{"properties": {}, "headers": {}, "body": ' + deep(5000) + b"}",
}

UNWRITABLE = (
    json.dumps(raw_message()[1] | {"headers": {"x": 0}}).encode().replace(b'{"x": 0}', b'{"x": %b}' % deep(1000))
)
"""Headers that kombu can read, and cannot write where Python's frames count: up to 3.11."""

BAD_TASKS = {
    "pickle": raw_message(
        pickle.dumps([[TEXT], {}, {}]),
        **{"content-type": "application/x-python-serialize", "content-encoding": "binary"},
    ),
    "a lone surrogate": raw_message(**{"content-type": "\ud800"}),
    "a lone surrogate in the body": raw_message(f"{TEXT}\ud800", encoding=None),
    "unknown content type": raw_message(**{"content-type": "application/x-nothing"}),
    "a body that is no JSON": raw_message(b"{%b" % REFUSALS),
    "a body that is no UTF-8": raw_message(b"\xff\xfe\x00%b" % REFUSALS),
    "unknown task": raw_message(task="no_such_task"),
    "a task with a long name": raw_message(task="x" * 5000),
    "a task of another queue": raw_message(task="execute_workflow"),
    "a task name of a wrong type": raw_message(task=["generate_embedding"]),
    "args of a wrong type": raw_message(b"[5, {}, {}]"),
    "args as a text": raw_message(b'["%b", {}, {}]' % REFUSALS),
    "kwargs of a wrong type": raw_message(b"[[], [], {}]"),
    "options of a wrong type": raw_message(b'[["%b"], {}, 5]' % REFUSALS),
    "body of a wrong shape": raw_message(b'{"%b": 1}' % REFUSALS),
    "an empty body": raw_message(b"[]"),
    "deep nesting": raw_message(b"[[" + deep(100_000) + b"], {}, {}]"),
    "null": raw_message(b"null"),
    "time limits of a wrong type": raw_message(headers={"timelimit": TEXT}),
    "another name of a wrong type": raw_message(headers={"shadow": {TEXT: 1}}),
    "callbacks that are none": raw_message(b'[["text"], {}, {"callbacks": [5]}]'),
    "a chain that is none": raw_message(b'[["text"], {}, {"chain": "%b"}]' % REFUSALS),
    "a chain of broken signatures": raw_message(b'[["text"], {}, {"chain": [{"task": "t", "options": []}]}]'),
    "a chord that is none": raw_message(b'[["text"], {}, {"chord": [1]}]'),
    "a task of Celery's own, which tries again for ever": raw_message(task="celery.chord_unlock"),
    "a compressed body without an end": raw_message(zlib.compress(BODY)[:-6], headers={"compression": "gzip"}),
    "a bomb": raw_message(zlib.compress(b" " * 60_000_000), headers={"compression": "gzip"}),
    "another bomb": raw_message(bz2.compress(b" " * 60_000_000), headers={"compression": "bzip2"}),
    "an expiry of a wrong type": raw_message(headers={"expires": TEXT}),
}  # fmt: skip


@pytest.mark.parametrize("entry", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_a_list_entry_that_is_not_a_message_becomes_a_dead_letter(plain, store, worker, dead_letters, entry):
    store.lpush(QUEUE, entry)
    assert plain.call("generate_embedding", "after it")["success"]
    [dead_letter] = eventually(lambda: list(dead_letters.newest()))
    assert (dead_letter.code, dead_letter.queue, dead_letter.task) == ("undecodable_message", QUEUE, None)
    assert dead_letter.error
    assert dead_letter.raw == entry[:4096].decode("utf-8", "backslashreplace")
    assert not worker.is_over


def test_a_message_whose_headers_cannot_be_written_becomes_a_dead_letter(plain, store, worker, dead_letters):
    store.lpush(QUEUE, UNWRITABLE)
    assert plain.call("generate_embedding", "after it")["success"]
    [dead_letter] = eventually(lambda: list(dead_letters.newest()))
    assert (dead_letter.code, dead_letter.queue, dead_letter.task) == ("undecodable_message", QUEUE, None)
    eventually(lambda: store.keys("citadel:unacked:*") == [])
    assert not worker.is_over


@pytest.mark.parametrize(("task_id", "message"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_a_message_that_is_not_a_task_fails_its_id_and_becomes_a_dead_letter(
    plain, store, worker, dead_letters, task_id, message
):
    store.lpush(QUEUE, json.dumps(message))
    assert plain.call("generate_embedding", "after it")["success"]
    error = error_of(plain.app.AsyncResult(task_id))
    dead_letter = eventually(lambda: dead_letters.get(task_id))
    assert dead_letter.error == error.removeprefix("UndecodableMessage: ").replace("\ud800", "?")
    assert dead_letter.code == "undecodable_message"
    eventually(lambda: store.keys("citadel:unacked:*") == [])
    assert not worker.is_over


@pytest.mark.parametrize("entry", [TEXT, {TEXT: 1}])
def test_a_caller_hears_of_a_message_that_is_none(plain, store, dead_letters, entry):
    task_id, message = raw_message()
    store.lpush(QUEUE, json.dumps(message | {"body": entry}))
    assert error_of(plain.app.AsyncResult(task_id)).startswith(
        "UndecodableMessage: an entry of the queue is not a mess"
    )
    assert eventually(lambda: dead_letters.get(task_id)).code == "undecodable_message"


@pytest.mark.parametrize("task_id", [5, None, "", ["a"], "\ud800", "x" * 300, "a\nb"])
def test_ids_that_are_none(plain, store, worker, dead_letters, task_id):
    message = raw_message()[1]
    message["headers"]["id"] = task_id
    store.lpush(QUEUE, json.dumps(message))
    assert plain.call("generate_embedding", "after it")["success"]
    [dead_letter] = eventually(lambda: list(dead_letters.newest()))
    assert (dead_letter.code, dead_letter.task) == ("undecodable_message", "generate_embedding")
    assert not worker.is_over


@pytest.mark.parametrize("task_id", [5, None, "", {"a": 1}, 1e308])
def test_ids_of_the_first_protocol_that_are_none(plain, store, worker, dead_letters, task_id):
    body = {"task": "generate_embedding", "id": task_id, "args": [TEXT], "kwargs": {}}
    store.lpush(QUEUE, json.dumps(raw_message(json.dumps(body).encode())[1] | {"headers": {}}))
    assert plain.call("generate_embedding", "after it")["success"]
    [dead_letter] = eventually(lambda: list(dead_letters.newest()))
    assert dead_letter.code == "undecodable_message"
    eventually(lambda: store.keys("citadel:unacked:*") == [])


@pytest.mark.parametrize(
    ("name", "compress"), [("gzip", zlib.compress), ("bzip2", bz2.compress), ("lzma", lzma.compress)]
)
def test_compressed_messages_are_read(plain, store, worker, name, compress):
    task_id, message = raw_message(compress(b'[["text"], {}, {}]'), headers={"compression": name})
    store.lpush(QUEUE, json.dumps(message))
    assert plain.app.AsyncResult(task_id).get(timeout=TIMEOUT)["success"]


def test_a_message_that_celery_cannot_end_is_not_held(plain, store, worker, dead_letters):
    """A signature that Celery can publish by its form, and then cannot."""
    task_id, message = raw_message(b'[["text"], {}, {"chain": [{"task": "t", "subtask_type": "group", "kwargs": {}}]}]')
    store.lpush(QUEUE, json.dumps(message))
    assert error_of(plain.app.AsyncResult(task_id))
    assert plain.call("generate_embedding", "after it")["success"]
    eventually(lambda: store.keys("citadel:unacked:*") == [])
    assert not worker.is_over


def test_a_message_that_celery_cannot_start_when_its_time_has_come_is_not_held(plain, store, worker, dead_letters):
    at = datetime.now(UTC) + timedelta(seconds=1)
    task_id, message = raw_message(headers={"eta": at.isoformat(), "timelimit": TEXT})
    store.lpush(QUEUE, json.dumps(message))
    assert error_of(plain.app.AsyncResult(task_id)).startswith("UndecodableMessage: the message is refused")
    assert eventually(lambda: dead_letters.get(task_id)).code == "undecodable_message"
    eventually(lambda: store.keys("citadel:unacked:*") == [])
    assert not worker.is_over


def test_a_huge_message_is_refused_by_its_limits(plain, store, worker, dead_letters):
    task_id, message = raw_message(json.dumps([[TEXT.ljust(20_000_000, "x")], {}, {}]).encode())
    store.lpush(QUEUE, json.dumps(message))
    assert "text: has 20000000 characters, the limit is 200000" in error_of(plain.app.AsyncResult(task_id))
    assert plain.call("generate_embedding", "after it")["success"]


def test_deep_arguments_are_refused(plain, store, worker, dead_letters):
    task_id, message = raw_message(b'[["text"], {"options": {"a": ' + deep(600) + b"}}, {}]")
    store.lpush(QUEUE, json.dumps(message))
    assert "options" in error_of(plain.app.AsyncResult(task_id))
    assert plain.call("generate_embedding", "after it")["success"]


def test_a_flood_of_garbage_harms_nobody(plain, store, worker, dead_letters):
    store.lpush(QUEUE, *[b"%b %d" % (REFUSALS, n) for n in range(300)])
    assert plain.call("generate_embedding", "after it")["success"]
    eventually(lambda: dead_letters.count() == 300)


def test_a_task_that_is_marked_as_accepted_and_is_not_stored_runs(plain, store, worker):
    task_id, message = raw_message(b'[["text"], {}, {}]', headers={"citadel_accepted": "another-task"})
    store.lpush(QUEUE, json.dumps(message))
    assert plain.app.AsyncResult(task_id).get(timeout=TIMEOUT)["success"]
    eventually(lambda: not store.exists(MESSAGES, DUE, LEASES))


def test_a_message_with_the_id_of_another_accepted_task_becomes_a_dead_letter(plain, store, worker, dead_letters):
    task_id, message = raw_message(b'[["text"], {}, {}]', headers={"citadel_accepted": 1})
    other = TaskMessage(task_id=task_id, name="execute_workflow", kwargs={}, priority=3)
    AcceptedTasks(store).add(other)
    store.lpush(QUEUE, json.dumps(message))
    [dead_letter] = eventually(lambda: list(dead_letters.newest()))
    assert (dead_letter.code, dead_letter.task) == ("undecodable_message", "generate_embedding")
    assert dead_letter.id != task_id
    assert AcceptedTasks(store).states([task_id]) == {task_id: "known"}, "the other task goes on"
    AcceptedTasks(store).finish(task_id)


@pytest.mark.parametrize("lane", [3, 6])
def test_a_key_of_another_type_stops_its_lane_alone(plain, store, worker, lane):
    key = f"{QUEUE}\x06\x16{lane}"
    assert plain.call("generate_embedding", "a client that has asked for the length of the queue")["success"]
    store.hset(key, "a", "b")
    for text in ("before", "and after a while"):
        assert plain.call("generate_embedding", text)["success"]
    assert {event["key"] for event in worker.events("queue_key_of_wrong_type")} >= {key}
    store.delete(key)
    assert plain.publish("generate_embedding", ["again"], priority=lane).get(timeout=TIMEOUT)["success"]
    assert not worker.is_over


def test_a_worker_starts_beside_a_key_of_another_type(store, redis_url, ollama):
    key = f"{QUEUE}\x06\x163"
    store.hset(key, "a", "b")
    with WorkerProcess(redis_url, ollama.url) as another:
        another.wait_for("queue_key_of_wrong_type")
    store.delete(key)


def test_keys_of_another_type_in_all_lanes_do_not_end_the_worker(plain, store, worker):
    keys = [QUEUE, *(f"{QUEUE}\x06\x16{lane}" for lane in (3, 6, 9))]
    store.mset(dict.fromkeys(keys, "x"))
    eventually(lambda: {event["key"] for event in worker.events("queue_key_of_wrong_type")} >= set(keys))
    store.delete(*keys)
    assert plain.call("generate_embedding", "after it")["success"]
    assert not worker.is_over
