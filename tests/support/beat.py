"""Beat candidates as processes, and the messages they published."""

import base64
import contextlib
import itertools
import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import redis

from citadel_common.delivery.queues import lists_of
from citadel_contracts import Queue
from citadel_maintenance.beat import schedule
from citadel_maintenance.beat.settings import BUILT_IN
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.worker import ServiceProcess

TASK = "warm_embedding_cache"
QUEUE = Queue.EMBEDDINGS
FAST = {"BEAT__LOCK_TTL": "1", "BEAT__MIN_INTERVAL": "0.1", "BEAT__ON_TIME": "30"}
ALONE = {f"BEAT__SCHEDULE__{name}__ENABLED": "false" for name in BUILT_IN}


def entry(name: str, **fields: Any) -> dict[str, Any]:
    """Return the settings of a test's own entry."""
    known = {"task": TASK, "args": '{"texts": []}'} | fields
    return {f"BEAT__SCHEDULE__{name}__{field.upper()}": value for field, value in known.items()}


class BeatProcess(ServiceProcess):
    """`python -m citadel_maintenance.beat` with these entries and no other; ready when the constructor returns."""

    def __init__(self, redis_url: str, *entries: Mapping[str, Any], wait: bool = True, **settings: Any) -> None:
        own = {name: value for fields in entries for name, value in fields.items()}
        super().__init__(
            "citadel_maintenance.beat", {"BROKER_URL": redis_url} | FAST | ALONE | own | settings, wait=False
        )
        if wait:
            self.wait_for("beat_ready")

    @property
    def identity(self) -> str:
        """The part of its token that a test can predict."""
        return f":{self.pid}:"

    def leads(self, store: "redis.Redis") -> bool:
        """Return whether it holds the leader's lock."""
        return self.identity.encode() in (store.get(schedule.LEADER) or b"")

    def resume(self) -> None:
        """Resume it after a pause."""
        self.signal(signal.SIGCONT)


@dataclass(frozen=True, kw_only=True)
class Periodic:
    """One published message."""

    task: str
    task_id: str
    kwargs: dict[str, Any]
    entry: str
    slot: int
    headers: dict[str, Any]


class Beats:
    """Candidates that share one Redis; they end with the block."""

    def __init__(self, server: RedisProcess, *entries: Mapping[str, Any], **settings: Any) -> None:
        self.server = server
        self._entries = entries
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self.store = self._stack.enter_context(server.client())
        self._living: list[BeatProcess] = []

    def start(self, **settings: Any) -> BeatProcess:
        """Start a candidate and return it."""
        process = BeatProcess(self.server.url, *self._entries, **(self._settings | settings))
        self._living.append(self._stack.enter_context(process))
        return process

    def leader(self) -> BeatProcess:
        """Wait until a candidate leads, and return it."""
        return eventually(lambda: next((beat for beat in self._living if beat.leads(self.store)), None))

    def end(self, beat: BeatProcess) -> None:
        """Kill a candidate."""
        beat.kill()
        self._living.remove(beat)

    def stop(self) -> None:
        """Stop all candidates with SIGTERM."""
        for beat in self._living:
            assert beat.terminate() == 0
        self._living.clear()

    def wait_for_more(self, count: int) -> None:
        """Wait until `count` further messages are published."""
        wanted = waiting(self.store) + count
        eventually(lambda: waiting(self.store) >= wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def waiting(store: "redis.Redis") -> int:
    """Return the number of messages in the queue."""
    return sum(int(store.llen(name)) for name in lists_of(QUEUE))


def messages(store: "redis.Redis") -> list[Periodic]:
    """Return the messages in the queue."""
    return [_periodic(json.loads(entry)) for name in lists_of(QUEUE) for entry in store.lrange(name, 0, -1)]


def slots_of(published: list[Periodic]) -> dict[str, list[int]]:
    """Return the slots of each entry, in order."""
    ordered = sorted(published, key=lambda message: (message.entry, message.slot))
    groups = itertools.groupby(ordered, key=lambda message: message.entry)
    return {name: [message.slot for message in group] for name, group in groups}


def assert_every_slot_once(published: list[Periodic], periods: Mapping[str, int]) -> None:
    """Check that each entry's slots follow each other without a gap and without a repetition.

    `periods` are milliseconds.
    """
    found = slots_of(published)
    assert found.keys() == periods.keys()
    for name, slots in found.items():
        expected = list(range(slots[0], slots[-1] + 1, periods[name]))
        assert slots == expected, f"{name}: {_difference(slots, expected)}"
        assert slots[0] % periods[name] == 0


def _difference(slots: list[int], expected: list[int]) -> str:
    twice = [slot for slot in set(slots) if slots.count(slot) > 1]
    return f"twice: {sorted(twice)}, never: {sorted(set(expected) - set(slots))}"


def _periodic(message: dict[str, Any]) -> Periodic:
    headers = message["headers"]
    name, _, moment = headers["citadel_slot"].partition(" ")
    _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    return Periodic(
        task=headers["task"],
        task_id=headers["id"],
        kwargs=kwargs,
        entry=name,
        slot=round(datetime.fromisoformat(moment).timestamp() * 1000),
        headers=headers,
    )


@contextlib.contextmanager
def open_beats(server: RedisProcess, *entries: Mapping[str, Any], **settings: Any) -> Iterator[Beats]:
    """Yield a place for candidates on an empty Redis, without one yet."""
    server.flush()
    with Beats(server, *entries, **settings) as beats:
        yield beats


class Schedule:
    """Reader of the schedule; `client` is a client of the broker's Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def entries(self) -> list[schedule.ScheduledEntry]:
        """Return the entries by name; none before there was a leader."""
        stored = self._client.hvals(schedule.ENTRIES)
        return sorted(filter(None, map(schedule.parse, stored)), key=lambda entry: entry.name)

    def leader(self) -> str | None:
        """Return the leader's id, or None."""
        holder = self._client.get(schedule.LEADER)
        return None if holder is None else str(holder, "utf-8")
