"""Settings of the maintenance worker."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from citadel_common.settings.common import Fragment, WorkerSettings
from citadel_common.settings.embeddings import Listed
from citadel_common.settings.postgres import StoredSettings
from citadel_contracts.maintenance import SOFT_LIMIT

DAY = 24 * 3600.0


def _bytes_or_none(value: object) -> object:
    """Read an empty variable as no budget."""
    return None if value == "" else value


class MaintenanceFragment(Fragment):
    """Clean-up and retention."""

    time_limit: float = Field(600.0, gt=0, le=SOFT_LIMIT, description="Seconds a clean-up may take; the next goes on")
    duty: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Duty cycle: share of its time in which a clean-up works; it pauses in the rest",
    )
    lease: float = Field(30.0, ge=1, description="Seconds after which a run that fell silent may be replaced")
    scan_count: int = Field(20, ge=10, le=10_000, description="Keys examined per batch")
    cache_max_bytes: Annotated[int | None, BeforeValidator(_bytes_or_none)] = Field(
        None,
        ge=0,
        description="Bytes the embedding cache may hold; the longest unused entries go; empty: no limit",
    )
    keep_models: Listed = Field(
        default_factory=list, description="Models whose cached vectors stay even if no backend has the model"
    )
    model_grace: float = Field(
        3600.0, ge=0, description="Seconds a model must be missing before its cached vectors are removed"
    )
    run_retention: float = Field(30 * DAY, gt=0, description="Seconds a finished run is kept, with its payloads")
    run_batch: int = Field(100, ge=1, le=10_000, description="Most runs removed in one transaction")
    run_batch_events: int = Field(
        10_000, ge=1, description="Most events of the runs removed in one transaction, as a measure of their size"
    )
    statement_timeout: float = Field(30.0, gt=0, description="Seconds one transaction that removes runs may take")
    worker_grace: float = Field(
        600.0, ge=0, description="Seconds until messages held by an unknown worker count as abandoned"
    )


class MaintenanceWorkerSettings(WorkerSettings):
    """One maintenance worker; it runs few tasks, which are slow on purpose."""

    concurrency: int = Field(2, ge=1, description="Tasks run at once (threads)")
    batch_concurrency: int = Field(2, ge=1, description="Most tasks of the batch lane among them")


class MaintenanceSettings(StoredSettings):
    """All settings of the maintenance worker."""

    worker: MaintenanceWorkerSettings = MaintenanceWorkerSettings()
    maintenance: MaintenanceFragment = MaintenanceFragment()
