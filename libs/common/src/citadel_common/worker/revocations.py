"""What follows from a revoke: stored for all workers, the task's state set, its work ended, its run cancelled.

A worker does its part for each revoke that it hears of, the others theirs: every step may be done twice. A step whose
store does not answer is done later.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from celery.worker import state as worker_state

from citadel_common.delivery.revoked import stamps_in
from citadel_common.delivery.timers import remove_waiting
from citadel_common.errors import CitadelError
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.tasks.runtime import TaskRuntime

log = structlog.get_logger(__name__)
BATCH = 500
"""Tasks of one command to a store."""
MOST_DELAYED = 200
"""Batches that wait for a store which does not answer; the oldest go."""
PAUSE = 2.0
"""Seconds until a step that failed is tried again."""
_FAILURES: tuple[type[Exception], ...] = (*ERRORS, CitadelError)
Step = Callable[[Sequence[str]], None]


@dataclass(kw_only=True)
class _Job:
    """Revoked tasks, and what is left to do for them."""

    task_ids: Sequence[str]
    steps: deque[Step]


class Revocations:
    """Carries revokes out, in a thread of its own; its methods are thread-safe.

    Args:
        runtime: Of the worker.
        end_work: Ends what the service does for tasks elsewhere than in their threads, such as runs.
    """

    def __init__(self, runtime: TaskRuntime, end_work: Step) -> None:
        self._runtime = runtime
        self._revoked = runtime.revoked
        self._broker = connect(runtime.settings.broker_url, runtime.settings.stores)
        self._end_work = end_work
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._delayed: deque[_Job] = deque(maxlen=MOST_DELAYED)
        self._thread = threading.Thread(target=self._run, name="revocations", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def revoke(self, task_ids: Sequence[str]) -> None:
        """Revoke tasks: from now on none of them starts here, and running work is cancelled."""
        self._revoked.ids.note(task_ids)
        self._cancel(task_ids)
        for some in _batches(task_ids):
            self._later(some, self._store, self._set_state, self._finish_accepted, self._remove_waiting, self._end_work)

    def revoke_stamps(self, stamps: Sequence[str]) -> None:
        """Revoke all tasks with one of these stamps."""
        self._revoked.stamps.note(stamps)
        self._later(stamps, self._revoked.stamps.store)
        self.revoke(self._stamped(stamps))

    def learn(self, *, all_of_them: bool = False) -> None:
        """Learn what other workers have stored, by default what is new.

        Raises:
            redis.RedisError: The broker does not answer, or refuses.
        """
        task_ids = self._revoked.ids.read(all_of_them=all_of_them)
        self._cancel(task_ids)
        for some in _batches(task_ids):
            self._later(some, self._remove_waiting, self._end_work)
        stamps = self._revoked.stamps.read(all_of_them=all_of_them)
        if stamps:
            self.revoke(self._stamped(stamps))

    def _cancel(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._runtime.running.cancel(task_id)

    def _stamped(self, stamps: Sequence[str]) -> list[str]:
        """Return the ids of the tasks with these stamps that this worker has."""
        wanted = set(stamps)
        return [request.id for request in known_requests() if not wanted.isdisjoint(stamps_in(request.request_dict))]

    def _store(self, task_ids: Sequence[str]) -> None:
        self._revoked.ids.store(task_ids)

    def _set_state(self, task_ids: Sequence[str]) -> None:
        """Set the state of tasks that wait; a running one gets it from its worker."""
        self._runtime.app.backend.store_revoked(task_ids, running=False)

    def _finish_accepted(self, task_ids: Sequence[str]) -> None:
        self._runtime.accepted.finish(*task_ids)

    def _remove_waiting(self, task_ids: Sequence[str]) -> None:
        """Remove tasks whose time has not come: a revoke may be forgotten by then."""
        remove_waiting(self._broker, task_ids)

    def _later(self, task_ids: Sequence[str], *steps: Step) -> None:
        if task_ids:
            self._jobs.put(_Job(task_ids=task_ids, steps=deque(steps)))

    def _run(self) -> None:
        while True:
            try:
                self._carry_out(self._jobs.get(timeout=PAUSE if self._delayed else None))
            except queue.Empty:
                for _ in range(len(self._delayed)):
                    self._carry_out(self._delayed.popleft())

    def _carry_out(self, job: _Job) -> None:
        try:
            while job.steps:
                job.steps[0](job.task_ids)
                job.steps.popleft()
        except _FAILURES as error:
            log.warning("revokes_delayed", tasks=len(job.task_ids), error=type(error).__name__)
            self._delayed.append(job)
        except Exception:
            log.exception("revokes_lost", tasks=len(job.task_ids))


def _batches(task_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (task_ids[start : start + BATCH] for start in range(0, len(task_ids), BATCH))


def known_requests() -> list[Any]:
    """Return the requests of Celery's tasks here, running and waiting for a thread."""
    return snapshot(worker_state.requests.values)


def snapshot(of: Callable[[], Iterable[Any]]) -> list[Any]:
    """Return the elements of a collection that other threads change meanwhile."""
    while True:
        try:
            return list(of())
        except RuntimeError:  # it changed while it was read
            continue
