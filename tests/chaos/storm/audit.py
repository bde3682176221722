"""The audit of a storm: what was accepted against what is recorded, vector by vector and step by step."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import orjson
import redis

from citadel_common.delivery.accepted_tasks import MESSAGES
from citadel_common.delivery.dead_letters import DEAD_LETTERS
from citadel_common.delivery.queues import lists_of
from citadel_contracts import Queue
from tests.chaos.storm.cluster import Cluster
from tests.chaos.storm.expectations import prompt, vectors_problem
from tests.chaos.storm.flushing import Flushes
from tests.chaos.storm.ledger import PLAIN, Entry, Fate, Kind, Ledger

LAG_S = 1.0
"""Seconds that a question may have been on its way to the LLM's double, as its clock and PostgreSQL's tell."""
PERIOD_S, LOOKS = 0.2, 100
_TWICE = """
SELECT workflow_id, step_id, item, count(*) FROM events JOIN runs USING (run_id)
WHERE type = 'step_succeeded' GROUP BY run_id, workflow_id, step_id, item HAVING count(*) > 1
"""
_GAPS = "SELECT run_id FROM events GROUP BY run_id HAVING count(*) <> max(seq)"
_RUNS_TWICE = "SELECT workflow_id FROM runs WHERE kind <> 'batch' GROUP BY workflow_id HAVING count(*) > 1"
_RECORDED = """
SELECT workflow_id, step_id, item, extract(epoch FROM steps.finished_at)::float8 FROM steps JOIN runs USING (run_id)
WHERE steps.status = 'succeeded'
"""
_UNFINISHED = "SELECT run_id::text, workflow_id, status, kind FROM runs WHERE finished_at IS NULL"


class Audit:
    """Checks everything that is left of a storm; call it once nothing is under way any more.

    Args:
        cluster: The processes.
        ledger: What was accepted.
        flushes: What flushes have destroyed.
    """

    def __init__(self, cluster: Cluster, ledger: Ledger, flushes: Flushes) -> None:
        self._cluster, self._ledger, self._flushes = cluster, ledger, flushes
        self.twice: list[str] = []
        self.left: list[str] = []

    def run(self) -> None:
        """Write what is found into the ledger, into `twice` (effects) and into `left` (what should be gone)."""
        with self._cluster.connect() as connection, self._cluster.store() as store:
            self._judge_open_ones(connection)
            self._judge_outputs()
            self._look_for_repetitions(connection)
            self._look_for_questions_after_answers(connection)
            self._look_for_leftovers(connection, store)

    def _judge_open_ones(self, connection: Any) -> None:
        running = {row[0] for row in connection.execute(_UNFINISHED).fetchall()}
        for entry in self._ledger.unended(*Kind):
            if entry.kind in PLAIN and self._flushes.may_have_destroyed(entry):
                self._ledger.end(entry, Fate.DESTROYED, "Redis forgot it")
            elif entry.fate is Fate.UNCERTAIN:
                self._ledger.end(entry, Fate.REFUSED, f"not known to be sent: {entry.reason}")
            elif entry.handle in running:
                self._ledger.end(entry, Fate.STUCK, "its run has not ended")
            else:
                self._ledger.end(entry, Fate.LOST, "it has no end")

    def _judge_outputs(self) -> None:
        """Read the outputs of runs as clients do."""
        with httpx.Client(base_url=self._cluster.api_url, timeout=60) as http:
            for entry in self._ledger.entries():
                if entry.fate is Fate.FINISHED and entry.kind in {Kind.BATCH, Kind.WORKFLOW}:
                    problem = _problem_of_run(http, entry)
                    if problem:
                        self._ledger.end(entry, Fate.WRONG, problem, at=entry.ended_at)

    def _look_for_repetitions(self, connection: Any) -> None:
        for workflow, step_id, item, count in connection.execute(_TWICE).fetchall():
            self.twice.append(f"step {step_id}[{item}] of {workflow} was recorded {count} times")
        for (run_id,) in connection.execute(_GAPS).fetchall():
            self.twice.append(f"the events of run {run_id} have a gap or a repetition")
        for (workflow,) in connection.execute(_RUNS_TWICE).fetchall():
            self.twice.append(f"{workflow} has several runs")

    def _look_for_questions_after_answers(self, connection: Any) -> None:
        """Find the questions that reached the LLM after their step was recorded."""
        recorded = {prompt(*row[:3]): row[3] for row in connection.execute(_RECORDED).fetchall()}
        for asked, moments in self._questions().items():
            late = [at - recorded[asked] for at in moments if asked in recorded and at > recorded[asked] + LAG_S]
            self.twice += [f"the LLM was asked {asked} {seconds:.1f} s after its step was recorded" for seconds in late]

    def _questions(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = defaultdict(list)
        if self._cluster.journal.exists():
            for line in self._cluster.journal.read_bytes().splitlines():
                at, asked = orjson.loads(line)
                found[asked].append(at)
        return found

    def _look_for_leftovers(self, connection: Any, store: "redis.Redis") -> None:
        self.left += [f"run {row[0]} of {row[1]} is {row[2]}" for row in connection.execute(_UNFINISHED).fetchall()]
        known = {entry.handle: entry for entry in self._ledger.entries()}
        dead: Any = store.hkeys(DEAD_LETTERS)
        for name in sorted(self._flushes.dead_letters | {each.decode() for each in dead}):
            entry = known.get(name)
            self.left.append(f"task {name} ({entry.kind if entry else 'not of the load'}) is a dead letter")
        waiting: list[str] = []
        for _ in range(LOOKS):  # tasks of beat come and go
            waiting = list(_waiting(self._cluster, store))
            if not waiting:
                break
            time.sleep(PERIOD_S)
        self.left += waiting


def _waiting(cluster: Cluster, store: "redis.Redis") -> Iterator[str]:
    served = {member.kind for member in cluster.members}
    for queue in (queue for queue in Queue if queue.value in served):
        length = sum(int(store.llen(name)) for name in lists_of(queue))
        if length:
            yield f"{length} messages wait in the queue {queue.value}"
    if count := store.hlen(MESSAGES):
        yield f"{count} accepted tasks are still stored"
    for key in store.scan_iter("citadel:unacked:*", count=1000):
        if store.type(key) == b"hash" and store.hlen(key):
            yield f"{store.hlen(key)} messages are held in {key.decode()}"


def _problem_of_run(http: httpx.Client, entry: Entry) -> str:
    if entry.kind is Kind.WORKFLOW:
        answer = http.get(f"/v1/runs/{entry.handle}/output")
        if answer.status_code != httpx.codes.OK:
            return f"its output: {answer.status_code} {answer.text[:300]}"
        problem: str = entry.expected(answer.json())
        return problem
    answer = http.get(f"/v1/runs/{entry.handle}/results")
    lines = [orjson.loads(line) for line in answer.text.splitlines()]
    if [line.get("index") for line in lines] != list(range(len(entry.expected))):
        return f"its results: {answer.status_code}, lines {[line.get('index') for line in lines]}"
    if any(line["errors"] or line["request_id"] != entry.expected[line["index"]] for line in lines):
        return f"its results: {next(line['errors'] for line in lines)!r}"
    return vectors_problem([line["embeddings"][0] for line in lines], entry.expected)


def quiet_within(cluster: Cluster, ledger: Ledger, seconds: float) -> float:
    """Wait until all that was accepted has ended and no queue holds a message; return the seconds that it took.

    After `seconds` it is not waited for any longer, and the audit finds what is left.
    """
    begin = time.monotonic()
    with cluster.store() as store:
        while time.monotonic() < begin + seconds:
            is_open = any(entry.fate is Fate.OPEN for entry in ledger.unended(*Kind))
            if not is_open and not any(_waiting(cluster, store)):
                break
            time.sleep(PERIOD_S)
    return time.monotonic() - begin


def fates(entries: Iterable[Entry]) -> dict[Kind, Counter[Fate]]:
    """Count the entries by kind and fate."""
    found: dict[Kind, Counter[Fate]] = {kind: Counter() for kind in Kind}
    for entry in entries:
        found[entry.kind][entry.fate] += 1
    return {kind: counts for kind, counts in found.items() if counts}
