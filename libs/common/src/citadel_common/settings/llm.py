"""Settings of the LLM endpoints."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from citadel_common.settings.common import BASE_URL, Fragment, OptionalText
from citadel_common.settings.server import ApiKey, ServerSettings
from citadel_contracts.base_urls import http_url

Style = Literal["openai", "ollama"]


class EndpointSettings(ServerSettings):
    """One LLM endpoint."""

    url: Annotated[str, AfterValidator(http_url)] = Field(repr=False, description=BASE_URL)
    style: Style = Field("openai", description="Protocol: /v1/chat/completions, or Ollama's /api/chat")
    model: str = Field(min_length=1, description="Model when a question names none")
    api_key: ApiKey | None = Field(None, description="Bearer token")
    timeout: float = Field(120.0, gt=0, description="Seconds one call may take")
    connect_timeout: float = Field(3.0, gt=0, description="Seconds a connection may take to open")
    stream: bool = Field(True, description="Whether answers are streamed, so that a hung server is noticed early")
    idle_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds of silence in a stream, its beginning included, before the call ends",
    )
    stream_usage: bool = Field(True, description="Whether a stream is asked for token counts (`openai`)")
    threads: int | None = Field(
        None, ge=1, description="Threads that Ollama computes with (`num_thread`); none: it counts the host's cores"
    )
    json_mode: Literal["schema", "object", "prompt"] = Field(
        "schema", description="How JSON is asked for: by the schema, as any object, or by the prompt alone"
    )
    patience: float = Field(
        60.0, ge=0, description="Seconds that a call waits, without using up attempts, while the server is away"
    )
    max_concurrency: int = Field(
        8, ge=1, le=10_000, description="Steps at once that call it, in all workers together; further ones wait"
    )
    max_prompt_chars: int = Field(400_000, ge=1, description="Characters in one question, all messages together")
    max_output_bytes: int = Field(2**20, ge=1, description="Bytes of text in one answer")

    @model_validator(mode="after")
    def _authorizes_once(self) -> "EndpointSettings":
        self.check_authorization([self.url], self.api_key)
        return self


class LlmSettings(Fragment):
    """The LLM endpoints that workflows may name."""

    endpoints: dict[str, EndpointSettings] = Field(default_factory=dict, description="Endpoints by name")
    default_endpoint: OptionalText = Field(None, description="Endpoint when none is named; default: the only one")

    @model_validator(mode="after")
    def _names_are_names(self) -> "LlmSettings":
        for name in self.endpoints:
            if not name or "/" in name or "${" in name:
                raise ValueError(f"endpoints: {name!r} is not a name for an endpoint")
        if self.default_endpoint is not None and self.default_endpoint not in self.endpoints:
            raise ValueError(f"default_endpoint: {self.default_endpoint!r} is not among the endpoints")
        return self
