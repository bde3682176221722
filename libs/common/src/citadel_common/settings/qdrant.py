"""Settings of the vector store."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from citadel_common.settings.server import ApiKey, ServerSettings
from citadel_contracts.base_urls import http_url

PORT = 6333


class QdrantSettings(ServerSettings):
    """The vector store: a Qdrant server, or Qdrant's embedded engine in the orchestration worker."""

    url: str | None = Field(
        None, repr=False, description="URL of a Qdrant server's REST port, 6333 when it names none; default: embedded"
    )
    path: Path = Field(
        Path(".citadel/qdrant"), description="Directory of the embedded store; one process at a time may open it"
    )
    api_key: ApiKey | None = Field(None, description="API key of the server")
    max_response_bytes: int = Field(
        16 * 2**20, ge=1024, description="Bytes in one answer, such as the hits of a search"
    )
    timeout: float = Field(10.0, gt=0, description="Seconds one call may take, connecting included")
    patience: float = Field(
        60.0,
        ge=0,
        description="Seconds one call waits for a server that is away to come back, as after a restart; 0: none",
    )
    connections: int = Field(32, ge=1, description="Connections to the server at most, per process")

    @field_validator("url")
    @classmethod
    def _http_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(http_url(url))
        if parts.query:
            raise ValueError("must have no query; a header is set by HEADERS")
        authority = parts.netloc if parts.port else f"{parts.netloc}:{PORT}"
        return parts._replace(netloc=authority).geturl()
