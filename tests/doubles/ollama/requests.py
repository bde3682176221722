"""Embedding requests, read from the forms of Ollama and OpenAI."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.doubles.base.answers import go_name, model_missing, read_json
from tests.doubles.base.refusals import refuse
from tests.doubles.ollama.models import ModelSpec, canonical


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedRequest:
    """One embedding request.

    `openai` is its form, `payload` the request without its input, and `llama` whether llama-server answers it.
    """

    model: str
    spec: ModelSpec
    texts: list[str]
    dimensions: int | None
    truncate: bool
    openai: bool
    base64: bool
    options: Mapping[str, Any]
    keep_alive: Any
    payload: Mapping[str, Any]
    llama: bool = False


def _typed(data: Mapping[str, Any], name: str, kind: type, go_kind: str) -> Any:
    value = data.get(name)
    if value is None or (isinstance(value, kind) and isinstance(value, bool) is (kind is bool)):
        return value
    field = f"EmbedRequest.{name} of type {go_kind}"
    raise refuse(400, f"json: cannot unmarshal {go_name(value)} into Go struct field {field}")


def _texts(given: Any) -> list[str]:
    texts = given if isinstance(given, list) else [given]
    if not all(isinstance(text, str) for text in texts):
        raise refuse(400, "invalid input type")
    return texts


def _find(installed: Mapping[str, ModelSpec], model: str) -> ModelSpec:
    if not model:
        raise refuse(404, "model '' not found")
    spec = installed.get(canonical(model))
    if spec is None:
        raise model_missing(model)
    return spec


def _request(
    data: dict[str, Any], texts: list[str], installed: Mapping[str, ModelSpec], *, openai: bool, base64: bool = False
) -> EmbedRequest:
    model = _typed(data, "model", str, "string") or ""
    truncate = _typed(data, "truncate", bool, "bool")
    dimensions = _typed(data, "dimensions", int, "int")
    options = _typed(data, "options", dict, "map[string]interface {}") or {}
    return EmbedRequest(
        model=model,
        spec=_find(installed, model),
        texts=texts,
        dimensions=dimensions if dimensions and dimensions > 0 else None,
        truncate=truncate is not False,
        openai=openai,
        base64=base64,
        options=options,
        keep_alive=data.get("keep_alive"),
        payload={name: value for name, value in data.items() if name != "input"},
    )


def read_ollama(body: bytes, installed: Mapping[str, ModelSpec]) -> EmbedRequest:
    """Return the request of a `POST /api/embed`; no input and an empty string are no texts."""
    data = read_json(body)
    given = data.get("input")
    texts = [] if given is None or given == "" else _texts(given)
    return _request(data, texts, installed, openai=False)


def read_openai(body: bytes, installed: Mapping[str, ModelSpec]) -> EmbedRequest:
    """Return the request of a `POST /v1/embeddings`; token arrays are refused, as Ollama refuses them."""
    data = read_json(body)
    encoding = str(data.get("encoding_format") or "float").lower()
    if encoding not in {"float", "base64"}:
        supported = "Supported values: ['float', 'base64']."
        raise refuse(400, f"Invalid value for 'encoding_format' = {encoding}. {supported}")
    given = data.get("input")
    if given is None or given == []:
        raise refuse(400, "invalid input")
    return _request(data, _texts(given), installed, openai=True, base64=encoding == "base64")


def read_llama(body: bytes, installed: Mapping[str, ModelSpec]) -> EmbedRequest:
    """Return the request of a `POST /v1/embeddings` to a llama-server.

    It has one model, whatever the request calls it, ignores `dimensions`, takes token arrays, and calls an input of a
    wrong type an error of its own.
    """
    data = read_json(body)
    given = data.get("input")
    if given in (None, []):
        raise refuse(400, '"input" must not be empty')
    texts = [_spelt(item) for item in (given if isinstance(given, list) and not _is_tokens(given) else [given])]
    model = str(data.get("model") or next(iter(installed)))
    return EmbedRequest(
        model=model,
        spec=next(iter(installed.values())),
        texts=texts,
        dimensions=None,
        truncate=False,
        openai=True,
        base64=data.get("encoding_format") == "base64",
        options={},
        keep_alive=None,
        payload={name: value for name, value in data.items() if name != "input"},
        llama=True,
    )


def _is_tokens(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(token, int) for token in item)


def _spelt(item: Any) -> str:
    if isinstance(item, str):
        return item
    if _is_tokens(item):
        return " ".join(map(str, item))
    raise refuse(
        500,
        '"prompt" elements must be a string, a list of tokens, a JSON object containing a prompt string, '
        "or a list of mixed strings & tokens.",
    )
