"""Upkeep: the frame around every clean-up: one at a time, bounded, reported."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from citadel_common.tasks.base import TaskContext
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.timestamps import utc_now
from citadel_contracts.maintenance import Maintenance, MaintenanceReport
from citadel_maintenance.laps import Lap
from citadel_maintenance.lease import Lease
from citadel_maintenance.pace import Pace
from citadel_maintenance.settings import MaintenanceFragment
from citadel_maintenance.tally import Tallies

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
ALREADY_RUNNING = "another run of this task is at it"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run of a clean-up works with.

    Attributes:
        pace: To be asked before each batch.
        dry_run: Whether it only counts.
        tallies: Where it counts.
        lap: Where it notes how far it came.
    """

    pace: Pace
    dry_run: bool
    lap: Lap
    tallies: Tallies = field(default_factory=Tallies)


Work = Callable[[Job], bool]
"""A clean-up; whether it got to the end."""


class Upkeep:
    """Runs clean-ups.

    Args:
        runtime: The worker's.
        client: Client of the result store, where leases and laps are kept.
        settings: Limits.
    """

    def __init__(self, runtime: TaskRuntime, client: "Redis", settings: MaintenanceFragment) -> None:
        self._runtime = runtime
        self._client = client
        self._settings = settings

    def run(self, name: str, payload: Maintenance, context: TaskContext, work: Work) -> MaintenanceReport:
        """Does `work` unless another run of that name is at it; the report.

        A dry run has a lease and a lap of its own: it neither waits for the real one nor moves it on.
        """
        own = f"{name}:dry" if payload.dry_run else name
        lease = Lease(self._client, own, context.task_id, ttl=self._settings.lease)
        started = time.monotonic()
        if not lease.take():
            report = _report(context, payload, Tallies(), started, reason=ALREADY_RUNNING, skipped=True)
        else:
            report = self._run(own, payload, context, work, lease)
        log.info("maintenance_done", name=name, **{field: report[field] for field in _LOGGED})  # type: ignore[literal-required]
        return report

    def _run(
        self, name: str, payload: Maintenance, context: TaskContext, work: Work, lease: Lease
    ) -> MaintenanceReport:
        started = time.monotonic()
        pace = Pace(
            deadline=context.deadline.earliest(payload.time_limit or self._settings.time_limit),
            stopping=self._runtime.stopping,
            lease=lease,
            duty=self._settings.duty,
        )
        job = Job(pace=pace, dry_run=payload.dry_run, lap=Lap(self._client, name))
        try:
            finished = work(job)
        finally:
            lease.release()
        return _report(context, payload, job.tallies, started, reason=None if finished else pace.cut_by)


_LOGGED = (
    "skipped", "finished", "reason", "dry_run", "examined", "removed", "repaired", "bytes_freed", "kinds", "notes",
    "duration_seconds",
)  # fmt: skip


def _report(
    context: TaskContext,
    payload: Maintenance,
    tallies: Tallies,
    started: float,
    *,
    reason: str | None,
    skipped: bool = False,
) -> MaintenanceReport:
    total = tallies.total()
    return {
        "success": True,
        "task_id": context.task_id,
        "skipped": skipped,
        "finished": reason is None,
        "reason": reason,
        "dry_run": payload.dry_run,
        "examined": total.examined,
        "removed": total.removed,
        "repaired": total.repaired,
        "bytes_freed": total.bytes_freed,
        "kinds": tallies.kinds,
        "notes": tallies.notes,
        "duration_seconds": round(time.monotonic() - started, 3),
        "timestamp": utc_now(),
    }
