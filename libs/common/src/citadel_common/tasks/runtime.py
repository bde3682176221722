"""The parts that every task of a process uses: stores, counters, and whether the worker is stopping."""

import base64
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from citadel_common.delivery.accepted_tasks import AcceptedTasks
from citadel_common.delivery.dead_letters import DeadLetter, DeadLetters, FailedResult, failure_of
from citadel_common.delivery.entries import is_task_id, task_id_of
from citadel_common.delivery.held_messages import Holdings, WorkerLease
from citadel_common.delivery.publish_once import OncePublisher
from citadel_common.delivery.revoked import RevokedTasks
from citadel_common.delivery.timers import Timers
from citadel_common.delivery.worker_registry import WorkerIdentity
from citadel_common.errors import CitadelError, UndecodableMessage
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.tasks.canvas import CanvasFollower
from citadel_common.tasks.running import RunningTasks
from citadel_common.tasks.stats import TaskStats
from citadel_common.telemetry import NULL_METRICS, Metrics, names
from citadel_contracts import Queue

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

log = structlog.get_logger(__name__)
RAW_LIMIT = 4096
"""Most bytes shown of a message that cannot be decoded."""
RAW_KEPT = 64 * 1024
"""Most bytes kept of it."""


@dataclass(kw_only=True)
class TaskRuntime:
    """The parts that the task base, the consumer and the heartbeat loop of a worker share."""

    app: "Celery"
    settings: CommonSettings
    identity: WorkerIdentity
    results: "Redis"
    accepted: AcceptedTasks
    dead_letters: DeadLetters
    revoked: RevokedTasks
    timers: Timers
    holdings: Holdings
    canvas: CanvasFollower
    metrics: Metrics = NULL_METRICS
    running: RunningTasks = field(default_factory=RunningTasks)
    stats: TaskStats = field(default_factory=TaskStats)
    stopping: threading.Event = field(default_factory=threading.Event)
    interrupt: Callable[[], None] = lambda: None
    learn_revokes: Callable[..., None] = lambda **_: None

    @classmethod
    def create(
        cls,
        app: "Celery",
        settings: CommonSettings,
        identity: WorkerIdentity,
        metrics: Metrics = NULL_METRICS,
    ) -> "TaskRuntime":
        """Build the parts and attach them to the app."""
        results = connect(settings.results, settings.stores)
        runtime = cls(
            app=app,
            settings=settings,
            identity=identity,
            results=results,
            accepted=AcceptedTasks(results, settings.accepted),
            dead_letters=DeadLetters(
                results, ttl=settings.worker.dead_letter_ttl, most=settings.worker.max_dead_letters
            ),
            revoked=RevokedTasks(connect(settings.broker_url, settings.stores), settings.worker.revoke),
            timers=Timers(connect(settings.broker_url, settings.stores), Queue(identity.queue)),
            holdings=Holdings(
                identity.id,
                identity.queue,
                most_batch=settings.worker.batch_concurrency,
                lease=WorkerLease(settings.worker.dead_after),
            ),
            canvas=CanvasFollower(app, OncePublisher(connect(settings.broker_url, settings.stores))),
            metrics=metrics,
        )
        app.citadel = runtime
        runtime.holdings.stopping = runtime.stopping.is_set
        runtime.holdings.on_forgotten = lambda count: metrics.count(names.FORGOTTEN, count)
        return runtime

    def count_revoked(self, task: str) -> None:
        """Count a task that was revoked before its start."""
        self.stats.ended(task, "revoked", seconds=0.0)
        self.metrics.count(names.TASKS, 1, task=task, outcome="revoked")

    def will_retry(self, request: Any, error: CitadelError) -> None:
        """Store that a task is to be retried; if the store is down, Celery tries again after the message is sent."""
        with suppress(*ERRORS):
            self.app.backend.will_retry(request, error)

    def dead_letter_task(self, request: Any, dead_letter: DeadLetter, error: CitadelError) -> None:
        """Store a task's dead letter, and in the same moment its failed result."""
        backend = self.app.backend
        try:
            result = backend.failed_result(request, error)
        except ERRORS:
            result = None
        if self.dead_letter(dead_letter, result) and result is not None:
            backend.has_failed(request)

    def dead_letter(self, dead_letter: DeadLetter, result: FailedResult | None = None) -> bool:
        """Store a dead letter, and the failed result of its task.

        If the store is down, the dead letter is lost and the worker goes on.

        Returns:
            Whether they are stored.
        """
        self.metrics.count(names.DEAD_LETTERS, 1, reason=dead_letter.code)
        self.stats.dead_lettered(dead_letter.queue, dead_letter.code)
        # the message may quote what it failed on: whoever may read the dead letter finds it there
        log.error("dead_letter", **dead_letter.in_logs, code=dead_letter.code)
        try:
            self.dead_letters.add(dead_letter, result)
        except ERRORS as error:
            log.error("dead_letter_lost", **dead_letter.in_logs, error=type(error).__name__)
            return False
        return True

    def dead_letter_message(self, message: Any, error: CitadelError, request: Any = None) -> None:
        """Dead-letter a message that cannot become a task, and fail the task if the message names one.

        Args:
            message: The message.
            error: The reason.
            request: The task's request, where the message has one that can be read: errbacks and a chord follow.
        """
        headers = message.headers if isinstance(message.headers, dict) else {}
        name = headers.get("task")
        task_id = headers["id"] if is_task_id(headers.get("id")) else None
        self.dead_letter(
            DeadLetter(
                id=task_id or str(uuid.uuid4()),
                queue=self.identity.queue,
                task=name if isinstance(name, str) else None,
                **failure_of(error),
                **_raw(_bytes_of(message.body)),
            )
        )
        if task_id is not None:
            self._fail(task_id, error, request)

    def dead_letter_raw(self, queue: str, entry: bytes, problem: str) -> None:
        """Dead-letter a list entry that is not a message, and fail the task if it names one."""
        error = UndecodableMessage(f"an entry of the queue is not a message: {problem}")
        task_id = task_id_of(entry)
        self.dead_letter(
            DeadLetter(
                id=task_id or str(uuid.uuid4()),
                queue=queue,
                **failure_of(error),
                **_raw(entry),
            )
        )
        if task_id is not None:
            self._fail(task_id, error)

    def wrong_key(self, key: str, kind: str) -> None:
        """Count and log a key that stands where a queue's list belongs; an operator has to remove it."""
        self.metrics.count(names.WRONG_QUEUE_KEYS, 1, queue=self.identity.queue)
        log.error("queue_key_of_wrong_type", key=key, type=kind, help="the lane stands still until the key is removed")

    def _fail(self, task_id: str, error: CitadelError, request: Any = None) -> None:
        try:
            self.app.backend.mark_as_failure(task_id, error, request=request)
        except Exception as lost:  # noqa: BLE001  (the errbacks of a foreign message raise anything)
            log.error("result_lost", task_id=task_id, error=type(lost).__name__)


def _raw(content: bytes) -> dict[str, Any]:
    """Return the fields of a dead letter that hold what could not be decoded."""
    return {
        "raw": content[:RAW_LIMIT].decode("utf-8", "backslashreplace"),
        "raw_base64": base64.b64encode(content[:RAW_KEPT]).decode(),
        "raw_bytes": len(content),
    }


def _bytes_of(body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode("utf-8", "surrogatepass")


def runtime_of(app: "Celery") -> TaskRuntime:
    """Return the runtime attached to an app."""
    runtime: TaskRuntime = app.citadel
    return runtime
