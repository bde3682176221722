"""Settings of the embedding backends."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from citadel_common.settings.common import BASE_URL, OptionalText
from citadel_common.settings.server import ApiKey, ServerSettings
from citadel_contracts.base_urls import http_url


def _split(value: object) -> object:
    """Split `a,b` into a list, so that the environment needs no JSON."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _usable(urls: list[str]) -> list[str]:
    """Return the URLs as they are called; the first bad one is named by its place, for it may hold a password."""
    usable = []
    for place, url in enumerate(urls, 1):
        try:
            usable.append(http_url(url))
        except ValueError as error:
            raise ValueError(f"URL {place} of {len(urls)} {error}") from None
    return usable


Listed = Annotated[list[str], BeforeValidator(_split)]


class BackendSettings(ServerSettings):
    """One embedding backend: one server, or several that serve the same models."""

    kind: Literal["ollama", "openai", "local"] = Field(description="Protocol; `local` runs in this process")
    urls: Annotated[Listed, AfterValidator(_usable)] = Field(
        default_factory=list, repr=False, description=f"{BASE_URL}; several are separated by commas"
    )
    api_key: ApiKey | None = Field(None, description="Bearer token")
    models: Listed = Field(default_factory=list, description="Models it has; empty: it is asked")
    revision: str = Field(
        "",
        pattern=r"^[\w.-]{0,64}$",
        description="Version of its models, part of every cache key; change it when a server that names no versions "
        "(`openai`) gets another model under the same name",
    )
    timeout: float = Field(120.0, gt=0, description="Seconds one call may take")
    connect_timeout: float = Field(3.0, gt=0, description="Seconds a connection may take to open")
    max_batch_texts: int = Field(32, ge=1, description="Texts in one call")
    max_batch_tokens: int = Field(16_384, ge=1, description="Estimated tokens in one call")
    concurrency: int = Field(4, ge=1, description="Calls at once to one URL to begin with; it then adapts")
    max_concurrency: int = Field(16, ge=1, description="Most calls at once to one URL")
    longest_pause: float = Field(
        15.0, gt=0, description="Seconds a URL that keeps failing is left alone at most before it is tried"
    )
    keep_alive: OptionalText = Field(None, description="How long Ollama keeps the model loaded, such as 30m")
    threads: int | None = Field(
        None, ge=1, description="Threads that Ollama computes with (`num_thread`); none: it counts the host's cores"
    )

    @model_validator(mode="after")
    def _has_urls(self) -> "BackendSettings":
        if self.kind != "local" and not self.urls:
            raise ValueError(f"a backend of kind {self.kind!r} needs urls")
        self.check_authorization(self.urls, self.api_key)
        return self
