"""Computation of a request's vectors: the texts that are run, their tokens, and the text that ends the request."""

from dataclasses import dataclass

from tests.doubles.base.refusals import Refusal
from tests.doubles.ollama.answers import encode_vector
from tests.doubles.ollama.behaviour import REFUSALS
from tests.doubles.ollama.markers import FLAWS, Markers
from tests.doubles.ollama.models import CHARACTERS_PER_TOKEN, count_tokens
from tests.doubles.ollama.requests import EmbedRequest
from tests.doubles.ollama.vectors import Flaw

TOO_LONG = "the input length exceeds the context length"


@dataclass(frozen=True, kw_only=True, slots=True)
class Computation:
    """Vectors of the texts as the model reads them.

    Attributes:
        vectors: Encoded vectors.
        tokens: Tokens of the texts.
        run: Texts that took the model's time.
        end: Effect of the last of them on the whole request; None without any.
    """

    vectors: list[bytes]
    tokens: int = 0
    run: int = 0
    end: Refusal | str | None = None


def compute(request: EmbedRequest, markers: Markers, flaw: Flaw | None) -> Computation:
    """Return a request's vectors, up to the first text that ends the request."""
    limit = request.spec.token_limit(request.options) * CHARACTERS_PER_TOKEN
    vectors: list[bytes] = []
    tokens = 0
    for text in request.texts:
        if len(text) > limit and not request.truncate:
            return _ended(vectors, tokens, _too_long(request, text))
        action = markers.action(text)
        if action is not None and action not in FLAWS:
            return _ended(vectors, tokens, REFUSALS.get(action, action))
        read = text[:limit]
        vectors.append(encode_vector(request, read, flaw if action is None else Flaw(action)))
        tokens += count_tokens(read)
    return Computation(vectors=vectors, tokens=tokens, run=len(vectors))


def _too_long(request: EmbedRequest, text: str) -> Refusal:
    if not request.llama:
        return Refusal(status=400, message=TOO_LONG, code="context_length_exceeded")
    limit = request.spec.token_limit(request.options)
    remedy = f"increase the physical batch size (current batch size: {limit})"
    return Refusal(status=500, message=f"input ({count_tokens(text)} tokens) is too large to process. {remedy}")


def _ended(vectors: list[bytes], tokens: int, end: Refusal | str) -> Computation:
    return Computation(vectors=vectors, tokens=tokens, run=len(vectors) + 1, end=end)
