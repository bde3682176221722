"""Settings of the embeddings worker."""

from pathlib import Path

from pydantic import Field

from citadel_common.settings.common import CommonSettings, Fragment
from citadel_common.settings.embeddings import BackendSettings
from citadel_embeddings.profiles import BUILT_IN, ModelProfile


class EmbeddingsFragment(Fragment):
    """Backends, models and batching."""

    backends: dict[str, BackendSettings] = Field(
        default_factory=lambda: {"ollama": BackendSettings(kind="ollama", urls=["http://127.0.0.1:11434"])},
        description="Backends by name; a model is served by the first that has it",
    )
    profiles: dict[str, ModelProfile] = Field(default_factory=dict, description="Models beside the built-in ones")
    linger: float = Field(0.01, ge=0, description="Seconds texts wait for company at most while the backend is busy")
    patience: float = Field(
        60.0, gt=0, description="Seconds texts wait for a backend to return before the task fails or is retried"
    )
    refresh: float = Field(10.0, gt=0, description="Seconds between looks at which models the backends have")
    batch_window: int = Field(8, ge=1, description="Chunks of a batch task in progress at once")
    model_cache: Path = Field(
        Path("~/.cache/citadel/models"), description="Where the local model's converted form is kept"
    )
    local_threads: int = Field(0, ge=0, description="Threads of the local model; 0: as many as processors")

    def profile(self, model: str) -> ModelProfile | None:
        """Return the configured or built-in profile of a model; None if there is none."""
        bare = model.rpartition("/")[2].partition(":")[0]
        return self.profiles.get(model) or self.profiles.get(bare) or BUILT_IN.get(bare)


class EmbeddingsSettings(CommonSettings):
    """All settings of the embeddings worker."""

    embeddings: EmbeddingsFragment = EmbeddingsFragment()
