"""The OpenAI protocol (`/v1/embeddings`): TEI, vLLM, LiteLLM, llama-server, OpenAI.

Servers differ in what they know of it. What one has refused is not sent to it again.
"""

import base64
import binascii
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import numpy as np

from citadel_common.settings.embeddings import BackendSettings
from citadel_contracts.base_urls import openai_base
from citadel_embeddings.backends.base import BackendModel, EmbedCall, EmbedReply, ServerFailed, Tokenizer
from citadel_embeddings.backends.http import Answer, HttpClient, count_of, json_of, server_failure
from citadel_embeddings.backends.openai_errors import (
    content_of,
    failure,
    is_about_dimensions,
    is_about_encoding,
    is_about_length,
    message_of,
)
from citadel_embeddings.backends.tokenizers import ServerTokenizer

MAY_BE_THE_FORM = frozenset({400, 415, 422, 500, 501})
"""Statuses with which servers answer fields that they do not know."""
PLAUSIBLE_LENGTH = (1e-3, 1e6)
"""Length of a vector; that of float64 or float16 read as float32 is far outside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manners:
    """Fields that a server takes for a model.

    Attributes:
        base64: Whether vectors are asked for in base64, which is half as long and much quicker to read.
        proven: Whether it has answered in base64.
        dimensions: Whether it is told `dimensions`.
    """

    base64: bool = True
    proven: bool = False
    dimensions: bool = True


UNKNOWN = Manners()


class OpenAIBackend:
    """One or several servers of the OpenAI protocol."""

    kind = "openai"
    accepts_empty = False
    cuts = False

    def __init__(self, settings: BackendSettings) -> None:
        self._http = HttpClient(settings)
        self._manners: dict[tuple[str, str], Manners] = {}

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embed the texts of a call; the protocol cannot truncate, so long texts are refused, never cut."""
        end = time.monotonic() + timeout
        manners = self._manners.get((url, call.model), UNKNOWN)
        while True:
            answer = await self._post(url, call, manners, max(0.001, end - time.monotonic()))
            content = content_of(answer)
            if answer.status_code == HTTPStatus.OK:
                reply = _reply(content, len(call.texts))
                simpler = _after_reply(manners, reply, call)
            else:
                reply, simpler = None, _after_refusal(manners, answer.status_code, content, call)
            if simpler is None:
                break
            manners = simpler
        if reply is None:
            raise failure(answer, content, call)
        self._remember(url, call, manners, reply)
        return reply

    async def _post(self, url: str, call: EmbedCall, manners: Manners, timeout: float) -> Answer:
        body: dict[str, Any] = {"model": call.model, "input": list(call.texts)}
        if manners.base64:
            body["encoding_format"] = "base64"
        if call.dimensions is not None and manners.dimensions:
            body["dimensions"] = call.dimensions
        body |= call.options
        return await self._http.post(openai_base(url).route("/embeddings"), body, timeout=timeout)

    def _remember(self, url: str, call: EmbedCall, manners: Manners, reply: EmbedReply) -> None:
        if manners.proven or not reply.rows:
            return
        first = reply.rows[0]
        in_base64 = manners.base64 and isinstance(first, np.ndarray)
        if in_base64 or (isinstance(first, list) and first[:1] and isinstance(first[0], int | float)):
            self._manners[url, call.model] = replace(manners, base64=in_base64, proven=in_base64)

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel] | None:
        """Return the models that `/models` lists; None if the server has no such route."""
        response = await self._http.get(openai_base(url).route("/models"), timeout=timeout)
        if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return None
        content = json_of(response)
        if response.status_code != HTTPStatus.OK:
            raise server_failure(response, message_of(content))
        return [BackendModel(name=name) for name in _listed(content)]

    def tokenizer(self, url: str, model: str) -> Tokenizer:
        """Return the tokenizer that many servers have beside the protocol's routes."""
        return ServerTokenizer(self._http, url, model)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _after_refusal(manners: Manners, status: int, content: dict[str, Any], call: EmbedCall) -> Manners | None:
    """Return the manners to try after a refusal; None if the fields are not its reason."""
    if status not in MAY_BE_THE_FORM:
        return None
    sent_dimensions = call.dimensions is not None and manners.dimensions
    if sent_dimensions and is_about_dimensions(content):
        return replace(manners, dimensions=False) if call.may_shorten else None
    if not manners.base64 or is_about_length(status, content):
        return None
    return None if manners.proven and not is_about_encoding(content) else _without_base64(manners)


def _after_reply(manners: Manners, reply: EmbedReply, call: EmbedCall) -> Manners | None:
    """Return the manners to try after an answer whose vectors are not base64 of float32; None if they are."""
    if not manners.base64 or all(_is_sound(row, manners, call) for row in reply.rows):
        return None
    return _without_base64(manners)


def _without_base64(manners: Manners) -> Manners:
    return replace(manners, base64=False, proven=False)


def _is_sound(row: object, manners: Manners, call: EmbedCall) -> bool:
    if not isinstance(row, np.ndarray):
        return isinstance(row, list) and not any(isinstance(value, str) for value in row[:1])
    if manners.proven:
        return True
    with np.errstate(all="ignore"):
        length = float(np.linalg.norm(row))
    fits = call.size is None or row.size in (call.size, call.dimensions)
    return fits and PLAUSIBLE_LENGTH[0] < length < PLAUSIBLE_LENGTH[1]


def _listed(content: dict[str, Any]) -> list[str]:
    """Return the ids in an answer of `/models`.

    Raises:
        ServerFailed: There is no list of them.
    """
    entries = content.get("data")
    if entries is None:
        entries = []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "id" in entry for entry in entries):
        raise ServerFailed("the backend's list of models has another form than OpenAI's")
    return [str(entry["id"]) for entry in entries]


def _reply(content: dict[str, Any], count: int) -> EmbedReply:
    """Return the rows in the order of the texts, which `index` gives; the list may have another order."""
    rows: list[object] = [None] * count
    data = content.get("data")
    if not isinstance(data, list) or len(data) != count:
        return EmbedReply(rows=[])
    for position, item in enumerate(data):
        index = item.get("index") if isinstance(item, dict) else -1
        index = position if index is None else index
        if not isinstance(index, int) or not 0 <= index < count:
            raise ServerFailed("the backend's answer has an embedding without a valid `index`")
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
