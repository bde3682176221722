"""What a request's texts amount to: how many are run, what they count, and where one ends it all."""

from dataclasses import dataclass

from tests.doubles.answers import encode_vector
from tests.doubles.calls import Call
from tests.doubles.markers import FLAWS, Markers
from tests.doubles.models import CHARACTERS_PER_TOKEN, count_tokens
from tests.doubles.pacing import Slot
from tests.doubles.refusals import BY_MODE, TOO_LONG, Refusal
from tests.doubles.vectors import Flaw


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The texts as the model reads them; `end` is what the last of the `run` texts did to the request."""

    vectors: list[bytes]
    tokens: int
    run: int
    end: Refusal | str | None
    slot: Slot | None


NO_WORK = Work(vectors=[], tokens=0, run=0, end=None, slot=None)


def plan(call: Call, slot: Slot, markers: Markers, flaw: Flaw | None) -> Work:
    """Return a call's work in its slot, up to the first text that ends the request."""
    limit = call.spec.token_limit(call.options) * CHARACTERS_PER_TOKEN
    vectors: list[bytes] = []
    tokens = 0
    for text in call.texts:
        if len(text) > limit and not call.truncate:
            return _ended(vectors, tokens, Refusal(status=400, message=TOO_LONG, code="context_length_exceeded"))
        action = markers.action(text)
        if action is not None and action not in FLAWS:
            return _ended(vectors, tokens, BY_MODE.get(action, action))
        read = text[:limit]
        vectors.append(encode_vector(call, read, flaw if action is None else Flaw(action)))
        tokens += count_tokens(read)
    return Work(vectors=vectors, tokens=tokens, run=len(vectors), end=None, slot=slot)


def _ended(vectors: list[bytes], tokens: int, end: Refusal | str) -> Work:
    return Work(vectors=vectors, tokens=tokens, run=len(vectors) + 1, end=end, slot=None)
