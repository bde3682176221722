"""Settings of the maintenance worker."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from citadel_common.settings.common import Fragment, WorkerSettings
from citadel_common.settings.embeddings import Listed
from citadel_common.settings.postgres import StoredSettings
from citadel_contracts.maintenance import SOFT_LIMIT

DAY = 24 * 3600.0


def _bytes_or_none(value: object) -> object:
    """An empty variable means no budget."""
    return None if value == "" else value


class MaintenanceFragment(Fragment):
    """Clean-up and retention: how long things are kept, and how gently they are removed."""

    time_limit: float = Field(600.0, gt=0, le=SOFT_LIMIT, description="Seconds a clean-up may take; the next goes on")
    duty: float = Field(
        0.25, gt=0, le=1, description="Share of its time in which a clean-up works; it pauses in the rest"
    )
    lease: float = Field(30.0, ge=1, description="Seconds a clean-up that fell silent keeps others of its kind away")
    scan_count: int = Field(20, ge=10, le=10_000, description="Keys looked at per step")
    cache_max_bytes: Annotated[int | None, BeforeValidator(_bytes_or_none)] = Field(
        None, ge=0, description="Bytes the embedding cache may hold; entries idle for longest go; none: no budget"
    )
    keep_models: Listed = Field(
        default_factory=list, description="Models whose cached vectors stay although no backend has them now"
    )
    model_grace: float = Field(
        3600.0, ge=0, description="Seconds a model must have been away before its cached vectors go"
    )
    run_retention: float = Field(30 * DAY, gt=0, description="Seconds a run is kept, with its payloads, once finished")
    run_batch: int = Field(100, ge=1, le=10_000, description="Runs removed in one transaction at most")
    run_batch_events: int = Field(
        10_000, ge=1, description="Events of the runs removed in one transaction, which tell of how big they are"
    )
    statement_timeout: float = Field(30.0, gt=0, description="Seconds one removal of runs may take")
    worker_grace: float = Field(
        600.0, ge=0, description="Seconds until what an unknown worker left behind is taken as abandoned"
    )


class MaintenanceWorkerSettings(WorkerSettings):
    """One maintenance worker: few tasks, which are slow on purpose."""

    concurrency: int = Field(2, ge=1, description="Tasks run at once (threads)")
    batch_concurrency: int = Field(2, ge=1, description="Most of them from the batch lane")


class MaintenanceSettings(StoredSettings):
    """All settings of the maintenance worker."""

    worker: MaintenanceWorkerSettings = MaintenanceWorkerSettings()
    maintenance: MaintenanceFragment = MaintenanceFragment()
