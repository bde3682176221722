"""Size and speed of the LLM double."""

from dataclasses import dataclass

from tests.doubles.base.settings import flag


@dataclass(frozen=True, kw_only=True, slots=True)
class LlmSettings:
    """Settings of the double; each is a flag of its command line."""

    models: tuple[str, ...] = flag(("tiny-llm",), "installed models, separated by commas")
    api_key: str = flag("", "key demanded as a bearer token; empty demands none")
    request_ms: float = flag(0.0, "milliseconds until the first word")
    word_ms: float = flag(0.0, "milliseconds each word takes")
    track_prompts: int = flag(20_000, "distinct prompts counted one by one")
    context: int = flag(0, "tokens of a question at most, as llama-server counts and refuses; 0: any number")
    journal: str = flag("", "file to which each question's arrival is appended, so that it outlives the double")
    any_model: str = flag("no", "yes: the first model answers whatever the request calls it, as in llama-server")
