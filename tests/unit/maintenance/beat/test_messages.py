"""Messages of periodic tasks, made without a broker."""

import base64
import json

import pytest

from citadel_common.delivery.transport import problem_of
from citadel_common.settings.common import CommonSettings
from citadel_contracts import WARM_EMBEDDING_CACHE, Lane
from citadel_maintenance.beat.entry import Entry
from citadel_maintenance.beat.messages import Messages
from citadel_maintenance.beat.slots import Interval

SLOT = 1_700_000_000_000


def entry(**changes):
    fields = {"name": "warm", "spec": WARM_EMBEDDING_CACHE, "slots": Interval(1000), "kwargs": {"texts": ["é"]}}
    return Entry(**(fields | {"lane": Lane.BATCH, "on_time": 5000, "latest": None} | changes))


@pytest.fixture(scope="module")
def messages():
    return Messages(CommonSettings())


@pytest.mark.parametrize("lane", Lane)
def test_a_message_goes_to_the_list_of_its_lane(messages, lane):
    parcel = messages.parcel(entry(lane=lane), SLOT)
    suffix = f"\x06\x16{lane.value}" if lane.value else ""
    assert parcel.list_name == f"embeddings{suffix}"
    assert json.loads(parcel.message)["properties"]["priority"] == lane.value


def test_a_message_is_one_that_workers_read(messages):
    parcel = messages.parcel(entry(), SLOT)
    assert problem_of(parcel.message.encode()) is None
    envelope = json.loads(parcel.message)
    args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
    assert (args, kwargs) == ([], {"texts": ["é"]})
    headers = envelope["headers"]
    assert (headers["task"], headers["id"]) == ("warm_embedding_cache", entry().task_id(SLOT))
    assert headers["citadel_slot"] == "warm 2023-11-14T22:13:20+00:00"
    assert headers["expires"]


def test_messages_differ(messages):
    one, other = (json.loads(messages.parcel(entry(), SLOT + step).message) for step in (0, 1000))
    assert one["headers"]["id"] != other["headers"]["id"]
    assert one["properties"]["delivery_tag"] != other["properties"]["delivery_tag"]
