"""Settings of the monitoring worker."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from citadel_common.settings.common import Fragment, WorkerSettings
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.settings.llm import LlmSettings
from citadel_common.settings.postgres import StoredSettings
from citadel_common.settings.qdrant import QdrantSettings


class WatchedEmbeddings(BaseModel):
    """The embedding backends; other settings of the embeddings worker are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    backends: dict[str, BackendSettings] = Field(
        default_factory=lambda: {"ollama": BackendSettings(kind="ollama", urls=["http://127.0.0.1:11434"])},
        description="Backends by name, the same as for the embeddings worker",
    )


class MonitoringFragment(Fragment):
    """Health checks, system metrics and their history."""

    check_deadline: float = Field(
        5.0, gt=0, le=60, description="Seconds a health check of all dependencies together may take"
    )
    slow: float = Field(1.0, gt=0, description="Seconds from which an answer counts as slow")
    cpu_sample: float = Field(1.0, gt=0, le=60, description="Seconds over which processor use is measured")
    disk_path: Path = Field(Path("/"), description="Path on the file system whose space is reported")
    cgroup: bool = Field(
        True,
        description="Whether to report use of the limits of the worker's own cgroup; false reports the host",
    )
    history_entries: int = Field(10_080, ge=1, description="Most health checks, and most metrics, kept in the history")
    history_ttl: int = Field(7 * 24 * 3600, ge=1, description="Seconds an entry of the history is kept")


class MonitoringWorkerSettings(WorkerSettings):
    """One monitoring worker; it has little to do."""

    concurrency: int = Field(4, ge=1, description="Tasks run at once (threads)")
    batch_concurrency: int = Field(2, ge=1, description="Most tasks of the batch lane among them")


class MonitoringSettings(StoredSettings):
    """All settings of the monitoring worker."""

    worker: MonitoringWorkerSettings = MonitoringWorkerSettings()
    qdrant: QdrantSettings = QdrantSettings()
    llm: LlmSettings = LlmSettings()
    embeddings: WatchedEmbeddings = WatchedEmbeddings()
    monitoring: MonitoringFragment = MonitoringFragment()
