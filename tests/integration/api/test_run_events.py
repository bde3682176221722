"""Events of runs: live until the end, without loss or repetition through outages."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.servers import Api
from tests.integration.api.stack import WAIT, Stack, embedding
from tests.support.polling import eventually
from tests.support.web import web

EVENTS = {"accept": "text/event-stream"}
JSON = {"accept": "application/json"}


def messages(data: bytes) -> list[dict[str, str]]:
    """Return the complete server-sent messages in the received bytes, without comments."""
    found = []
    for block in data.split(b"\n\n")[:-1]:
        lines = [line for line in block.decode().split("\n") if not line.startswith(":")]
        if lines:
            found.append(dict(line.split(": ", 1) for line in lines))
    return found


def events_of(received: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the run's events; checks that each message's id and name are those of its event."""
    found = [(message, json.loads(message["data"])) for message in received if "id" in message]
    assert all((message["id"], message["event"]) == (str(event["seq"]), event["type"]) for message, event in found)
    return [event for _, event in found]


def is_complete(events: list[dict[str, Any]]) -> bool:
    return [event["seq"] for event in events] == list(range(1, len(events) + 1))


def until(pieces: Iterator[bytes], wanted: bytes) -> bytes:
    """Read the stream up to the chunk that holds `wanted`."""
    data = b""
    for piece in pieces:
        data += piece
        if wanted in data:
            return data
    raise AssertionError(f"the stream ended without {wanted!r}: {data!r}")


class Client(threading.Thread):
    """Follow a run to its end, reconnecting wherever the connection is cut."""

    def __init__(self, api: Callable[[], Api], path: str) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._path = path
        self.events: list[dict[str, Any]] = []
        self.connections = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Follow the run, in the thread."""
        while not self.ended.wait(0.05):
            try:
                self._follow()
            except httpx.TransportError:
                continue

    def _follow(self) -> None:
        last = str(self.events[-1]["seq"]) if self.events else "0"
        url, headers = self._api().url + self._path + "/events", EVENTS | {"last-event-id": last}
        with web.stream("GET", url, headers=headers, timeout=30) as answer:
            if answer.status_code != 200:
                return
            self.connections += 1
            rest = b""
            for piece in answer.iter_raw():
                whole, _, rest = (rest + piece).rpartition(b"\n\n")
                received = messages(whole + b"\n\n" if whole else b"")
                self.events += events_of(received)
                if any(message["event"] == "end" for message in received):
                    self.ended.set()


def test_events_come_live_and_the_stream_ends_with_the_run(stack: Stack) -> None:
    path = stack.submit(WAIT)
    with stack.http.stream("GET", f"{path}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = answer.iter_raw()
        before = until(pieces, b"step_waiting")
        assert b"event: end" not in before
        stack.http.post(f"{path}/signals/go").raise_for_status()
        received = messages(before + b"".join(pieces))
    assert received[-1]["event"] == "end"
    events = events_of(received)
    assert is_complete(events)
    assert [event["type"] for event in events] == [
        "run_submitted",
        "step_started",
        "step_waiting",
        "signal",
        "step_succeeded",
        "run_succeeded",
    ]


@pytest.mark.parametrize("headers", [{}, {"accept": "*/*"}, EVENTS, {"accept": "text/event-stream, application/json"}])
def test_a_client_that_does_not_accept_json_gets_events(stack: Stack, headers: dict[str, str]) -> None:
    path = stack.submit(WAIT)
    with stack.http.stream("GET", f"{path}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_json_is_the_list_of_the_events_so_far(stack: Stack) -> None:
    path = stack.submit(WAIT)
    stack.waiting(path)
    events = stack.http.get(f"{path}/events", headers=JSON).json()
    assert [event["type"] for event in events] == ["run_submitted", "step_started", "step_waiting"]
    later = stack.http.get(f"{path}/events?after=2", headers=JSON).json()
    assert later == events[2:]


def test_head_tells_the_headers_of_a_stream_and_does_not_run_it(stack: Stack) -> None:
    path = stack.submit(WAIT)
    stack.waiting(path)
    for slash in ("", "/"):
        answer = stack.http.head(f"{path}/events{slash}")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"


def test_a_quiet_stream_sends_keep_alives(stack: Stack) -> None:
    path = stack.submit(WAIT)
    with stack.http.stream("GET", f"{path}/events") as answer:
        until(answer.iter_raw(), b": alive\n\n")


def test_a_client_that_is_cut_off_anywhere_misses_nothing_and_sees_nothing_twice(stack: Stack) -> None:
    items = [f"item {number}" for number in range(40)]
    path = stack.submit(embedding("each", "${{ item }}", for_each={"items": items, "max_parallel": 3}))
    chance = random.Random(7)
    events: list[dict[str, Any]] = []
    connections = 0
    while not events or events[-1]["type"] != "run_succeeded":
        connections += 1
        headers = {"last-event-id": str(events[-1]["seq"])} if events else {}
        bytes_wanted = chance.randrange(1, 1500)
        data = b""
        with stack.http.stream("GET", f"{path}/events", headers=headers) as answer:
            for piece in answer.iter_raw():
                data += piece
                if len(data) >= bytes_wanted:
                    break
        received = messages(data[:bytes_wanted])
        events += events_of(received)
    assert connections > 10
    assert is_complete(events)
    assert sum(event["type"] == "step_succeeded" and event["item"] is not None for event in events) == len(items)
    assert events == stack.http.get(f"{path}/events", headers=JSON).json()


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "9" * 30])
def test_a_bad_last_event_id_is_refused(stack: Stack, bad: str) -> None:
    path = stack.submit(WAIT)
    answer = stack.http.get(f"{path}/events", headers={"last-event-id": bad})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_followers_outlast_restarts_of_postgres_and_of_the_api(stack: Stack) -> None:
    steps = [WAIT | {"step_id": name, "parameters": {"signal": name}} for name in "abcd"]
    path = stack.submit(*steps)
    client = Client(lambda: stack.api, path)
    client.start()
    eventually(lambda: client.events)
    stack.waiting(path, "a")
    stack.postgres.restart()
    proceed(stack, path, "a", "b")
    assert client.connections == 1  # it was not even cut off
    assert stack.api.terminate() == 0  # although a stream is open, which would hold it up for long
    stack.start_api()
    proceed(stack, path, "b", "c")
    eventually(lambda: client.connections == 2)
    stack.api.kill_all()
    stack.start_api()
    proceed(stack, path, "c", "d")
    stack.http.post(f"{path}/signals/d").raise_for_status()
    assert client.ended.wait(60)
    assert client.connections == 3
    assert is_complete(client.events)
    assert client.events == stack.http.get(f"{path}/events", headers=JSON).json()


def test_a_follower_outlasts_an_outage_in_which_others_are_refused(stack: Stack, tmp_path: Path) -> None:
    api = stack.another_api(tmp_path / "log", POSTGRES__TIMEOUT=1)
    try:
        path = stack.submit(WAIT)
        client = Client(lambda: api, path)
        client.start()
        eventually(lambda: client.events)
        stack.postgres.stop()
        # the follower, who looks every two seconds, fails too
        assert [web.get(f"{api.url}/v1/runs").status_code for _ in range(5)] == [503] * 5
        stack.postgres.start()
        stack.waiting(path)
        eventually(lambda: stack.http.post(f"{path}/signals/go").is_success)
        assert client.ended.wait(60)
    finally:
        api.kill_all()
    assert client.connections == 1
    assert is_complete(client.events)
    assert client.events[-1]["type"] == "run_succeeded"


def proceed(stack: Stack, path: str, signal: str, following: str) -> None:
    """End one step and wait for the next, retrying the 503s that may follow an outage."""
    eventually(lambda: stack.http.post(f"{path}/signals/{signal}").is_success)
    stack.waiting(path, following)
