"""Embedding models of the double: sizes, token limits and catalogue entries.

A token is four characters here, rounded up. That needs no tokenizer, costs nothing however long the text,
and makes a cut exact: a text cut to n tokens is its first 4n characters.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHARACTERS_PER_TOKEN = 4
DEFAULT_NUM_CTX = 4096
DEFAULT_NUM_BATCH = 2048
MODIFIED_AT = "2026-08-01T12:00:00.000000000Z"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """One model; `context` is in tokens, `size` in bytes; another `salt` is another version of it."""

    name: str
    dimensions: int
    context: int
    family: str
    parameters: str
    size: int
    salt: str = ""

    def token_limit(self, options: Mapping[str, Any]) -> int:
        """Return how many tokens of a text are read; `num_ctx` and `num_batch` move it as in Ollama."""
        num_ctx = min(int(options.get("num_ctx") or DEFAULT_NUM_CTX), self.context)
        num_batch = int(options.get("num_batch") or min(DEFAULT_NUM_BATCH, num_ctx))
        return min(num_ctx, num_batch)

    @property
    def digest(self) -> str:
        """The model's identity as the catalogue shows it, 64 hexadecimal digits."""
        return hashlib.sha256(f"{self.name}{self.salt}".encode()).hexdigest()


def _spec(name: str, dimensions: int, context: int, family: str, parameters: str, size: int) -> ModelSpec:
    return ModelSpec(name=name, dimensions=dimensions, context=context, family=family, parameters=parameters, size=size)


# The last is known but not installed by default: a model that Citadel has no built-in profile of.
KNOWN = {
    spec.name: spec
    for spec in (
        _spec("nomic-embed-text", 768, 2048, "nomic-bert", "137M", 274302450),
        _spec("mxbai-embed-large", 1024, 512, "bert", "334M", 669615493),
        _spec("bge-m3", 1024, 8192, "bert", "566.70M", 1157672605),
        _spec("all-minilm", 384, 256, "bert", "23M", 45960996),
        _spec("snowflake-arctic-embed", 1024, 512, "bert", "334M", 669603712),
    )
}
DEFAULT_INSTALLED = ("nomic-embed-text", "mxbai-embed-large", "bge-m3", "all-minilm")


def canonical(name: str) -> str:
    """Return a model's name as the double stores it: lower case, without `:latest`."""
    return name.lower().removesuffix(":latest")


def count_tokens(text: str) -> int:
    """Return the tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def truncated(model: str, text: str, options: Mapping[str, Any] | None = None) -> str:
    """Return the part of a text that a model reads."""
    return text[: KNOWN[canonical(model)].token_limit(options or {}) * CHARACTERS_PER_TOKEN]


def details(spec: ModelSpec) -> dict[str, Any]:
    """Return the `details` object of the catalogue."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": spec.family,
        "families": [spec.family],
        "parameter_size": spec.parameters,
        "quantization_level": "F16",
    }


def tag(spec: ModelSpec) -> dict[str, Any]:
    """Return one entry of `GET /api/tags`."""
    name = f"{spec.name}:latest"
    return {
        "name": name,
        "model": name,
        "modified_at": MODIFIED_AT,
        "size": spec.size,
        "digest": spec.digest,
        "details": details(spec),
    }


def running(spec: ModelSpec) -> dict[str, Any]:
    """Return one entry of `GET /api/ps`."""
    entry = tag(spec)
    del entry["modified_at"]
    context = min(spec.context, DEFAULT_NUM_CTX)
    return entry | {"expires_at": "2318-11-22T12:00:00Z", "size_vram": 0, "context_length": context}


def show(spec: ModelSpec) -> dict[str, Any]:
    """Return the answer of `POST /api/show`."""
    return {
        "license": "",
        "modelfile": f"FROM {spec.name}:latest",
        "template": "{{ .Prompt }}",
        "details": details(spec),
        "model_info": {
            "general.architecture": spec.family,
            f"{spec.family}.context_length": spec.context,
            f"{spec.family}.embedding_length": spec.dimensions,
        },
        "capabilities": ["embedding"],
        "modified_at": MODIFIED_AT,
    }
