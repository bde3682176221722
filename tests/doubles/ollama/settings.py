"""Size and speed of Ollama's double."""

from dataclasses import dataclass

from tests.doubles.base.settings import flag
from tests.doubles.ollama.models import DEFAULT_INSTALLED, KNOWN, canonical


@dataclass(frozen=True, kw_only=True, slots=True)
class OllamaSettings:
    """Settings of the double; each is a flag of its command line."""

    slots: int = flag(1, "requests that run at once")
    request_ms: float = flag(0.0, "milliseconds each request takes")
    text_ms: float = flag(0.0, "milliseconds each of its texts takes, one after another")
    load_ms: float = flag(0.0, "milliseconds a model takes to load at its first use")
    max_queue: int = flag(0, "requests that may wait for a load before the busy 503 (Ollama: 512)")
    models: tuple[str, ...] = flag(DEFAULT_INSTALLED, "installed models, separated by commas")
    api_key: str = flag("", "key demanded as a bearer token; empty demands none")
    digest_salt: str = flag("", "changes the models' digests and vectors, as a new version of them would")
    track_texts: int = flag(20_000, "distinct texts counted one by one")
    version: str = flag("0.32.6", "version to report")
    manners: str = flag("ollama", "whose manners its /v1 routes have: ollama or llama (llama-server)")

    def __post_init__(self) -> None:
        unknown = [name for name in self.models if canonical(name) not in KNOWN]
        if unknown:
            raise ValueError(f"unknown models {unknown}; known are {list(KNOWN)}")
