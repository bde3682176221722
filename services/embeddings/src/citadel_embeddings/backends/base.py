"""Interface of the embedding backends: the protocol, its messages and its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from citadel_common.errors import BackendUnavailable, TextRejected


class TextTooLong(TextRejected):
    """A text is longer than the model's context."""

    code = "text_too_long"


class ServerFailed(BackendUnavailable):
    """The server got the request and failed; perhaps because of one of the texts."""

    code = "backend_failed"


class TimedOut(ServerFailed):
    """The server did not answer in time; perhaps because of one of the texts, or of too many."""

    code = "backend_timed_out"


@dataclass(frozen=True, kw_only=True)
class EmbedCall:
    """One call: texts of the same model, dimensions and options.

    Attributes:
        model: Model name as the backend knows it.
        texts: The texts, prefixes included.
        dimensions: Length of the vectors; None for the model's own.
        options: Backend options, pinned ones included.
        max_tokens: The model's context; None if it is not known.
        truncate: Cut texts that are too long instead of raising TextTooLong.
    """

    model: str
    texts: Sequence[str]
    dimensions: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    truncate: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbedReply:
    """Answer to a call; its rows are not checked yet.

    Attributes:
        rows: One vector per text, in order, unless the server made a mistake.
        tokens: Tokens of all texts together, counted by the backend.
        truncated: For each text whether it was cut; None if none was, or if the call asked for it.
    """

    rows: Sequence[object]
    tokens: int = 0
    truncated: Sequence[bool] | None = None


@dataclass(frozen=True, kw_only=True)
class BackendModel:
    """A model that a backend lists; its vectors may change only when `version` does."""

    name: str
    version: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None


class Backend(Protocol):
    """A protocol of embedding servers, or a model in this process.

    Attributes:
        kind: Name of the protocol.
        accepts_empty: Whether it has a vector for an empty text.
        cuts: Whether it cuts texts that are too long unless a request says otherwise.

    `embed` raises TextRejected or TextTooLong for a text, UnknownModel for the model, BackendRefused for wrong
    settings, and BackendUnavailable for a failure that may pass.
    """

    kind: str
    accepts_empty: bool
    cuts: bool

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embed the texts of a call within `timeout` seconds."""

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel] | None:
        """Return the models at a URL; None if the server cannot list them."""

    async def aclose(self) -> None:
        """Release connections or memory."""
