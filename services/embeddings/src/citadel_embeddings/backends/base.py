"""Interface of the embedding backends: the protocol, its messages and its errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from citadel_common.errors import BackendUnavailable, CitadelError, InvalidInput, TextRejected

Blame = Literal["server", "texts", "crash"]
"""Reason of a failure: the server fails at every text, at these texts only, or ended while it had these texts."""


class TextTooLong(TextRejected):
    """A text is longer than the model's context.

    Attributes:
        limit: Tokens that the model reads, where the server says so.
        tokens: Tokens of the text, where the server says so.
    """

    code = "text_too_long"
    limit: int | None = None
    tokens: int | None = None


class ModelChanged(CitadelError):
    """No server has the version of the model any more whose vectors were asked for."""

    code = "model_changed"


class ServerFailed(BackendUnavailable):
    """The server got the request and failed; perhaps because of one of the texts.

    Attributes:
        blame: What the endpoint found out about that.
    """

    code = "backend_failed"
    blame: Blame = "server"

    @classmethod
    def busy(cls, message: str) -> "ServerFailed":
        """Return the failure of a server that says that it is busy or not ready."""
        error = cls(message)
        error.code, error.status = BackendUnavailable.code, BackendUnavailable.status
        return error

    @property
    def is_busy(self) -> bool:
        """Return whether the server said so."""
        return self.code == BackendUnavailable.code


class TimedOut(ServerFailed):
    """The server did not answer in time; perhaps because of one of the texts, or of too many."""

    code = "backend_timed_out"


def dimensions_refused(model: str, problem: str) -> InvalidInput:
    """Return the error of `dimensions` that neither the server nor Citadel can give."""
    way_out = f"leave `dimensions` out, or set `matryoshka` in the profile of {model!r} if its vectors may be shortened"
    return InvalidInput.at("dimensions", f"the server of {model!r} {problem}; {way_out}")


@dataclass(frozen=True, kw_only=True)
class EmbedCall:
    """One call: texts of the same model, dimensions and options.

    Attributes:
        model: Model name as the backend knows it.
        texts: The texts, prefixes included.
        dimensions: Length of the vectors; None for the model's own.
        options: Backend options, pinned ones included.
        size: Length of the model's own vectors; None if it is not known.
        may_shorten: Whether longer vectors than `dimensions` are welcome, because the caller shortens them.
        max_tokens: The model's context; None if it is not known.
        truncate: Cut texts that are too long instead of raising TextTooLong, if the protocol can do that.
    """

    model: str
    texts: Sequence[str]
    dimensions: int | None = None
    size: int | None = None
    may_shorten: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    truncate: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbedReply:
    """Answer to a call; its rows are not checked yet.

    Attributes:
        rows: One vector per text, in order, unless the server made a mistake.
        tokens: Tokens of all texts together, counted by the backend.
        truncated: For each text whether it was cut; None if none was.
        was_loaded: Whether the model may have been loaded for this answer, perhaps in another version than before.
    """

    rows: Sequence[object]
    tokens: int = 0
    truncated: Sequence[bool] | None = None
    was_loaded: bool = False


@dataclass(frozen=True, kw_only=True)
class BackendModel:
    """A model that a backend lists; its vectors may change only when `version` does."""

    name: str
    version: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None


class NoTokenizer(Exception):
    """The server does not tokenize for others."""


class UnknownIds(Exception):
    """The ids are not of this tokenizer's vocabulary."""


class Tokenizer(Protocol):
    """Tokenizer of one model, in this process or on a server.

    Calls raise NoTokenizer where there is none, and BackendUnavailable or BackendRefused if a server does not answer.
    """

    async def encode(self, text: str, *, special: bool, timeout: float) -> list[int]:
        """Return the tokens of a text; `special` adds those that the model wants around it."""

    async def decode(self, ids: Sequence[int], *, timeout: float) -> str:
        """Return the text of tokens; raises UnknownIds for ids beyond the vocabulary."""


class Backend(Protocol):
    """A protocol of embedding servers, or a model in this process.

    Attributes:
        kind: Name of the protocol.
        accepts_empty: Whether it has a vector for an empty text.
        cuts: Whether it cuts texts that are too long unless a request says otherwise.

    `embed` raises TextRejected or TextTooLong for a text, InvalidInput for `dimensions`, UnknownModel for the model,
    BackendRefused for wrong settings, ServerFailed if the server got the request and failed, and BackendUnavailable
    if it did not, or (with `retry_after`) asks for a pause.
    """

    kind: str
    accepts_empty: bool
    cuts: bool

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embed the texts of a call within `timeout` seconds."""

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel] | None:
        """Return the models at a URL; None if the server cannot list them."""

    def tokenizer(self, url: str, model: str) -> Tokenizer | None:
        """Return the tokenizer of a model at a URL; None if the protocol has none."""

    async def aclose(self) -> None:
        """Release connections or memory."""
