"""Accepted tasks: rows of tasks that have ended are deleted, tasks that Redis has lost are published again."""

import time
from collections.abc import Callable

import structlog

from citadel_common.delivery.accepted_tasks import AcceptedTasks, State, TaskMessage
from citadel_common.stores.postgres import Database
from citadel_common.telemetry import NULL_METRICS, Metrics, names
from citadel_orchestration.db import accepted_tasks
from citadel_orchestration.engine.dispatch import FAILURES

log = structlog.get_logger(__name__)
BATCH = 200
"""Rows of one transaction."""
MOST_BATCHES = 20
"""Transactions of one call; the rest waits for the next, so that the sweep gets to its other work."""
LONGEST_WAIT = 60.0
"""Most seconds between two looks at a task."""
PAUSE_AFTER_FAILURE = 5.0
"""Seconds a Redis that failed is left alone: each call to it may take its whole timeout."""


class AcceptedTasksSweep:
    """Part of every worker's sweep; the tasks that one worker looks at are locked for the others.

    Args:
        database: Holds the rows of the tasks.
        tasks: The states of the same tasks in Redis.
        publish: Publishes a task's message.
        missing: Returns the ids of tasks whose messages are not in the broker.
        may_have_lost: Returns True once after Redis may have lost data.
        first_look: Seconds after which a published task is looked at again.
        metrics: Counts what is published again.
    """

    def __init__(
        self,
        *,
        database: Database,
        tasks: AcceptedTasks,
        publish: Callable[[TaskMessage], None],
        missing: Callable[[list[str]], list[str]],
        may_have_lost: Callable[[], bool],
        first_look: float,
        metrics: Metrics = NULL_METRICS,
    ) -> None:
        self._database = database
        self._tasks = tasks
        self._publish = publish
        self._missing = missing
        self._may_have_lost = may_have_lost
        self._first_look = first_look
        self._metrics = metrics
        self._paused_until = 0.0

    def __call__(self) -> None:
        """Look at the tasks that are due; while Redis does not answer, leave everything as it is.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        if time.monotonic() < self._paused_until:
            return
        try:
            self._hasten_after_loss()
            for _ in range(MOST_BATCHES):
                if self._look() < BATCH:
                    return
        except FAILURES as error:
            self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE
            log.warning("accepted_tasks_not_seen", error=type(error).__name__)

    def _hasten_after_loss(self) -> None:
        if self._may_have_lost():
            with self._database.cursor() as cursor:
                accepted_tasks.hasten(cursor)

    def _look(self) -> int:
        """Look at one batch; return its size."""
        with self._database.cursor() as cursor:
            due = accepted_tasks.due(cursor, BATCH)
            found = self._by_state(due)
            missing = self._missing(found["lost"])
            for task_id in found["lost"]:
                self._restore(accepted_tasks.message_of(cursor, task_id), publish=task_id in missing)
            accepted_tasks.forget(cursor, found["ended"])
            accepted_tasks.postpone(cursor, found["lost"], least=self._first_look, most=self._first_look)
            accepted_tasks.postpone(cursor, found["known"], least=self._first_look, most=LONGEST_WAIT)
        return len(due)

    def _by_state(self, task_ids: list[str]) -> dict[State, list[str]]:
        found: dict[State, list[str]] = {"known": [], "ended": [], "lost": []}
        for task_id, state in self._tasks.states(task_ids).items():
            found[state].append(task_id)
        return found

    def _restore(self, message: TaskMessage, *, publish: bool) -> None:
        # Registered first: if this worker dies before it publishes, the heartbeat loop of any worker does.
        self._tasks.add(message)
        if publish:
            self._publish(message)
            self._metrics.count(names.RESENDS, 1, kind="task", reason="restored")
        log.warning("accepted_task_restored", task_id=message.task_id, task=message.name, published=publish)
