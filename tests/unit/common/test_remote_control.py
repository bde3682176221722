"""Commands of Celery's remote control, as clients write them and as no client does."""

import base64
import json
import random
from contextlib import suppress

import pytest
from kombu import compression

from citadel_common.worker.remote_control import MOST_BYTES, BadCommand, command_in

WORKER = "embeddings@host:7:abc"
PING = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
REPLY_TO = {"exchange": "reply.celery.pidbox", "routing_key": "0f-1"}


def message(content_of, /, **changes):
    """Return a message as kombu's mailbox publishes it."""
    content = content_of if isinstance(content_of, bytes) else json.dumps(content_of).encode()
    whole = {
        "body": base64.b64encode(content).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"clock": 1, "expires": 0},
        "properties": {
            "delivery_mode": 1,
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "7",
        },
    } | changes
    return json.dumps(whole).encode()


def command(**changes):
    return command_in(message(PING | changes))


def test_a_command_for_all_workers_is_for_each():
    found = command()
    assert (found.method, found.arguments, found.routing_key) == ("ping", {}, None)
    assert found.is_for(WORKER)


@pytest.mark.parametrize(
    ("meant", "address"),
    [
        (True, {"destination": [WORKER, "other"]}),
        (False, {"destination": ["other"]}),
        (True, {"pattern": "embeddings@*", "matcher": "glob"}),
        (False, {"pattern": "monitoring@*", "matcher": "glob"}),
    ],
)
def test_a_command_is_for_the_workers_that_it_names(meant, address):
    assert command(**address).is_for(WORKER) is meant


def test_an_answer_goes_to_the_list_of_the_one_who_asks():
    found = command(reply_to=REPLY_TO, ticket="t")
    assert (found.routing_key, found.ticket) == ("0f-1", "t")


@pytest.mark.parametrize(
    "reply_to",
    [
        {"exchange": "citadel", "routing_key": "x"},
        {"exchange": "reply.celery.pidbox"},
        {"exchange": "reply.celery.pidbox", "routing_key": ""},
        {"exchange": "reply.celery.pidbox", "routing_key": "x" * 300},
        {"exchange": "reply.celery.pidbox", "routing_key": 7},
        "reply.celery.pidbox",
        [],
    ],
)
def test_an_answer_can_go_nowhere_else(reply_to):
    with pytest.raises(BadCommand, match="reply_to"):
        command(reply_to=reply_to)


@pytest.mark.parametrize("name", ["gzip", "bzip2"])
def test_a_compressed_command_is_read(name):
    body, kind = compression.compress(json.dumps(PING).encode(), name)
    assert command_in(message(body, headers={"compression": kind})).method == "ping"


BAD = {
    "no JSON": b"\x80\x04\x95",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "a number": b"7",
    "a list": b"[]",
    "no body": message(PING, body=None),
    "pickle": message(b"\x80", **{"content-type": "application/x-python-serialize"}),
    "no base64": message(PING, body="\u00e4"),
    "surrogates": message(PING, body="\ud800"),
    "body no JSON": message(b"{"),
    "body no object": message([]),
    "body deep": message(b"[" * 100_000),
    "unknown compression": message(PING, headers={"compression": "none such"}),
    "compression no text": message(PING, headers={"compression": [1]}),
    "not compressed": message(PING, headers={"compression": "application/x-gzip"}),
    "no method": message({"arguments": {}}),
    "method no text": message({"method": ["ping"]}),
    "arguments no mapping": message(PING | {"arguments": [1]}),
    "destination a text": message(PING | {"destination": WORKER}),
    "destination of numbers": message(PING | {"destination": [1]}),
    "regular expression": message(PING | {"pattern": "(a+)+$", "matcher": "pcre"}),
    "pattern of a number": message(PING | {"pattern": 1, "matcher": "glob"}),
    "huge": b'"' + b"x" * MOST_BYTES + b'"',
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_no_client_sends_is_refused_without_a_quote(data):
    with pytest.raises(BadCommand) as refused:
        command_in(data)
    assert len(str(refused.value)) < 100


def test_damaged_commands_are_read_or_refused():
    rng = random.Random(7)
    whole = message(PING | {"reply_to": REPLY_TO, "ticket": "t"})
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        with suppress(BadCommand):
            command_in(bytes(damaged))
