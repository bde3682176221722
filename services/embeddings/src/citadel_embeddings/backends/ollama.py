"""The protocol of Ollama (`/api/embed`). Source: its API documentation and server code, August 2026."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from citadel_common.errors import BackendUnavailable, CitadelError, TextRejected, UnknownModel
from citadel_common.settings.embeddings import BackendSettings
from citadel_contracts.base_urls import ollama_base
from citadel_embeddings.backends.base import BackendModel, EmbedCall, EmbedReply, ServerFailed, TextTooLong
from citadel_embeddings.backends.http import Answer, HttpClient, count_of, json_of, server_failure

VERSION_LENGTH = 12
"""Characters of a digest that tell versions of a model apart."""
SPECIAL_TOKENS = 2
"""Tokens that the model adds to each text."""
LOADED_NS = 20_000_000
"""Nanoseconds of `load_duration` from which the model may have been loaded: a loaded one takes one or two million, the
start of its runner a hundred million and more."""
DEFAULT_BATCH = 2048
"""Ollama's `num_batch`, unless an option or a smaller context says otherwise."""

TOO_LONG = ("context length", "context size", "too large to process", "input is too long")
"""Parts of the messages with which Ollama and its runners refuse texts that are too long, with 400 or 500."""


class OllamaBackend:
    """One or several Ollama servers."""

    kind = "ollama"
    accepts_empty = False
    cuts = True

    def __init__(self, settings: BackendSettings) -> None:
        self._http = HttpClient(settings)
        self._keep_alive = settings.keep_alive
        self._options = {} if settings.threads is None else {"num_thread": settings.threads}

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embed the texts of a call.

        Ollama cuts silently if `truncate` is set, so it is set only if that is wanted or cannot happen.
        """
        fit = _all_fit(call)
        body: dict[str, Any] = {"model": call.model, "input": list(call.texts), "truncate": call.truncate or fit}
        if call.dimensions is not None:
            body["dimensions"] = call.dimensions
        if options := self._options | dict(call.options):
            body["options"] = options
        if self._keep_alive is not None:
            body["keep_alive"] = self._keep_alive
        response = await self._http.post(ollama_base(url).route("/api/embed"), body, timeout=timeout)
        content = json_of(response)
        if response.status_code != HTTPStatus.OK:
            raise _failure(response, str(content.get("error", "")), call)
        rows = content.get("embeddings")
        if not isinstance(rows, list):
            raise BackendUnavailable("the backend's answer has no `embeddings`")
        cut = [True] * len(call.texts) if call.truncate and not fit else None
        return EmbedReply(
            rows=rows,
            tokens=count_of(content.get("prompt_eval_count")),
            truncated=cut,
            was_loaded=count_of(content.get("load_duration")) >= LOADED_NS,
        )

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel]:
        """Return the pulled models; the version of a model is the start of its digest."""
        response = await self._http.get(ollama_base(url).route("/api/tags"), timeout=timeout)
        content = json_of(response)
        if response.status_code != HTTPStatus.OK:
            raise server_failure(response, str(content.get("error", "")))
        entries = content.get("models")
        entries = [] if entries is None else entries
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and entry.get("name") for entry in entries):
            raise ServerFailed("the backend's list of models has another form than Ollama's")
        return [
            BackendModel(
                name=str(entry["name"]).removesuffix(":latest"),
                version=str(entry.get("digest", "")).removeprefix("sha256:")[:VERSION_LENGTH] or None,
            )
            for entry in entries
        ]

    def tokenizer(self, url: str, model: str) -> None:
        """Return None: Ollama has no route that tokenizes."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _all_fit(call: EmbedCall) -> bool:
    """Return whether no text can be too long: a token stands for at least one byte of text."""
    room = _context(call) - SPECIAL_TOKENS
    return all(len(text) * 4 <= room or len(text.encode()) <= room for text in call.texts)


def _context(call: EmbedCall) -> int:
    """Return how many tokens of a text Ollama certainly reads: options may narrow the model's context."""
    context = _whole_number(call.options.get("num_ctx", call.max_tokens))
    batch = _whole_number(call.options.get("num_batch", min(DEFAULT_BATCH, context)))
    return min(call.max_tokens or 0, context, batch)


def _whole_number(option: object) -> int:
    """Return the value of an option; 0, in which no text fits, if it is not a whole number."""
    return option if isinstance(option, int) else 0


def _failure(response: Answer, message: str, call: EmbedCall) -> CitadelError:
    status = response.status_code
    if status == HTTPStatus.NOT_FOUND and "model" in message:
        return UnknownModel.at("model", f"{call.model!r} is not on the backend: {message}")
    if any(sign in message.lower() for sign in TOO_LONG):
        return TextTooLong(f"the text is longer than the model's context length ({call.model})")
    if status == HTTPStatus.BAD_REQUEST or "unsupported value: NaN" in message:
        return TextRejected(f"the backend refuses the text: {message}")
    return server_failure(response, message)
