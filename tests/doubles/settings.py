"""What a double is started with; each field is a flag of the command line too."""

from dataclasses import dataclass, field, fields
from typing import Any

from tests.doubles.models import DEFAULT_INSTALLED


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The double's size and speed."""

    slots: int = _flag(1, "requests that run at once")
    request_ms: float = _flag(0.0, "milliseconds each request takes")
    text_ms: float = _flag(0.0, "milliseconds each of its texts takes, one after another")
    load_ms: float = _flag(0.0, "milliseconds a model takes to load at its first use")
    max_queue: int = _flag(0, "requests that may wait for a load before the busy 503 (Ollama: 512)")
    models: tuple[str, ...] = _flag(DEFAULT_INSTALLED, "installed models, separated by commas")
    api_key: str = _flag("", "key demanded as a bearer token; empty demands none")
    digest_salt: str = _flag("", "changes the models' digests, as a new version of them would")
    track_texts: int = _flag(20_000, "distinct texts counted one by one")
    version: str = _flag("0.32.6", "version to report")

    def arguments(self) -> list[str]:
        """Return these settings as arguments of the command line."""
        values = ((item.name.replace("_", "-"), getattr(self, item.name)) for item in fields(self))
        return [f"--{name}={_plain(value)}" for name, value in values]


def _plain(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
