"""Reconciles messages with what became of them: a result, an error or a dead letter each, and none vanishes."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis

from citadel_common.delivery.accepted_tasks import RESULT_PREFIX
from citadel_common.delivery.dead_letters import DEAD_LETTERS, KEYS
from citadel_common.tasks.stats import STATS, parse_stats
from tests.fuzz.messages import INTERNAL, TASKS, Sent
from tests.fuzz.server import FuzzedServer
from tests.support.celery_client import PlainClient
from tests.support.polling import eventually

FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
QUEUES = tuple(dict.fromkeys(queue for queue, _ in TASKS.values()))
PATIENCE = 300.0
RUNS_END = 60.0
"""Seconds for the results of runs, and for the statistics of a heartbeat, after the queues are empty."""
_CHUNK = 500
_UNFINISHED = "SELECT reply_to FROM runs WHERE finished_at IS NULL AND reply_to IS NOT NULL"


@dataclass(kw_only=True)
class Ends:
    """What became of messages.

    Attributes:
        kinds: Number of messages by kind of end.
        unknown: Messages of which nothing is known.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    unknown: list[Sent] = field(default_factory=list)


class Reconciler:
    """Sends messages, and finds what became of them once the workers have taken all.

    Args:
        server: The server.
        store: A client of its Redis.
    """

    def __init__(self, server: FuzzedServer, store: "redis.Redis") -> None:
        self._server, self._store = server, store

    def send(self, sent: Sequence[Sent]) -> Ends:
        """Send messages, wait, and return what became of them; their results and dead letters are removed."""
        before = self._ended()
        for at in range(0, len(sent), _CHUNK):
            pipe = self._store.pipeline(transaction=False)
            for each in sent[at : at + _CHUNK]:
                pipe.lpush(each.list_key, each.entry)
            pipe.execute()
        self._reroute()
        eventually(self._is_drained, PATIENCE)
        ends = self._ends_of(sent, before)
        self._forget(sent)
        return ends

    def _reroute(self) -> None:
        """Have maintenance move what is in the lists of clients with other settings, as it does each minute."""
        with PlainClient(self._server.redis.url) as plain:
            report = plain.publish("citadel.reroute_messages", queue="maintenance").get(timeout=PATIENCE)
        assert report["finished"], report

    def _is_drained(self) -> bool:
        names = [f"{queue}{end}" for queue in QUEUES for end in ("", *(f"\x06\x16{step}" for step in (3, 6, 9)))]
        waiting = sum(int(self._store.llen(name)) for name in names)
        return waiting == 0 and not any(self._store.scan_iter("citadel:unacked:*", count=1000))

    def _ends_of(self, sent: Sequence[Sent], before: Counter[str]) -> Ends:
        ends, pending = Ends(), [each for each in sent if each.task_id is not None]

        def all_known() -> bool:
            pending[:] = self._not_ended(pending, ends, before)
            return not pending

        try:
            eventually(all_known, RUNS_END)
        except AssertionError:
            ends.unknown += pending
        anonymous = [each for each in sent if each.task_id is None]
        letters = sum(b"-" in name for name in self._store.hkeys(DEAD_LETTERS))  # ids of messages hold no dash
        ends.kinds["dead letter without an id"] += letters
        if letters < len(anonymous):
            ends.unknown += anonymous
        return ends

    def _not_ended(self, pending: Sequence[Sent], ends: Ends, before: Counter[str]) -> list[Sent]:
        """Count the messages whose end is known, and return the others."""
        left, runs, ended = [], self._runs(), self._ended() - before
        letters = {name.decode() for name in self._store.hkeys(DEAD_LETTERS)}
        stored: Any = self._store.mget([f"{RESULT_PREFIX}{each.task_id}" for each in pending]) if pending else []
        for each, result in zip(pending, stored, strict=True):
            status = json.loads(result)["status"] if result else None
            counted = f"ended without a result: {each.task}"
            if status in FINAL:
                ends.kinds[status] += 1
            elif each.task_id in letters:
                ends.kinds["dead letter"] += 1
            elif each.task_id in runs:
                ends.kinds["run goes on"] += 1
            elif (each.task in INTERNAL or each.wants_no_result) and ended[str(each.task)] > ends.kinds[counted]:
                ends.kinds[counted] += 1
            else:
                left.append(each)
        return left

    def _runs(self) -> set[str]:
        """Return the ids of the tasks whose runs have not ended."""
        with psycopg.connect(self._server.dsn) as connection:
            rows = connection.execute(_UNFINISHED).fetchall()
        return {task_id for (reply_to,) in rows for task_id in reply_to.split("\n")}

    def _ended(self) -> Counter[str]:
        """Return how many tasks of each name have ended."""
        counts = Counter[str]()
        for (task, kind, label), number in parse_stats(self._store.hgetall(STATS)):
            if kind == "ended" and label not in {"retried", "handed_back"}:
                counts[task] += int(number)
        return counts

    def _forget(self, sent: Sequence[Sent]) -> None:
        self._store.delete(*KEYS)
        for at in range(0, len(sent), _CHUNK):
            self._store.unlink(*(f"{RESULT_PREFIX}{each.task_id}" for each in sent[at : at + _CHUNK]))
