"""Checks of an embedding server."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from citadel_client.conformance.common_checks import NO_MODEL, at_once, authorization, grade_of, noted, refusals
from citadel_client.conformance.detection import Subject
from citadel_client.conformance.findings import Finding, counted
from citadel_client.conformance.protocols import Vector
from citadel_client.conformance.server import Reply

TEXTS = ("The cat sleeps.", "Interest rates rise.", "Das Meer ist blau.", "def f(x): return x", "Bread, butter, jam")
UNUSUAL = (
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f600",
    "e\u0301 \u00e9 \ufb01",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "a\tb\u2028c\r\nd",
    "\u4f60\u597d",
)
"""Joined emoji, combining marks, right to left, unusual white space, Chinese."""
BATCH = 32
"""Texts of the batch that `MAX_BATCH_TEXTS` allows by default."""
SAME, ALIKE = 0.9999, 0.99
"""Cosines from which two vectors are the same, and those of the same text, computed in other company."""
TOKENS = [[101, 7592, 2088, 102]]


class EmbeddingChecks:
    """The checks of one server; each makes its own calls.

    Args:
        subject: The server.
        long_words: Words of the text that is too long; 0 leaves it out.
    """

    def __init__(self, subject: Subject, long_words: int) -> None:
        self._subject = subject
        self._server, self._wire = subject.server, subject.wire
        self._url = subject.wire.embed_url(subject.server.url)
        self._long_words = long_words
        self.size = 0

    def run(self) -> Iterator[Finding]:
        """Yield the findings; the first failure of what everything rests on ends them."""
        singles = [self._ask(text, "vectors") for text in TEXTS]
        vectors = [next(iter(self._wire.vectors(reply)), None) for reply in singles]
        good = [vector for vector in vectors if vector is not None]
        if len(good) < len(TEXTS) or len({vector.size for vector in good}) > 1:
            failed = next((reply for reply in singles if not reply.ok), singles[0])
            yield Finding(check="vectors", result="none", grade="bad", detail=f"{failed.refused}: {failed.words}")
            return
        self.size = good[0].size
        yield from self._basics(good, singles[0])
        yield from self._batches(good)
        yield self._empty()
        yield self._unusual()
        yield from self._too_long()
        yield self._dimensions(good[0])
        yield from self._encodings(good[0])
        yield at_once(
            lambda number: self._ask(TEXTS[number % len(TEXTS)], "at once"),
            lambda number, reply: _is_one(self._wire.vectors(reply), good[number % len(TEXTS)]),
        )
        yield from refusals(
            lambda: self._ask("a", "unknown model", model=NO_MODEL),
            lambda: self._ask({"a": 1}, "bad input"),
        )
        yield authorization(
            self._subject, lambda key: self._server.post(self._url, self._body("a"), "authorization", key=key)
        )

    def _body(self, texts: Any, **more: Any) -> dict[str, Any]:
        return {"model": self._subject.model, "input": texts} | more

    def _ask(self, texts: Any, purpose: str, **more: Any) -> Reply:
        return self._server.post(self._url, self._body(texts, **more), purpose)

    def _vectors(self, reply: Reply) -> list[Vector | None]:
        return self._wire.vectors(reply) if reply.ok else []

    def _basics(self, vectors: Sequence[Vector], reply: Reply) -> Iterator[Finding]:
        yield Finding(check="vectors", result="one for each text", detail=f"{self.size} dimensions")
        is_unit = all(abs(float(np.linalg.norm(vector)) - 1) < 1e-2 for vector in vectors)
        yield noted("length", "1" if is_unit else "other", is_good=is_unit)
        is_counted = counted(self._wire.embed_tokens(reply))
        yield noted("usage", "counted" if is_counted else "missing", is_good=is_counted)

    def _batches(self, singles: Sequence[Vector]) -> Iterator[Finding]:
        order = [3, 0, 4, 2, 1, 0]
        reply = self._ask([TEXTS[number] for number in order], "order")
        found = self._vectors(reply)
        if len(found) != len(order):
            detail = f"{len(found)} vectors for {len(order)} texts; {_words_of(reply)}"
            yield Finding(check="order", result="failed" if reply.ok else reply.refused, grade="bad", detail=detail)
            return
        least = min(_cosine(vector, singles[number]) for vector, number in zip(found, order, strict=True))
        yield _judged("order", least >= ALIKE, "kept", "mixed up", f"least cosine {least:.6f}")
        is_alone = least >= SAME
        yield noted("batch", "as alone" if is_alone else "differs from alone", is_good=is_alone)
        yield _judged("duplicates", _cosine(found[1], found[-1]) >= SAME, "the same vector", "differ")
        reply = self._ask([f"text {number}" for number in range(BATCH)], "large batch")
        has_all = len(self._vectors(reply)) == BATCH
        result = f"{BATCH} texts" if has_all else "some texts missing" if reply.ok else reply.refused
        yield noted("large batch", result, is_good=has_all, detail=_words_of(reply))

    def _empty(self) -> Finding:
        reply = self._ask(["a", ""], "empty text")
        found = self._vectors(reply)
        if not reply.ok:
            return Finding(check="empty text", result=reply.refused, grade="note", detail=reply.words)
        if len(found) != 2:
            return Finding(check="empty text", result="left out", grade="bad", detail=f"{len(found)} vectors for 2")
        return Finding(check="empty text", result="a vector" if found[1] is not None else "no usable vector")

    def _unusual(self) -> Finding:
        reply = self._ask(list(UNUSUAL), "Unicode")
        found = self._vectors(reply)
        alone = self._vectors(self._ask(UNUSUAL[0], "Unicode"))
        is_right = len(found) == len(UNUSUAL) and all(v is not None for v in found) and _is_one(alone, found[0])
        return _judged("Unicode", is_right, "a vector each", "failed", _words_of(reply))

    def _too_long(self) -> Iterator[Finding]:
        """Yield what becomes of a text over the model's context; Ollama cuts it, or not, by request."""
        if not self._long_words:
            return
        if self._wire.style == "openai":
            yield self._one_too_long("too long")
        else:
            yield self._one_too_long("too long, truncate false", truncate=False)
            yield self._one_too_long("too long, truncate true", truncate=True)

    def _one_too_long(self, check: str, **more: Any) -> Finding:
        replies = [
            self._ask("word " * self._long_words + tail, "too long", **more) for tail in ("the cat", "rates rise")
        ]
        refused = next((reply for reply in replies if not self._vectors(reply)), None)
        if refused is not None:
            return Finding(check=check, result=refused.refused, grade=grade_of(refused), detail=refused.words)
        first, second = (self._vectors(reply)[0] for reply in replies)
        # what is cut off makes no difference; a model that reads to the end sees the other tail
        is_cut = _cosine(first, second) > 1 - 1e-9
        detail = f"{self._long_words} words"
        if is_cut:
            return noted(check, "cut without a word", is_good=bool(more.get("truncate")), detail=detail)
        return noted(check, "read to the end", detail=detail)

    def _dimensions(self, whole: Vector) -> Finding:
        wanted = max(1, self.size // 2)
        reply = self._ask(TEXTS[0], "dimensions", dimensions=wanted)
        found = next(iter(self._vectors(reply)), None)
        if found is None:
            return Finding(check="dimensions", result=reply.refused, grade="note", detail=reply.words)
        if found.size != wanted:
            return Finding(check="dimensions", result="ignored", grade="note", detail=f"{found.size} for {wanted}")
        is_unit = abs(float(np.linalg.norm(found)) - 1) < 1e-2
        is_prefix = _cosine(found, whole[:wanted]) > ALIKE
        how = "the beginning" if is_prefix else "not the beginning"
        return Finding(check="dimensions", result="honoured", detail=f"{how}, length {'1' if is_unit else 'not 1'}")

    def _encodings(self, vector: Vector) -> Iterator[Finding]:
        if self._wire.style != "openai":
            return
        reply = self._ask(TEXTS[0], "base64", encoding_format="base64")
        found = self._vectors(reply)
        if not found:
            yield noted("base64", reply.refused, is_good=False, detail=reply.words)
        elif not _is_one(found, vector):
            yield Finding(check="base64", result="another vector", grade="bad")
        else:
            is_text = self._wire.is_base64(reply)
            yield noted("base64", "honoured" if is_text else "ignored", is_good=is_text)
        reply = self._ask(TOKENS, "token arrays")
        is_taken = len(self._vectors(reply)) == 1
        yield noted("token arrays", "a vector" if is_taken else reply.refused, detail=_words_of(reply))


def _words_of(reply: Reply) -> str:
    """Return the server's words, if it refused."""
    return "" if reply.ok else reply.words


def _judged(check: str, is_good: bool, good: str, bad: str, detail: str = "") -> Finding:
    return Finding(check=check, result=good if is_good else bad, grade="good" if is_good else "bad", detail=detail)


def _cosine(one: Vector | None, other: Vector | None) -> float:
    if one is None or other is None or one.size != other.size:
        return -1.0
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length else -1.0


def _is_one(found: Sequence[Vector | None], expected: Vector | None) -> bool:
    return len(found) == 1 and _cosine(found[0], expected) >= ALIKE
