"""Messages of periodic tasks, built without a broker."""

import base64
import json

import pytest

from citadel_common.delivery.entries import problem_of
from citadel_common.settings.common import CommonSettings
from citadel_contracts import WARM_EMBEDDING_CACHE, Lane
from citadel_maintenance.beat.entry import Entry
from citadel_maintenance.beat.messages import MessageFactory
from citadel_maintenance.beat.slots import Interval

SLOT = 1_700_000_000_000


def entry(**changes):
    fields = {"name": "warm", "spec": WARM_EMBEDDING_CACHE, "slots": Interval(1000), "kwargs": {"texts": ["é"]}}
    return Entry(**(fields | {"lane": Lane.BATCH, "on_time": 5000, "latest": None} | changes))


@pytest.fixture(scope="module")
def factory():
    return MessageFactory(CommonSettings())


@pytest.mark.parametrize("lane", Lane)
def test_a_message_goes_to_the_list_of_its_lane(factory, lane):
    message = factory.build(entry(lane=lane), SLOT)
    suffix = f"\x06\x16{lane.value}" if lane.value else ""
    assert message.list_name == f"embeddings{suffix}"
    assert json.loads(message.text)["properties"]["priority"] == lane.value


def test_a_message_is_readable_by_workers(factory):
    message = factory.build(entry(), SLOT)
    assert problem_of(message.text.encode()) is None
    decoded = json.loads(message.text)
    args, kwargs, _ = json.loads(base64.b64decode(decoded["body"]))
    assert (args, kwargs) == ([], {"texts": ["é"]})
    headers = decoded["headers"]
    assert (headers["task"], headers["id"]) == ("warm_embedding_cache", entry().task_id(SLOT))
    assert headers["citadel_slot"] == "warm 2023-11-14T22:13:20+00:00"
    assert headers["expires"]


def test_messages_of_two_slots_have_different_ids_and_tags(factory):
    one, other = (json.loads(factory.build(entry(), SLOT + step).text) for step in (0, 1000))
    assert one["headers"]["id"] != other["headers"]["id"]
    assert one["properties"]["delivery_tag"] != other["properties"]["delivery_tag"]
