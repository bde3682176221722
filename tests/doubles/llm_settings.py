"""What an LLM double is started with; each field is a flag of the command line too."""

from dataclasses import dataclass, field, fields
from typing import Any


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True, slots=True)
class LlmDoubleSettings:
    """The double's size and speed."""

    models: str = _flag("tiny-llm", "installed models, separated by commas")
    api_key: str = _flag("", "key demanded as a bearer token; empty demands none")
    request_ms: float = _flag(0.0, "milliseconds until the first word")
    word_ms: float = _flag(0.0, "milliseconds each word takes")
    track_prompts: int = _flag(20_000, "distinct prompts counted one by one")

    def arguments(self) -> list[str]:
        """Return these settings as arguments of the command line."""
        return [f"--{item.name.replace('_', '-')}={getattr(self, item.name)}" for item in fields(self)]

    @property
    def installed(self) -> tuple[str, ...]:
        """The models as a list."""
        return tuple(name for name in self.models.split(",") if name)
