"""The job runner: runs a maintenance task under its lease and limits, and reports."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from citadel_common.tasks.base import TaskContext
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.timestamps import utc_now
from citadel_contracts.maintenance import Maintenance, MaintenanceReport
from citadel_maintenance.jobs.counters import Counters
from citadel_maintenance.jobs.cursor import SavedCursor
from citadel_maintenance.jobs.lease import Lease
from citadel_maintenance.jobs.throttle import Throttle
from citadel_maintenance.settings import MaintenanceFragment

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
ALREADY_RUNNING = "another run of this task is under way"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a maintenance task, as its work sees it.

    Attributes:
        throttle: Gives out the batches.
        dry_run: Whether to count only, and to change nothing.
        cursor: Where the run saves its position.
        counters: Counts for the report.
    """

    throttle: Throttle
    dry_run: bool
    cursor: SavedCursor
    counters: Counters = field(default_factory=Counters)


Work = Callable[[Job], bool]
"""The work of a maintenance task; returns whether it reached its end."""


class JobRunner:
    """Runs the work of maintenance tasks.

    Args:
        runtime: The worker's runtime.
        client: Client of the result store, which holds leases and cursors.
        settings: Limits.
    """

    def __init__(self, runtime: TaskRuntime, client: "Redis", settings: MaintenanceFragment) -> None:
        self._runtime = runtime
        self._client = client
        self._settings = settings

    def run(self, name: str, payload: Maintenance, context: TaskContext, work: Work) -> MaintenanceReport:
        """Do `work` and return the report; skip it if another run of that name is under way.

        A dry run has its own lease and cursor: it neither waits for the real run nor moves its cursor.
        """
        own_name = f"{name}:dry" if payload.dry_run else name
        lease = Lease(self._client, own_name, context.task_id, ttl=self._settings.lease)
        started = time.monotonic()
        if not lease.take():
            report = _report(context, payload, Counters(), started, reason=ALREADY_RUNNING, skipped=True)
        else:
            report = self._run(own_name, payload, context, work, lease)
        log.info("maintenance_done", name=name, **{field: report[field] for field in _LOGGED})  # type: ignore[literal-required]
        return report

    def _run(
        self, name: str, payload: Maintenance, context: TaskContext, work: Work, lease: Lease
    ) -> MaintenanceReport:
        started = time.monotonic()
        throttle = Throttle(
            deadline=context.deadline.earliest(payload.time_limit or self._settings.time_limit),
            stopping=self._runtime.stopping,
            lease=lease,
            duty_cycle=self._settings.duty,
        )
        job = Job(throttle=throttle, dry_run=payload.dry_run, cursor=SavedCursor(self._client, name))
        try:
            finished = work(job)
        finally:
            lease.release()
        return _report(context, payload, job.counters, started, reason=None if finished else throttle.stop_reason)


_LOGGED = (
    "skipped", "finished", "reason", "dry_run", "examined", "removed", "repaired", "bytes_freed", "kinds", "notes",
    "duration_seconds",
)  # fmt: skip


def _report(
    context: TaskContext,
    payload: Maintenance,
    counters: Counters,
    started: float,
    *,
    reason: str | None,
    skipped: bool = False,
) -> MaintenanceReport:
    return {
        "success": True,
        "task_id": context.task_id,
        "skipped": skipped,
        "finished": reason is None,
        "reason": reason,
        "dry_run": payload.dry_run,
        **counters.total(),
        "kinds": counters.kinds,
        "notes": counters.notes,
        "duration_seconds": round(time.monotonic() - started, 3),
        "timestamp": utc_now(),
    }
