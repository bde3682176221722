"""What an embedding backend is to the rest of the service."""

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
        texts: What to embed, prefixes included.
        dimensions: Length of vectors to ask for; None for the model's own.
        options: Backend options, pinned ones included.
        max_tokens: The model's context, where known.
        truncate: Cut what is too long instead of raising TextTooLong.
    """

    model: str
    texts: Sequence[str]
    dimensions: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    truncate: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbedReply:
    """Answer to a call, unchecked.

    Attributes:
        rows: Should be one vector per text, in order.
        tokens: Tokens of all texts together, as the backend counts.
        truncated: Which texts were cut; None when none was or the caller asked for it.
    """

    rows: Sequence[object]
    tokens: int = 0
    truncated: Sequence[bool] | None = None


@dataclass(frozen=True, kw_only=True)
class BackendModel:
    """A model that a backend says it has; `version` changes when its vectors may."""

    name: str
    version: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None


class Backend(Protocol):
    """A protocol to embedding servers, or a model in this process.

    Errors of `embed`: TextRejected and TextTooLong mean this input, UnknownModel this model,
    BackendRefused the settings, BackendUnavailable anything that may pass.
    """

    kind: str
    accepts_empty: bool

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embeds; `timeout` in seconds."""

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel] | None:
        """The models at that URL; None when the protocol there cannot tell."""

    async def aclose(self) -> None:
        """Releases connections or memory."""
