"""Contracts of the maintenance queue: the tasks that clean up, and their reports.

Every task is bounded in time, may be cut off at any point, and can be run again: what one run leaves, the next finds.
"""

from typing import Annotated, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from citadel_contracts.base import OrDefault, Payload, Queue, TaskSpec

SOFT_LIMIT = 1500.0
HARD_LIMIT = 1800.0
TimeLimit = Annotated[float, Field(gt=0, le=SOFT_LIMIT)]


class Maintenance(Payload):
    """Arguments of every maintenance task.

    Attributes:
        time_limit: Seconds it may take; None for the configured ones.
        dry_run: Whether it only tells what it would remove.
    """

    time_limit: TimeLimit | None = None
    dry_run: OrDefault[bool] = False


class CleanupExpiredCache(Maintenance):
    """Arguments of `cleanup_expired_cache`."""


class PurgeRuns(Maintenance):
    """Arguments of `citadel.purge_runs`."""


class PurgeResults(Maintenance):
    """Arguments of `citadel.purge_results`."""


class PurgeDeadLetters(Maintenance):
    """Arguments of `citadel.purge_dead_letters`."""


class PurgeOrphans(Maintenance):
    """Arguments of `citadel.purge_orphans`."""


class RerouteMessages(Maintenance):
    """Arguments of `citadel.reroute_messages`."""


class AdviseVacuum(Maintenance):
    """Arguments of `citadel.advise_vacuum`, which never changes anything."""


class CleanupCounts(TypedDict):
    """Counts of one kind of finding: found, removed, repaired, and estimated bytes of what was removed.

    In a dry run they count what would be removed and repaired.
    """

    examined: int
    removed: int
    repaired: int
    bytes_freed: int


class MaintenanceReport(TypedDict):
    """Result of a maintenance task.

    `examined` counts everything examined, `kinds` the findings. `finished` is False if the task ended before its work
    did, `reason` says why, and the next run continues. `skipped` means that another instance was running, so nothing
    was done.
    """

    success: bool
    task_id: str
    skipped: bool
    finished: bool
    reason: str | None
    dry_run: bool
    examined: int
    removed: int
    repaired: int
    bytes_freed: int
    kinds: dict[str, CleanupCounts]
    notes: list[str]
    duration_seconds: float
    timestamp: str


class MisroutedMessages(BaseModel):
    """Messages for a queue in a list that no worker reads: a Celery client's settings differ from the workers'.

    Attributes:
        key: Name of the list.
        database: Number of the Redis database.
        task: The task that the oldest message names.
        messages: Messages in the list.
        moved: Messages that were moved from it into the queue's lanes.
        reason: The setting that differs: `separator`, `priority_steps`, `key_prefix`, `database`, `queue`.
        help: What is wrong, and what to do.
        at: When it was last found.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    database: int
    task: str
    messages: int
    moved: int
    reason: str
    help: str
    at: str


class ModelEntries(TypedDict):
    """The cache's entries of one model; bytes are estimated from a sample."""

    entries: int
    bytes: int


class CacheStatistics(TypedDict):
    """The cache's content after the clean-up, by model identity; `complete` says whether all of it was examined."""

    entries: int
    bytes: int
    models: dict[str, ModelEntries]
    complete: bool


class CleanupExpiredCacheResult(MaintenanceReport):
    """Result of `cleanup_expired_cache`."""

    statistics: CacheStatistics


class TableStats(TypedDict):
    """One table of the database; times are ISO 8601, None for never."""

    table: str
    live_rows: int
    dead_rows: int
    total_bytes: int
    unused_bytes: int
    last_vacuum: str | None
    last_analyze: str | None


class AdviseVacuumResult(MaintenanceReport):
    """Result of `citadel.advise_vacuum`: advice for the administrator of PostgreSQL; empty if all is well."""

    advice: list[str]
    tables: list[TableStats]


CLEANUP_EXPIRED_CACHE = TaskSpec(
    name="cleanup_expired_cache",
    queue=Queue.MAINTENANCE,
    payload=CleanupExpiredCache,
    result=CleanupExpiredCacheResult,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
PURGE_RUNS = TaskSpec(
    name="citadel.purge_runs",
    queue=Queue.MAINTENANCE,
    payload=PurgeRuns,
    result=MaintenanceReport,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
PURGE_RESULTS = TaskSpec(
    name="citadel.purge_results",
    queue=Queue.MAINTENANCE,
    payload=PurgeResults,
    result=MaintenanceReport,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
PURGE_DEAD_LETTERS = TaskSpec(
    name="citadel.purge_dead_letters",
    queue=Queue.MAINTENANCE,
    payload=PurgeDeadLetters,
    result=MaintenanceReport,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
PURGE_ORPHANS = TaskSpec(
    name="citadel.purge_orphans",
    queue=Queue.MAINTENANCE,
    payload=PurgeOrphans,
    result=MaintenanceReport,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
REROUTE_MESSAGES = TaskSpec(
    name="citadel.reroute_messages",
    queue=Queue.MAINTENANCE,
    payload=RerouteMessages,
    result=MaintenanceReport,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
ADVISE_VACUUM = TaskSpec(
    name="citadel.advise_vacuum",
    queue=Queue.MAINTENANCE,
    payload=AdviseVacuum,
    result=AdviseVacuumResult,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
