"""Looks for the ends of what was accepted: results in Redis, runs in PostgreSQL, past the proxy."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import orjson
import psycopg
import redis

from citadel_common.delivery.accepted_tasks import RESULT_PREFIX
from tests.chaos.storm.cluster import Cluster
from tests.chaos.storm.expectations import vectors_problem
from tests.chaos.storm.ledger import PLAIN, Entry, Fate, Kind, Ledger

PERIOD_S = 0.2
RUNS = (Kind.BATCH, Kind.WORKFLOW)
_CHUNK = 500
_ENDED = """
SELECT run_id::text, status, extract(epoch FROM finished_at)::float8, error FROM runs
WHERE run_id = ANY(%s::uuid[]) AND finished_at IS NOT NULL
"""


class Watcher:
    """A thread that writes into the ledger what has ended; the outputs of runs are read by the auditor."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self._cluster, self._ledger = cluster, ledger
        self._over = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._store = cluster.store()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Look once; a store that is away is asked again next time."""
        with suppress(redis.RedisError):
            self._look_for_results()
        try:
            self._look_for_runs()
        except psycopg.Error:
            self._disconnect()

    def _run(self) -> None:
        while not self._over.wait(PERIOD_S):
            self.look()

    def _look_for_results(self) -> None:
        open_ones = self._ledger.unended(*PLAIN, Kind.TASK)
        for at in range(0, len(open_ones), _CHUNK):
            chunk = open_ones[at : at + _CHUNK]
            found: Any = self._store.mget([f"{RESULT_PREFIX}{entry.handle}" for entry in chunk])
            self.take_results(chunk, found)

    def take_results(self, entries: Sequence[Entry], results: Sequence[bytes | None]) -> None:
        """Record the ends of tasks whose results are final."""
        for entry, stored in zip(entries, results, strict=True):
            result = orjson.loads(stored) if stored else {"status": "PENDING"}
            if result["status"] == "SUCCESS":
                problem = problem_of(entry, result["result"])
                self._ledger.end(entry, Fate.WRONG if problem else Fate.FINISHED, problem)
            elif result["status"] in {"FAILURE", "REVOKED"}:
                self._ledger.end(entry, Fate.FAILED, str(result["result"])[:500])

    def _look_for_runs(self) -> None:
        open_ones = {entry.handle: entry for entry in self._ledger.unended(*RUNS)}
        if not open_ones:
            return
        if self._connection is None:
            self._connection = self._cluster.connect()
        for run_id, status, finished_at, error in self._connection.execute(_ENDED, [list(open_ones)]).fetchall():
            fate = Fate.FINISHED if status == "succeeded" else Fate.FAILED
            self._ledger.end(open_ones[run_id], fate, f"{status}: {error}" if error else "", at=finished_at)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._disconnect()
        self._store.close()


def problem_of(entry: Entry, result: Any) -> str:
    """Return what is wrong with the result of a task; empty if nothing is."""
    if entry.kind is Kind.PLAIN_WORKFLOW:
        if not result["success"]:
            return str(result.get("error"))[:500]
        problem: str = entry.expected(result["output"])
        return problem
    return vectors_problem(result["embeddings"], entry.expected)
