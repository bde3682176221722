"""The OpenAI protocol (`/v1/embeddings`): TEI, vLLM, LiteLLM, llama-server, OpenAI."""

import base64
import binascii
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from citadel_common.errors import BackendUnavailable, CitadelError, TextRejected, UnknownModel
from citadel_common.settings.embeddings import BackendSettings
from citadel_contracts.base_urls import openai_base
from citadel_embeddings.backends.base import BackendModel, EmbedCall, EmbedReply, TextTooLong
from citadel_embeddings.backends.http import Answer, HttpClient, count_of, json_of, server_failure

BAD_INPUT = frozenset({400, 413, 422})
"""Statuses with which servers refuse texts."""
TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
TOO_LONG = (
    "context length",
    "too long",
    "maximum context",
    "max_input_length",
    "must have less than",
    "is too large to process",
)
"""Parts of the messages with which servers that give no code refuse texts that are too long."""


class OpenAIBackend:
    """One or several servers of the OpenAI protocol."""

    kind = "openai"
    accepts_empty = False
    cuts = False

    def __init__(self, settings: BackendSettings) -> None:
        self._http = HttpClient(settings)

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embed the texts of a call; the protocol cannot truncate, so long texts are refused, never cut."""
        body: dict[str, Any] = {"model": call.model, "input": list(call.texts), "encoding_format": "base64"}
        if call.dimensions is not None:
            body["dimensions"] = call.dimensions
        body |= call.options
        response = await self._http.post(openai_base(url).route("/embeddings"), body, timeout=timeout)
        content = json_of(response)
        if response.status_code != HTTPStatus.OK:
            raise _failure(response, content, call)
        return _reply(content, len(call.texts))

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel] | None:
        """Return the models that `/models` lists; None if the server has no such route."""
        response = await self._http.get(openai_base(url).route("/models"), timeout=timeout)
        if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return None
        content = json_of(response)
        if response.status_code != HTTPStatus.OK:
            raise server_failure(response, _message(content))
        return [BackendModel(name=str(entry["id"])) for entry in content.get("data") or []]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _reply(content: dict[str, Any], count: int) -> EmbedReply:
    """Return the rows in the order of the texts, which `index` gives; the list may have another order."""
    rows: list[object] = [None] * count
    data = content.get("data")
    if not isinstance(data, list) or len(data) != count:
        return EmbedReply(rows=[])
    for position, item in enumerate(data):
        index = item.get("index", position) if isinstance(item, dict) else -1
        if not isinstance(index, int) or not 0 <= index < count:
            raise BackendUnavailable("the backend's answer has an embedding without a valid `index`")
        rows[index] = _row(item.get("embedding"))
    usage = content.get("usage")
    return EmbedReply(rows=rows, tokens=count_of(usage.get("prompt_tokens") if isinstance(usage, dict) else None))


def _row(embedding: object) -> object:
    if not isinstance(embedding, str):
        return embedding
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    except (binascii.Error, ValueError):
        return None


def _message(content: dict[str, Any]) -> str:
    error = content.get("error", content.get("message", ""))
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def _is_too_long(status: int, content: dict[str, Any]) -> bool:
    """Return whether a server says that a text is too long: by a code, or by the words of those that have none."""
    error = content.get("error")
    if isinstance(error, dict) and not TOO_LONG_CODES.isdisjoint({str(error.get("code")), str(error.get("type"))}):
        return True
    # llama-server answers 500 for a text that is longer than its batch
    may_be_input = status in BAD_INPUT or status == HTTPStatus.INTERNAL_SERVER_ERROR
    return may_be_input and any(sign in _message(content).lower() for sign in TOO_LONG)


def _failure(response: Answer, content: dict[str, Any], call: EmbedCall) -> CitadelError:
    status, message = response.status_code, _message(content)
    if status == HTTPStatus.NOT_FOUND:
        return UnknownModel.at("model", f"{call.model!r} is not on the backend: {message}")
    if _is_too_long(status, content):
        return TextTooLong(f"the text is longer than the model's context length ({call.model}): {message}")
    if status in BAD_INPUT:
        return TextRejected(f"the backend refuses the text: {message}")
    return server_failure(response, message)
