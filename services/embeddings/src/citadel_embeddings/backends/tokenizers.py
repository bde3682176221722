"""Servers that tokenize over HTTP.

llama-server, vLLM and TEI have routes of their own for it, beside OpenAI's. Sources: their documentation, August 2026.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson

from citadel_contracts.base_urls import openai_base
from citadel_embeddings.backends.base import NoTokenizer, UnknownIds
from citadel_embeddings.backends.http import Answer, HttpClient, server_failure

_NO_ROUTE = frozenset({404, 405, 501})
_BAD_IDS = frozenset({400, 422, 500})
"""Statuses with which servers answer ids that their vocabulary lacks; llama-server's is 500."""


class ServerTokenizer:
    """Tokenizer of a server of OpenAI's protocol; each call carries the field names of all known servers.

    Args:
        http: Client of the backend.
        url: The server.
        model: Name of the model there.
    """

    def __init__(self, http: HttpClient, url: str, model: str) -> None:
        self._http = http
        self._root = openai_base(url).root.removesuffix("/v1")
        self._model = model

    async def encode(self, text: str, *, special: bool, timeout: float) -> list[int]:
        """Return the tokens of a text."""
        texts = {"content": text, "prompt": text, "inputs": text}
        flags = {"add_special": special, "add_special_tokens": special, "parse_special": special}
        answer = await self._post("/tokenize", texts | flags, timeout)
        return _ids(_content(answer, bad_ids=False))

    async def decode(self, ids: Sequence[int], *, timeout: float) -> str:
        """Return the text of tokens."""
        answer = await self._post("/detokenize", {"tokens": list(ids)}, timeout)
        if answer.status_code in _NO_ROUTE:
            answer = await self._post("/decode", {"ids": list(ids), "skip_special_tokens": True}, timeout)
        return _text(_content(answer, bad_ids=True))

    async def _post(self, path: str, body: dict[str, Any], timeout: float) -> Answer:
        return await self._http.post(f"{self._root}{path}", {"model": self._model} | body, timeout=timeout)


def _content(answer: Answer, *, bad_ids: bool) -> Any:
    if answer.status_code in _NO_ROUTE:
        raise NoTokenizer
    if bad_ids and answer.status_code in _BAD_IDS:
        raise UnknownIds
    if answer.status_code != HTTPStatus.OK:
        raise server_failure(answer, "")
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        raise NoTokenizer from None


def _ids(content: Any) -> list[int]:
    """Return the ids: in `tokens`, or as TEI's list of objects per text."""
    found = content.get("tokens") if isinstance(content, dict) else content
    if isinstance(found, list) and found and isinstance(found[0], list):
        found = [entry.get("id") if isinstance(entry, dict) else None for entry in found[0]]
    if not isinstance(found, list) or not all(type(id_) is int for id_ in found):
        raise NoTokenizer
    return found


def _text(content: Any) -> str:
    if isinstance(content, dict):
        content = content.get("content", content.get("prompt"))
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, str):
        raise NoTokenizer
    return content
