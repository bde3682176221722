"""A list that no worker reads: whose it is, which setting of its client differs, and where its messages belong."""

import base64
import json
import zlib
from typing import Any

import pytest

from citadel_common.delivery import serializer
from citadel_contracts import GENERATE_EMBEDDING, Queue
from citadel_maintenance.rerouting.addresses import Address, address_in
from citadel_maintenance.rerouting.findings import finding_of, lane_of

DEFAULT = "\x06\x16"
TOPIC = b"emb.#:^emb\\..*?$:embeddings"
BOUND = {"theirs": {TOPIC}, "own": {TOPIC, b"x::embeddings:4"}}


def address(exchange: str = "", routing_key: str = "embeddings") -> Address:
    """Return the address of a message for `generate_embedding`."""
    return Address(spec=GENERATE_EMBEDDING, exchange=exchange, routing_key=routing_key, priority=3)


@pytest.mark.parametrize(
    "key", ["embeddings", f"embeddings{DEFAULT}3", f"maintenance{DEFAULT}9", "citadel:x:inbox", "citadel:embeddings"]
)
def test_the_workers_lists_are_in_order(key: str) -> None:
    assert finding_of(key, address(), lambda _: set()) is None


@pytest.mark.parametrize(
    ("key", "sent_to", "reason", "is_ours"),
    [
        ("embeddings:3", address(), "separator", True),
        ("embeddings##9", address(), "separator", True),
        ("embeddings: -1", address(), "separator", True),
        (f"embeddings{DEFAULT}5", address(), "priority_steps", True),
        (f"embeddings{DEFAULT}5", address("theirs", "emb.x"), "priority_steps", True),
        ("embeddings:3", address("theirs", "emb.x"), "separator", True),
        ("embeddings:3", address("another", "emb.x"), "queue", False),
        ("embeddings:3", address(routing_key="embeddings:3"), "queue", False),
        ("embeddings_q3", address(), "separator", True),
        ("embeddings5:3", address(), "separator", True),
        ("embeddings:4", address("own", "x"), "queue", False),
        ("embeddings2", address("theirs", "emb.x"), "queue", False),
        ("embeddings2", address(), "separator", True),
        ("embeddings-v3", address(routing_key="embeddings-v3"), "queue", False),
        ("shop:embeddings", address(), "key_prefix", False),
        (f"shop:embeddings{DEFAULT}3", address(), "key_prefix", False),
        ("shop:embeddings:3", address(), "key_prefix", False),
        ("shop:embeddings", address(routing_key="shop:embeddings"), "queue", False),
        ("celery", address(routing_key="celery"), "queue", False),
        ("archive", address(), "queue", False),
    ],
)
def test_lists_that_no_worker_reads(key: str, sent_to: Address, reason: str, is_ours: bool) -> None:
    found = finding_of(key, sent_to, lambda exchange: BOUND.get(exchange, set()))
    assert found is not None
    assert (found.queue, found.reason, found.is_ours) == (Queue.EMBEDDINGS, reason, is_ours)
    assert found.help.endswith(".")


@pytest.mark.parametrize(("priority", "lane"), [(0, ""), (2, ""), (3, "3"), (5, "3"), (6, "6"), (8, "6"), (9, "9")])
def test_priorities_have_the_lanes_that_a_client_of_the_same_settings_takes(priority: int, lane: str) -> None:
    assert lane_of(Queue.EMBEDDINGS, priority) == f"embeddings{DEFAULT}{lane}" if lane else "embeddings"


def message(body: Any = None, **changes: Any) -> dict[str, Any]:
    """Return a message as kombu writes it."""
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-type": "application/json",
        "headers": {"task": "generate_embedding"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "embeddings"},
            "body_encoding": "base64",
            "priority": 7,
        },
    } | changes


FIRST = {"task": "generate_embedding", "id": "x", "args": []}


def test_the_task_and_the_address_are_read_from_both_protocols() -> None:
    serializer.install()
    squeezed = base64.b64encode(zlib.compress(json.dumps(FIRST).encode())).decode()
    for found in (
        message(),
        message(FIRST, headers={}),
        message(FIRST, headers=None),
        message(headers={"compression": "application/x-gzip"}) | {"body": squeezed},
    ):
        read = address_in(json.dumps(found).encode())
        assert read == Address(spec=GENERATE_EMBEDDING, exchange="", routing_key="embeddings", priority=7)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\xff",
        b"[]",
        b"5",
        b"[" * 100_000,
        json.dumps(message(headers={"task": "theirs"})).encode(),
        json.dumps(message(headers={"task": ["generate_embedding"]})).encode(),
        json.dumps(message(FIRST, headers={}, **{"content-type": "application/x-python-serialize"})).encode(),
        json.dumps(message(headers={"compression": "application/x-gzip"}) | {"body": "AAAA"}).encode(),
        json.dumps(message([1], headers={})).encode(),
        json.dumps(message(properties={})).encode(),
        json.dumps(message(properties={"delivery_info": {"exchange": 1, "routing_key": "embeddings"}})).encode(),
    ],
)
def test_entries_of_other_programs_have_no_address(entry: bytes) -> None:
    serializer.install()
    assert address_in(entry) is None
